"""A cube appears under its name whole or not at all; what a killed process left beside it goes with the next cube."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from nightglass.cubes.records import CubeRequest
from nightglass.errors import Misconfigured, Retryable
from nightglass.fitsio import part_path

__all__ = ["publishing", "refuse_existing", "sweep", "sync", "sync_upwards"]

_LEVELS: Final = 4
"""Directories above a file that may be new with it: image directory, night, exposure, one of its own."""


@contextlib.contextmanager
def publishing(request: CubeRequest) -> Iterator[Path]:
    """Give a path to write to; at the end of a block without exception the cube gets its name.

    Raises
    ------
    Misconfigured
        If somebody else has taken the name, and it is not to be overwritten.
    Retryable
        If the file system refuses, in the block or here. No file is left.
    """
    out = request.out
    # the form of the token tells `nightglass.fitsio.remove_stale_parts` whose file it is
    part = part_path(out, f"w{os.getpid()}x{secrets.token_hex(4)}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(out.parent, re.escape(out.name))
        try:
            with _locked(part):
                yield part
                _rename(part, out, replacing=request.overwrite)
        finally:
            part.unlink(missing_ok=True)
        if request.durable:
            sync_upwards(out.parent)
    except OSError as error:
        message = f"{out} cannot be written: {error.strerror or error}"
        raise Retryable(message, remedy="make room on the disk, and check the rights of the directory") from error


def sweep(directory: Path) -> None:
    """Remove what killed processes left of FITS files that they wrote to a directory by `publishing`.

    Raises
    ------
    Retryable
        If the file system refuses.
    """
    try:
        _remove_stale(directory, r".+\.fits(?:\.fz)?")
    except FileNotFoundError:
        return
    except OSError as error:
        message = f"{directory} cannot be swept: {error.strerror or error}"
        raise Retryable(message, remedy="check the disk and the rights of the directory") from error


def refuse_existing(out: Path) -> None:
    """Raise `Misconfigured` if there is a file of that name."""
    if os.path.lexists(out):
        message = f"{out} is there already"
        raise Misconfigured(message, remedy="remove it, or ask for it to be overwritten")


def sync_upwards(directory: Path) -> None:
    """Wait until a directory is on disk, and that it is in the ones above: those of an exposure are new with it."""
    sync(directory)
    for above in directory.parents[:_LEVELS]:
        with contextlib.suppress(PermissionError):  # what may only be passed through was not made by us
            sync(above)


def sync(path: Path) -> None:
    """Wait until a file or a directory is on disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _locked(part: Path) -> Iterator[None]:
    """Create a file and hold its lock, which ends with this process, however that ends."""
    descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        with contextlib.suppress(OSError):  # a file system without locks: the number of the process has to do
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _remove_stale(directory: Path, name: str) -> None:
    """Remove parts of cubes of this name (a pattern), and fragments beside them, that nobody writes any more."""
    own = re.compile(rf"(?:f\d+\.)?((?:{name})\.w(\d+)x[0-9a-f]{{8}}\.part)")
    with os.scandir(directory) as entries:
        found = [match for entry in entries if (match := own.fullmatch(entry.name))]
    stale = {part: _is_stale(directory / part, int(process)) for part, process in {m.groups() for m in found}}
    for match in found:
        if stale[match[1]]:
            (directory / match[0]).unlink(missing_ok=True)


def _is_stale(part: Path, process: int) -> bool:
    """Tell whether nobody writes a part: its lock is free, and it is not just being created.

    Numbers of processes come back, soon where there are few of them, and in a container with the first process. So they
    decide only where the lock says nothing: before there is a byte, and where a file system has no locks.
    """
    try:
        with part.open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return bool(os.fstat(stream.fileno()).st_size) or not _runs(process)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return not _runs(process)  # fragments without their part are worth nothing, once who made them is gone


def _runs(process: int) -> bool:
    """Tell whether a process runs here; /proc has threads, too, under numbers of their own."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return False
    return f"\nTgid:\t{process}\n" in status


def _rename(part: Path, out: Path, *, replacing: bool) -> None:
    if replacing:
        part.replace(out)
        return
    try:
        os.link(part, out)  # unlike a rename, it takes no name that somebody else has taken in the meantime
    except FileExistsError:
        refuse_existing(out)
        raise
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        refuse_existing(out)  # a file system without hard links leaves a short moment for another writer
        part.replace(out)
