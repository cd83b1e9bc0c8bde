"""The nouns of a cube: what was asked, what the frames hold, and what will be written where.

These records cross Dask, so they hold paths, header text and numbers, never pixels.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from astropy.io import fits

from nightglass.fitsio.product_cards import CardValue

__all__ = [
    "Compression",
    "CubePlan",
    "CubeRequest",
    "CubeSummary",
    "Encoding",
    "FrameFile",
    "HduText",
    "ImagePlan",
    "Keywords",
    "PixelFormat",
    "Plane",
    "Problem",
    "Progress",
    "SourceSummary",
    "Stamp",
    "Survey",
    "TablePlan",
    "TileLayout",
]

Progress = Callable[[int, int], None]
"""Told how many bytes of pixels are done, and of how many; called from any thread."""


class Encoding(enum.StrEnum):
    """How the pixels of a plane stand in their file."""

    PLAIN = "plain"
    """Big-endian numbers, one after the other: bytes that can be moved."""
    GZIP = "gzip"
    """The same, in a file that is gzip as a whole."""
    TILES = "tiles"
    """A tile-compressed image (FITS 4.0, section 10)."""


@dataclass(frozen=True, slots=True)
class Compression:
    """How a cube is compressed.

    Attributes
    ----------
    algorithm : str
        For integers. Floats are never quantised unless `quantize` says so: they are compressed by GZIP_2, without loss.
    quantize : float
        Noise fraction of a quantisation step of floats (the ``q`` of fpack, 4 is usual); 0: without loss.
    dither : str
        How quantised floats are dithered: ``none``, ``subtractive_1`` or ``subtractive_2`` (zeros stay zero).
    """

    algorithm: Literal["rice", "gzip"] = "rice"
    quantize: float = 0.0
    dither: Literal["none", "subtractive_1", "subtractive_2"] = "subtractive_1"


@dataclass(frozen=True, slots=True)
class Keywords:
    """Which header keywords go where, as the Image Builder's ``archive_*`` lists; shell patterns are allowed.

    Attributes
    ----------
    primary : tuple of str
        Into the primary header, from the first frame that has them.
    secondary : tuple of str
        Into the header of each source's image, from its first frame that has them.
    metadata : tuple of str
        Columns of each source's table. The default: every keyword that any of its frames has.
    """

    primary: tuple[str, ...] = ()
    secondary: tuple[str, ...] = ()
    metadata: tuple[str, ...] = ("*",)


@dataclass(frozen=True, slots=True, kw_only=True)
class CubeRequest:
    """One cube that is wanted.

    Attributes
    ----------
    paths : tuple of Path
        Frames, in any order; each may hold several sources and several frames.
    out : Path
        Where the cube appears, whole; an existing file is replaced only with `overwrite`.
    role, exposure, night, camera : str
        For the primary header: EXTNAME is the role in capitals.
    frame_keyword : tuple of str
        Keywords that number a frame; without them frames are numbered in the order of their start, from 0.
    source_names : dict
        EXTNAME (or ``""`` for an image without one) to the name of its source.
    extra : dict
        Cards for the primary header: keyword to value, or to a pair of value and comment.
    keep_cards : bool
        Store every header card of every frame, so that frames come back whole.
    mode : str
        ``shared``: workers see the frames and the cube; ``gather``: they see the frames only, and this process writes.
    durable : bool
        Sync to disk before the cube gets its name.
    verify : bool
        Read back and compare before the cube gets its name.
    skip_bad : bool
        Leave out a frame that cannot be read, and name it; otherwise it is an error.
    """

    paths: tuple[Path, ...]
    out: Path
    role: str = "science"
    exposure: str = ""
    night: str = ""
    camera: str = ""
    compression: Compression | None = None
    keywords: Keywords = Keywords()
    frame_keyword: tuple[str, ...] = ("FRAME", "FRAMENO", "FRAMENUM")
    source_names: dict[str, str] = field(default_factory=dict)
    extra: dict[str, CardValue] = field(default_factory=dict)
    keep_cards: bool = True
    mode: Literal["shared", "gather"] = "shared"
    durable: bool = True
    verify: bool = True
    overwrite: bool = False
    skip_bad: bool = True


@dataclass(frozen=True, slots=True)
class Stamp:
    """A file as it was when its headers were read; one that differs later has changed under our hands."""

    path: Path
    size: int
    mtime_ns: int
    inode: int


@dataclass(frozen=True, slots=True)
class PixelFormat:
    """How the numbers of an image are stored.

    Attributes
    ----------
    bitpix : int
        8, 16, 32, 64, -32 or -64.
    bscale, bzero : float
        Physical value = bzero + bscale x stored value.
    blank : int or None
        Stored value of undefined pixels of integer images.
    """

    bitpix: int
    bscale: float = 1.0
    bzero: float = 0.0
    blank: int | None = None

    @property
    def itemsize(self) -> int:
        """Bytes of a pixel."""
        return abs(self.bitpix) // 8


@dataclass(frozen=True, slots=True, kw_only=True)
class TileLayout:
    """How a tile-compressed image is stored, as far as joining needs to know it.

    Attributes
    ----------
    algorithm : str
        ZCMPTYPE.
    tile : tuple of int
        Of one plane, slowest axis first: (rows, columns).
    options : tuple of pairs
        ZNAMEi and ZVALi.
    quantize : str
        ZQUANTIZ; empty where there is none.
    dither0 : int
        ZDITHER0; 0 where there is none.
    first_row, rows : int
        Rows of the table that are the tiles of this plane.
    columns : tuple of pairs
        TTYPE and TFORM of each column of the table.
    row_size, table_offset, heap_offset, heap_size : int
        Bytes; offsets in the file.
    """

    algorithm: str
    tile: tuple[int, int]
    options: tuple[tuple[str, int], ...] = ()
    quantize: str = ""
    dither0: int = 0
    first_row: int = 0
    rows: int = 0
    columns: tuple[tuple[str, str], ...] = ()
    row_size: int = 0
    table_offset: int = 0
    heap_offset: int = 0
    heap_size: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plane:
    """One two-dimensional image of one source in one frame.

    Attributes
    ----------
    file, hdu : int
        Where it is: index into `Survey.files`, and HDU of that file.
    number : int
        Which plane of an HDU that holds several, from 0.
    source : str
        Name of its source, safe as an EXTNAME.
    frame : int
        Number of its frame.
    shape : tuple of int
        (rows, columns).
    offset, size : int
        Bytes of the plane in the file, uncompressed; for tiles: of the whole table with its heap.
    datasum : int or None
        DATASUM card of its HDU, when the plane is all of the data of the HDU: checked against the bytes.
    """

    file: int
    hdu: int
    number: int = 0
    source: str
    frame: int
    shape: tuple[int, int]
    format: PixelFormat
    encoding: Encoding = Encoding.PLAIN
    offset: int
    size: int
    datasum: int | None = None
    tiles: TileLayout | None = None


@dataclass(frozen=True, slots=True)
class HduText:
    """The header of an HDU as it stands in the file: whole blocks of 2880 bytes, and where its data are."""

    text: bytes
    data_offset: int
    data_size: int


@dataclass(frozen=True, slots=True)
class FrameFile:
    """One file of frames; offsets are those of its uncompressed bytes where it is gzip as a whole."""

    stamp: Stamp
    hdus: tuple[HduText, ...]
    gzip: bool = False


@dataclass(frozen=True, slots=True)
class Problem:
    """A frame, or a part of one, that is left out, and why."""

    path: Path
    reason: str


@dataclass(frozen=True, slots=True)
class Survey:
    """What the frames hold, from their headers alone."""

    files: tuple[FrameFile, ...]
    planes: tuple[Plane, ...]
    """By source, then frame."""
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePlan:
    """The image HDU of one source.

    Attributes
    ----------
    name : str
        EXTNAME; ``NAME_2`` and so on where the source changed its shape.
    header : Header
        Cards beyond the structural ones, which the writer adds: NAXIS.., BSCALE, BZERO, BLANK, EXTNAME, checksums.
    format : PixelFormat
        Of the cube.
    planes : tuple of int
        Indices into `Survey.planes`, in the order of the planes of the cube.
    note : str
        What is converted and why; empty where all planes are moved as they are.
    """

    name: str
    header: fits.Header
    format: PixelFormat
    shape: tuple[int, int]
    planes: tuple[int, ...]
    note: str = ""

    @property
    def plane_size(self) -> int:
        """Bytes of one plane, uncompressed."""
        return self.shape[0] * self.shape[1] * self.format.itemsize


@dataclass(frozen=True, slots=True)
class TablePlan:
    """A BINTABLE that is known before any pixel is moved.

    Attributes
    ----------
    name : str
        EXTNAME.
    header : Header
        Complete but for CHECKSUM and DATASUM.
    data : bytes
        Rows and heap as they stand in the file, not padded.
    """

    name: str
    header: fits.Header
    data: bytes


@dataclass(frozen=True, slots=True)
class CubePlan:
    """A whole cube, before any pixel is moved.

    Attributes
    ----------
    hdus : tuple
        In the order of the file, without the primary: each source's image and its table, then GAPS and CARDS.
    """

    request: CubeRequest
    survey: Survey
    primary: fits.Header
    hdus: tuple[ImagePlan | TablePlan, ...]


@dataclass(frozen=True, slots=True)
class SourceSummary:
    """One image HDU of a finished cube."""

    name: str
    frames: int
    shape: tuple[int, int]
    bitpix: int
    stored_bytes: int
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CubeSummary:
    """A finished cube.

    Attributes
    ----------
    size : int
        Bytes of the file.
    pixel_bytes : int
        Bytes of its pixels, uncompressed.
    checksum : str
        As `nightglass.fitsio.content_id`; empty where it was not asked for.
    seconds : dict
        Time of each stage: survey, plan, pixels, finish, verify.
    """

    path: Path
    size: int
    pixel_bytes: int
    sources: tuple[SourceSummary, ...]
    frames: int
    problems: tuple[Problem, ...] = ()
    checksum: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
