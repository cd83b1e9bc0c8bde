"""Writers that make it difficult for the reader: each does one thing that real cameras, networks and people do.

Those of the signature ``(path, content)`` bring a whole file in a roundabout way, and can be given to
`nightglass.simulate.write_night`. The others leave something that is not, or not yet, a good file.
"""

from __future__ import annotations

import gzip
import io
import itertools
import os
import shutil
import struct
import tempfile
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from astropy.io import fits

__all__ = [
    "BLOCK",
    "GOOD_WRITERS",
    "burst",
    "compressed",
    "copy_under_another_name",
    "cut_at_hdu_edge",
    "empty",
    "extension_by_extension",
    "garbage",
    "gzip_bomb",
    "half_written",
    "hard_link",
    "hdu_edges",
    "move_directory_from_outside",
    "move_from_outside",
    "multi_extension",
    "named_like_a_file",
    "new_nested_directory",
    "preallocated",
    "renamed_later",
    "reopened",
    "replace_by_rename",
    "replace_in_place",
    "rsync_like",
    "slow",
    "symbolic_link",
    "symlink_loop",
    "tiny",
    "truncated",
    "unreadable",
    "write_whole",
    "zero_tail",
]

BLOCK = 2880
"""Bytes of a FITS block."""


def write_whole(path: Path, content: bytes) -> None:
    """Write as a well-behaved camera does: open, write, close."""
    path.write_bytes(content)


