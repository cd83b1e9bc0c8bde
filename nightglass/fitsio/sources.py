"""Bytes of a FITS file in order, plain or gzip, hashed on the way if wanted.

What a file is, its first bytes say, not its name: cameras deliver gzip under ``.fits``.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import os
import stat
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from nightglass.errors import Rejected, Retryable

__all__ = ["ByteSource", "open_source", "reading"]

_CHUNK = 1 << 20
_GZIP = b"\x1f\x8b"
_FOREIGN = {
    b"\x1f\x9d": "compressed with compress (.Z)",
    b"BZh": "compressed with bzip2",
    b"\xfd7zXZ": "compressed with xz",
    b"\x28\xb5\x2f\xfd": "compressed with zstd",
    b"PK\x03\x04": "a zip archive",
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"\x89HDF": "an HDF5 file",
    b"%PDF": "a PDF file",
}


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what the file system and gzip say about a file into errors of ours.

    Raises
    ------
    Retryable
        If the file is gone, locked, or ends early.
    Rejected
        If it is a directory, or damaged gzip.
    """
    try:
        yield
    except IsADirectoryError as error:
        message = f"{path} is a directory"
        raise Rejected(message, remedy="only files are exposures") from error
    except EOFError as error:
        message = f"{path}: still growing, the gzip stream ends in the middle at {_size(path)} bytes"
        raise Retryable(message, remedy="it is tried again when the file changes") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        message = f"{path}: the gzip stream is damaged: {error}"
        raise Rejected(message, remedy="transfer the file again") from error
    except OSError as error:
        message = f"{path} cannot be read: {error.strerror or error}"
        raise Retryable(message, remedy="check that it is still there and readable") from error


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


class ByteSource:
    """Sequential bytes of one file.

    Attributes
    ----------
    path : Path
        Of the file.
    raw_size : int
        Bytes on disk.
    compressed : bool
        Whether the file is gzip.
    position : int
        Uncompressed bytes that went by.
    last : bytes
        What `read` gave last.
    """

    def __init__(self, path: Path, raw: _Raw, *, limit: int) -> None:
        self.path = path
        self.raw_size = raw.size
        self.position = 0
        self.last = b""
        self._raw = raw
        self._limit = limit
        magic = raw.peek(8)
        self.compressed = magic.startswith(_GZIP)
        for start, what in _FOREIGN.items():
            if magic.startswith(start):
                message = f"{path} is {what}, not FITS"
                raise Rejected(message, remedy="deliver plain FITS, or compress it with gzip or fpack")
        # not BufferedReader: the bytes are wanted in large pieces anyway
        self._stream: io.RawIOBase | gzip.GzipFile = gzip.GzipFile(fileobj=raw) if self.compressed else raw
        self._buffer = memoryview(bytearray(_CHUNK))

    def read(self, count: int) -> bytes:
        """Return that many bytes, fewer only at the end."""
        pieces: list[bytes] = []
        self.consume(count, lambda piece: pieces.append(bytes(piece)))
        self.last = b"".join(pieces)
        return self.last

    def peek(self, offset: int, count: int) -> bytes:
        """Return bytes on disk from anywhere, without moving."""
        return self._raw.peek(count, offset)

    def read_into(self, target: memoryview) -> int:
        """Fill a buffer of bytes; returns how many came, fewer than its length only at the end."""
        done = 0

        def place(piece: memoryview) -> None:
            nonlocal done
            target[done : done + len(piece)] = piece
            done += len(piece)

        if self.compressed or self._raw.hashes:
            self.consume(len(target), place)
            return done
        while done < len(target) and (count := self._raw.readinto(target[done : done + (_CHUNK << 4)])):
            done += count
        self._advance(done)
        return done

    def skip(self, count: int) -> int:
        """Pass over that many bytes without looking at them; returns how many there were."""
        if self.compressed or self._raw.hashes:
            return self.consume(count, None)
        there = min(count, max(self.raw_size - self.position, 0))
        self._raw.seek(there, os.SEEK_CUR)
        self._advance(there)
        return there

    def consume(self, count: int, use: Callable[[memoryview], object] | None) -> int:
        """Pass that many bytes to a function in pieces; returns how many there were."""
        left = count
        while left:
            got = self._stream.readinto(self._buffer[: min(left, _CHUNK)])
            if not got:
                break
            self._advance(got)
            if use is not None:
                use(self._buffer[:got])
            left -= got
        return count - left

    def drain(self) -> int:
        """Read to the end, past the end of a gzip stream too; returns the uncompressed bytes that were left."""
        left = self.skip(1 << 62)
        while self._raw.readinto(self._buffer):
            pass
        return left

    @property
    def content_id(self) -> str:
        """Hash of the raw bytes that went by; of the file after `drain`."""
        return self._raw.digest()

    def _advance(self, count: int) -> None:
        self.position += count
        if self.position > self._limit and self.compressed:
            message = f"{self.path}: {self.raw_size} bytes of gzip expand to more than {self._limit >> 20} MiB"
            raise Rejected(message, remedy="raise limits.image_mib if such files are wanted")


class _Raw(io.RawIOBase):
    """The file on disk, whose bytes are hashed as they are read."""

    def __init__(self, path: Path, *, hashing: bool) -> None:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # opening a pipe would wait for its writer
            message = f"{path} is no regular file"
            raise Rejected(message, remedy="only files are exposures")
        self._file = path.open("rb", buffering=0)
        self.size = os.fstat(self._file.fileno()).st_size
        self.hashes = hashing
        self._digest = hashlib.blake2b(digest_size=16)

    def readable(self) -> bool:
        return True

    def peek(self, count: int, offset: int = 0) -> bytes:
        return os.pread(self._file.fileno(), count, offset)

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        got = self._file.readinto(buffer) or 0
        if self.hashes:
            self._digest.update(memoryview(buffer)[:got])
        return got

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def digest(self) -> str:
        return self._digest.hexdigest()

    def close(self) -> None:
        self._file.close()
        super().close()


@contextlib.contextmanager
def open_source(path: Path, *, limit: int, hashing: bool = False) -> Iterator[ByteSource]:
    """Open a file as a source.

    Parameters
    ----------
    limit : int
        Most uncompressed bytes that a gzip stream may give.
    hashing : bool
        Hash every byte on disk, see `ByteSource.content_id`.

    Raises
    ------
    Rejected
        If it is of a foreign kind, a directory, or damaged or endless gzip.
    Retryable
        If it cannot be read, or ends in the middle of a gzip stream.
    """
    with reading(path):
        raw = _Raw(path, hashing=hashing)
        with contextlib.closing(raw):
            yield ByteSource(path, raw, limit=limit)
