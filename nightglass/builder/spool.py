"""The spool: extensions are files before they are acknowledged, and what is known of a frame is a file beside them.

::

    <root>/<camera>/.incoming/<process>-<number>.part      a body on its way
    <root>/<camera>/<night>/builder/<expid>/exposure.json
    <root>/<camera>/<night>/builder/<expid>/<frame>/frame.json
    <root>/<camera>/<night>/builder/<expid>/<frame>/<EXTENSION>.<checksum>.fits

A body is received under a name of its own, renamed, and only then entered in ``frame.json``, which is replaced as a
whole. So after a kill at any moment each entry has its file; a file without an entry was never acknowledged.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import secrets
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from nightglass.builder.bodies import PixelForm
from nightglass.builder.records import NO_INSTRUCTIONS, Instructions
from nightglass.errors import Rejected, Retryable
from nightglass.fitsio.cards import BLOCK
from nightglass.fitsio.filling import append
from nightglass.layout import Layout
from nightglass.model import Night, sanitize

__all__ = ["Body", "Incoming", "Spool", "SpoolFull", "SpoolPolicy", "TooLarge"]

_COPY_BYTES = 1 << 20


class SpoolFull(Retryable):
    """The spool holds as much as it may; what is saved goes first, and then there is room again."""


class TooLarge(Rejected):
    """A body is larger than it may be."""


@dataclass(frozen=True, slots=True)
class SpoolPolicy:
    """Limits in bytes, and whether everything is synced to the disk."""

    max_bytes: int
    max_body_bytes: int
    durable: bool


@dataclass(frozen=True, slots=True)
class Body:
    """What was received, whole: a FITS file under a passing name.

    Attributes
    ----------
    size : int
        Bytes of the file.
    sha256 : str
        Of the bytes as they were delivered, hexadecimal.
    instructions : Instructions
        Control words of the header that came with bare pixels.
    """

    path: Path
    size: int
    sha256: str
    instructions: Instructions = NO_INSTRUCTIONS


class Incoming:
    """A body on its way; a context manager, which removes what was not finished."""

    def __init__(self, spool: Spool, path: Path, form: PixelForm | None) -> None:
        self._spool = spool
        self._path = path
        self._stream = path.open("wb", buffering=0)
        self._digest = hashlib.sha256()
        self._form = form.begin() if form is not None else None
        self._instructions = form.instructions if form is not None else NO_INSTRUCTIONS
        self._size = 0
        self._reserved = 0
        self._finished = False
        if form is not None:
            self._digest.update(form.header)
            self._put(form.header)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()
        if not self._finished:
            self._path.unlink(missing_ok=True)
            self._spool.release(self._reserved)

    def reserve(self, size: int) -> None:
        """Say how many bytes will come, so that what has no room is refused at once.

        Raises
        ------
        TooLarge, SpoolFull
        """
        self._spool.check_body(size)
        if size > self._reserved:
            self._spool.take(size - self._reserved)
            self._reserved = size

    def write(self, chunk: bytes | bytearray | memoryview) -> None:
        """Take the next bytes.

        Raises
        ------
        TooLarge, SpoolFull
        Retryable
            If the file system refuses.
        """
        self._digest.update(chunk)
        for piece in (chunk,) if self._form is None else self._form.feed(chunk):
            self._put(piece)

    def finish(self) -> Body:
        """End the body; with `durable` it is synced.

        Raises
        ------
        Rejected
            If pixels are missing.
        Retryable
            If the file system refuses.
        """
        if self._form is not None:
            self._form.end()
            self._put(bytes(-self._size % BLOCK))
        if self._spool.policy.durable:
            with self._telling():
                os.fsync(self._stream.fileno())
        self._stream.close()
        self._finished = True
        self._spool.release(self._reserved - self._size)
        return Body(self._path, self._size, self._digest.hexdigest(), self._instructions)

    def _put(self, piece: bytes | bytearray | memoryview) -> None:
        size = self._size + len(piece)
        self._spool.check_body(size)
        if size > self._reserved:  # in steps, so that the lock of the spool is rarely asked for
            step = max(size - self._reserved, min(_COPY_BYTES, size))
            self._spool.take(step)
            self._reserved += step
        with self._telling():
            append(self._stream, piece)
        self._size = size

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            message = f"{self._path}: the spool cannot be written: {error.strerror}"
            raise SpoolFull(message, remedy="check the disk; the extension was not taken, send it again") from error


class Spool:
    """The files of one image builder.

    Parameters
    ----------
    layout, camera
        Where: ``<root>/<camera>``.
    policy : SpoolPolicy
        May be replaced at any time.
    make_room : callable
        Asked to give back so many bytes, when the limit is reached; it gives back what is saved.
    """

    def __init__(
        self, layout: Layout, camera: str, policy: SpoolPolicy, *, make_room: Callable[[int], None] = lambda _: None
    ) -> None:
        self.policy = policy
        self._base = layout.root / sanitize(camera)
        self._layout = layout
        self._camera = camera
        self._incoming = self._base / ".incoming"
        self._numbers = itertools.count(1)
        self._token = f"{os.getpid()}-{secrets.token_hex(3)}"
        self._make_room = make_room
        self._lock = threading.Lock()
        self._held = 0

    @property
    def held(self) -> int:
        """Bytes that it holds, bodies on their way included."""
        return self._held

    @property
    def incoming(self) -> Path:
        """Where bodies are while they come."""
        return self._incoming

    def receive(self, *, size: int | None = None, form: PixelForm | None = None) -> Incoming:
        """Begin a body.

        Parameters
        ----------
        size : int, optional
            Bytes that will come, where that is known.
        form : PixelForm, optional
            The body is bare pixels of this form; without it, it is a FITS file.

        Raises
        ------
        TooLarge
            If it may not be that large.
        SpoolFull
            If there is no room.
        """
        path = self._incoming / f"{self._token}-{next(self._numbers)}.part"
        expected = size if form is None else len(form.header) + form.padded_size
        self.check_body(expected or 0)
        try:
            self._incoming.mkdir(parents=True, exist_ok=True)
            incoming = Incoming(self, path, form)
        except OSError as error:
            message = f"{self._incoming}: the spool cannot be written: {error.strerror}"
            raise SpoolFull(message, remedy="check the disk and the rights of the directory") from error
        try:
            incoming.reserve(expected or 0)
        except BaseException:
            incoming.__exit__()
            raise
        return incoming

    def receive_file(self, path: Path) -> Body:
        """Copy a file into the spool.

        Raises
        ------
        TooLarge, SpoolFull
        Retryable
            If it cannot be read.
        """
        try:
            with path.open("rb", buffering=0) as stream, self.receive(size=path.stat().st_size) as incoming:
                while chunk := stream.read(_COPY_BYTES):
                    incoming.write(chunk)
                return incoming.finish()
        except OSError as error:
            message = f"{path} cannot be read: {error.strerror}"
            raise Retryable(message, remedy="check that it is still there and readable") from error

    def receive_bytes(self, content: bytes, form: PixelForm | None = None) -> Body:
        """Put bytes into the spool.

        Raises
        ------
        TooLarge, SpoolFull, Rejected
        """
        with self.receive(size=len(content), form=form) as incoming:
            incoming.write(content)
            return incoming.finish()

    def exposure_directory(self, night: Night, expid: int) -> Path:
        """Return the directory of an exposure."""
        return self._layout.night(self._camera, night) / "builder" / f"{expid:08d}"

    def frame_directory(self, night: Night, expid: int, frame: int) -> Path:
        """Return the directory of a frame."""
        return self.exposure_directory(night, expid) / f"{frame:04d}"

    def place(self, body: Body, directory: Path, name: str) -> Path:
        """Give a body its name in the directory of its frame.

        Raises
        ------
        SpoolFull
            If the file system refuses.
        """
        final = directory / f"{name}.{body.sha256[:12]}.fits"
        try:
            directory.mkdir(parents=True, exist_ok=True)
            replaced = final.stat().st_size if final.exists() else 0
            body.path.replace(final)
        except OSError as error:
            message = f"{final}: the spool cannot be written: {error.strerror}"
            raise SpoolFull(message, remedy="check the disk; the extension was not taken, send it again") from error
        self.release(replaced)
        return final

    def drop(self, body: Body) -> None:
        """Remove a body that nobody wanted."""
        self.remove([body.path])

    def remove(self, paths: Iterable[Path]) -> int:
        """Delete files of the spool; returns how many bytes that gave back."""
        freed = 0
        for path in paths:
            with contextlib.suppress(FileNotFoundError):
                size = path.stat().st_size
                path.unlink()
                freed += size
        self.release(freed)
        return freed

    def remove_tree(self, directory: Path, held: Iterable[Path]) -> None:
        """Delete the directory of a frame or an exposure, in which these files are counted."""
        self.remove(held)
        shutil.rmtree(directory, ignore_errors=True)

    def exposure_directories(self) -> tuple[Path, ...]:
        """Return what an earlier process left, in the order of nights."""
        return tuple(sorted(path for path in self._base.glob("*/builder/*") if path.is_dir()))

    def sweep(self) -> int:
        """Remove bodies that no living process receives any more; returns how many."""
        parts = [part for part in self._incoming.glob("*.part") if not part.name.startswith(self._token)]
        # a process of our own number is an earlier one: in a container they all have the same
        stale = [part for part in parts if not _runs(part.name.partition("-")[0])]
        for part in stale:
            part.unlink(missing_ok=True)
        return len(stale)

    def check_body(self, size: int) -> None:
        """Refuse what is larger than a body may be.

        Raises
        ------
        TooLarge
        """
        if size > self.policy.max_body_bytes:
            message = f"a body of {size} bytes; at most {self.policy.max_body_bytes} are taken"
            raise TooLarge(message, remedy="raise max_body_bytes if such extensions are wanted")

    def take(self, count: int) -> None:
        """Count bytes that will be written.

        Raises
        ------
        SpoolFull
            If there is no room, also after what is saved was given back.
        """
        if self._taken(count):
            return
        self._make_room(self._held + count - self.policy.max_bytes)
        if self._taken(count):
            return
        message = f"the spool holds {self._held} bytes, and may hold {self.policy.max_bytes}; {count} more have no room"
        raise SpoolFull(message, remedy="write or archive what is in it, clear it, or raise max_bytes; then send again")

    def release(self, count: int) -> None:
        """Count bytes that were given back."""
        with self._lock:
            self._held = max(self._held - count, 0)

    def adopt(self, count: int) -> None:
        """Count bytes that were found at the start; there is no limit to these."""
        with self._lock:
            self._held += count

    def _taken(self, count: int) -> bool:
        with self._lock:
            if count > 0 and self._held + count > self.policy.max_bytes:
                return False
            self._held += count
            return True


def _runs(pid: str) -> bool:
    return pid != str(os.getpid()) and Path(f"/proc/{pid}").exists()