def slow(path: Path, content: bytes, *, chunks: int = 5, pause_s: float = 0.1) -> None:
    """Write in chunks, the file open all the time, as a read-out or a copy over a slow line does."""
    size = -(-len(content) // chunks)
    with path.open("wb") as stream:
        for start in range(0, len(content), size):
            stream.write(content[start : start + size])
            stream.flush()
            time.sleep(pause_s)


def reopened(path: Path, content: bytes, *, chunks: int = 4, pause_s: float = 0.1) -> None:
    """Append in chunks and close the file after each: every close event but the last one comes too early."""
    size = -(-len(content) // chunks)
    path.write_bytes(b"")
    for start in range(0, len(content), size):
        with path.open("ab") as stream:
            stream.write(content[start : start + size])
        time.sleep(pause_s)


def rsync_like(path: Path, content: bytes) -> None:
    """Write under a hidden temporary name beside the file, then rename, as rsync does."""
    temporary = path.with_name(f".{path.name}.Xy12Ab")
    temporary.write_bytes(content)
    temporary.rename(path)


def renamed_later(path: Path, content: bytes, *, pause_s: float = 0.2) -> None:
    """Write under a ``.part`` name, wait, then rename, as browsers and transfer programs do."""
    temporary = path.with_name(f"{path.name}.part")
    temporary.write_bytes(content)
    time.sleep(pause_s)
    temporary.rename(path)


def hard_link(path: Path, content: bytes) -> None:
    """Write elsewhere on the same file system and link the file in, as transfer daemons do: no close event comes."""
    outside = _outside(path)
    outside.write_bytes(content)
    os.link(outside, path)
    outside.unlink()
    outside.parent.rmdir()


def symbolic_link(path: Path, content: bytes) -> None:
    """Write elsewhere and link to the file."""
    outside = _outside(path)
    outside.write_bytes(content)
    path.symlink_to(outside)


def move_from_outside(path: Path, content: bytes) -> None:
    """Write elsewhere on the same file system and move the file in: no close event comes."""
    outside = _outside(path)
    outside.write_bytes(content)
    outside.rename(path)
    outside.parent.rmdir()


def preallocated(path: Path, content: bytes, *, pause_s: float = 0.3) -> None:
    """Take the full size at once, then fill it from the start, as parallel and resuming copiers do."""
    with path.open("wb") as stream:
        stream.truncate(len(content))
        half = len(content) // 2
        stream.write(content[:half])
        stream.flush()
        time.sleep(pause_s)
        stream.write(content[half:])


def extension_by_extension(path: Path, content: bytes, *, pause_s: float = 0.2) -> None:
    """Close the file after each HDU: at every pause it ends exactly at the edge of an HDU."""
    edges = [0, *hdu_edges(content)]
    for start, end in itertools.pairwise(edges):
        with path.open("ab") as stream:
            stream.write(content[start:end])
        time.sleep(pause_s)


GOOD_WRITERS = (
    write_whole,
    slow,
    reopened,
    rsync_like,
    renamed_later,
    hard_link,
    symbolic_link,
    move_from_outside,
    preallocated,
    extension_by_extension,
)
"""Writers after which the whole file is there under its name."""


def truncated(path: Path, content: bytes, *, fraction: float = 0.6) -> None:
    """Leave a file that ends in the middle of its data and never goes on."""
    path.write_bytes(content[: int(len(content) * fraction) // BLOCK * BLOCK + 77])


def cut_at_hdu_edge(path: Path, content: bytes, *, extensions: int) -> None:
    """Leave a file that has only so many of its extensions: a valid FITS file, were it not for NEXTEND."""
    path.write_bytes(content[: hdu_edges(content)[extensions]])


def zero_tail(path: Path, content: bytes, *, fraction: float = 0.6) -> None:
    """Leave a preallocated file that was never filled: its size is right, its end is zeros."""
    end = int(len(content) * fraction)
    path.write_bytes(content[:end] + bytes(len(content) - end))


def empty(path: Path) -> None:
    """Leave a file without a byte."""
    path.touch()


def garbage(path: Path, *, size: int = 5 * BLOCK, seed: int = 1) -> None:
    """Leave random bytes."""
    path.write_bytes(np.random.default_rng(seed).bytes(size))


def gzip_bomb(path: Path, *, expanded_mib: int = 1536, announced_mib: int | None = None) -> None:
    """Leave a kilobyte of gzip per mebibyte of zeros.

    Parameters
    ----------
    announced_mib : int, optional
        What the header says; None: the truth.
    """
    rows = expanded_mib if announced_mib is None else announced_mib
    cards = [("SIMPLE", True), ("BITPIX", 8), ("NAXIS", 2), ("NAXIS1", 1 << 20), ("NAXIS2", rows)]
    header = fits.Header(cards).tostring().encode("ascii")
    zeros = bytes(1 << 20)
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    start = packer.compress(header) + packer.flush(zlib.Z_FULL_FLUSH)
    segment = packer.compress(zeros) + packer.flush(zlib.Z_FULL_FLUSH)  # after a full flush the next one is the same
    checksum = zlib.crc32(header)
    for _ in range(expanded_mib):
        checksum = zlib.crc32(zeros, checksum)
    length = (len(header) + (expanded_mib << 20)) & 0xFFFFFFFF
    with path.open("wb") as stream:
        stream.write(b"\x1f\x8b\x08" + bytes(6) + b"\xff" + start)
        for _ in range(expanded_mib):
            stream.write(segment)
        stream.write(packer.flush() + struct.pack("<II", checksum, length))


def named_like_a_file(path: Path) -> None:
    """Make a directory with the name of a FITS file."""
    path.mkdir()


def unreadable(path: Path, content: bytes) -> None:
    """Leave a whole file that nobody but root may read."""
    path.write_bytes(content)
    path.chmod(0)


def symlink_loop(path: Path) -> None:
    """Make a link to itself, and beside it a directory that holds a link to its own parent."""
    path.symlink_to(path)
    nest = path.with_name(f"{path.stem}-nest")
    nest.mkdir()
    (nest / "again").symlink_to(path.parent, target_is_directory=True)


def replace_in_place(path: Path, content: bytes) -> None:
    """Write other content over a file that is there."""
    with path.open("r+b") as stream:
        stream.write(content)
        stream.truncate()


def replace_by_rename(path: Path, content: bytes) -> None:
    """Put another file in the place of one that is there."""
    rsync_like(path, content)


def copy_under_another_name(path: Path) -> Path:
    """Copy a file to another name in the same directory, and return it."""
    other = path.with_name(f"copy-of-{path.name}")
    shutil.copyfile(path, other)
    return other


def new_nested_directory(path: Path, content: bytes) -> Path:
    """Make directories in directories and at once a file in the innermost; return it."""
    inner = path.with_name(f"{path.stem}-new") / "nested" / "deeply"
    inner.mkdir(parents=True)
    (inner / path.name).write_bytes(content)
    return inner / path.name


def move_directory_from_outside(path: Path, content: bytes) -> Path:
    """Fill a directory elsewhere and move it in; return the file in it."""
    outside = _outside(path).with_name(f"{path.stem}-moved")
    (outside / "deep").mkdir(parents=True)
    (outside / "deep" / path.name).write_bytes(content)
    inside = path.with_name(outside.name)
    outside.rename(inside)
    outside.parent.rmdir()
    return inside / "deep" / path.name


def burst(directory: Path, *, count: int, first_number: int = 1, prefix: str = "burst") -> list[Path]:
    """Write thousands of small good exposures as fast as the disk takes them; each has its own number."""
    before, after = tiny(number=0).split(b"EXPNUM  =                    0")
    paths = []
    for number in range(first_number, first_number + count):
        path = directory / f"{prefix}-{number:06d}.fits"
        path.write_bytes(b"%sEXPNUM  = %20d%s" % (before, number, after))
        paths.append(path)
    return paths


@contextmanager
def half_written(path: Path, content: bytes) -> Iterator[None]:
    """Hold a file open that is half there, for as long as the block lasts; it is finished at the end."""
    with path.open("wb") as stream:
        stream.write(content[: len(content) // 2])
        stream.flush()
        yield
        stream.write(content[len(content) // 2 :])


def tiny(*, number: int = 1, target: str = "Field 1") -> bytes:
    """Return the smallest FITS file that is a good exposure of the camera ``lynx``: 5760 bytes."""
    header = fits.Header(
        [
            ("EXPNUM", number),
            ("IMAGETYP", "science"),
            ("OBJECT", target),
            ("FILTER", "r"),
            ("EXPTIME", 1.0),
            ("DATE-OBS", "2026-08-21T22:00:00.000"),
        ]
    )
    return _bytes_of(fits.HDUList([fits.PrimaryHDU(np.arange(1, 1281, dtype=np.int16).reshape(32, 40), header)]))


def multi_extension(*, extensions: int = 4, shape: tuple[int, int] = (24, 32), seed: int = 1) -> bytes:
    """Return an exposure with one HDU for each of several detectors, announced by NEXTEND."""
    rng = np.random.default_rng(seed)
    primary = fits.PrimaryHDU(header=fits.Header([("NEXTEND", extensions), ("IMAGETYP", "science"), ("EXPTIME", 1.0)]))
    primary.header["DATE-OBS"] = "2026-08-21T22:00:00.000"
    hdus = [primary]
    for number in range(1, extensions + 1):
        pixels = rng.normal(1000, 5, shape).astype(np.int16)
        hdus.append(fits.ImageHDU(pixels, name=f"CCD{number}"))
    return _bytes_of(fits.HDUList(hdus))


def compressed(content: bytes) -> bytes:
    """Return content packed by gzip, without a time stamp."""
    return gzip.compress(content, mtime=0)


def hdu_edges(content: bytes) -> list[int]:
    """Return the offsets at which the HDUs of a FITS file end."""
    with fits.open(io.BytesIO(content)) as hdus:
        infos = [hdu.fileinfo() for hdu in hdus]
    return [info["datLoc"] + info["datSpan"] for info in infos]


def _bytes_of(hdus: fits.HDUList) -> bytes:
    stream = io.BytesIO()
    hdus.writeto(stream)
    return stream.getvalue()


def _outside(path: Path) -> Path:
    """Return a place on the same file system, outside the watched directory."""
    return Path(tempfile.mkdtemp(prefix=".outside-", dir=path.parent.parent)) / path.name
