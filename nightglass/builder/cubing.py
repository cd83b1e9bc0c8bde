"""The archive of an exposure: DESI's cube of all its frames, verified, and a manifest.

HDU 0 holds no data: EXTNAME, MODULE, EXPID, FRAMES, NIGHT and what is true of the whole exposure. For each source an
image ``NAME`` of [frames, ny, nx] and a table ``NAMET`` whose row i says what the headers of frame i say (layout of
``guide-EXPID.fits.fz``, https://desidatamodel.readthedocs.io).
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import itertools
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

from astropy.io import fits

from nightglass.builder.records import ArchiveOrder, ExposureView, ExtensionRecord, FrameView
from nightglass.builder.writing import append_extension
from nightglass.config import BuilderOptions, Camera, Limits
from nightglass.cubes import Compression, CubeRequest, CubeSummary, Keywords, assemble_cube
from nightglass.cubes.headers import read_header
from nightglass.cubes.records import FrameFile
from nightglass.cubes.scanning import scan_files
from nightglass.errors import Misconfigured, NightglassError, Rejected
from nightglass.fitsio import HduInfo, content_id, publish, scan_headers, write_atomic
from nightglass.fitsio.cards import CARD
from nightglass.fitsio.product_cards import CardValue
from nightglass.fitsio.structure import is_structural
from nightglass.model import Night
from nightglass.pool import Pool

__all__ = [
    "ArchiveRules",
    "CubeKeeper",
    "KeepFunction",
    "archive_cube",
    "given_values",
    "keep_alone",
    "keeping",
    "write_manifest",
]

_KEYWORD: Final = re.compile(r"[A-Z0-9_-]{1,8}")
_OF_A_FRAME: Final = re.compile(r"EXTNAME|FRAMES?|PARTIAL|MISSING\d+|COMMENT|HISTORY|")
_ALWAYS: Final = ("MODULE", "NIGHT", "FLAVOR", "TIMESYS")
_CUBES: Final = frozenset({"TIMESYS", "DATE-BEG", "MJD-BEG", "NIGHT"})
_WILD: Final = re.compile(r"[*?\[]")
_FORMAT: Final = 1
_PASSING: Final = ".making-"

KeepFunction = Callable[[Path, Callable[[Path], CubeSummary]], CubeSummary]
"""Gives who makes a cube a passing path, and publishes what it made under the one given first."""

_EMPTY: Final = re.compile(rb"NAXIS   = +0 ")
_PIECE: Final = 1 << 20


class CubeKeeper(Protocol):
    """Who knows the cubes of a builder, and lets one write each at a time; see `nightglass.archive.BuiltCubes`."""

    def keep(
        self,
        path: Path,
        make: Callable[[Path], CubeSummary],
        *,
        night: Night,
        expid: int,
        files: Mapping[Path, str],
    ) -> CubeSummary:
        """Have a cube made beside its name, publish and record it; `files` are its frames and their contents."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveRules:
    """Which keywords go where in a cube; names or shell patterns in capitals.

    Attributes
    ----------
    primary : tuple of str
        Beside those that always go there; empty: everything that the primary header of the first frame says.
    secondary, metadata : tuple of str
        Into the header of each image, and columns of each table.
    named : tuple of str
        Those that were asked for by name, so that their absence is said.
    compress : bool
        Rice.
    """

    primary: tuple[str, ...] = ()
    secondary: tuple[str, ...] = ()
    metadata: tuple[str, ...] = ("*",)
    named: tuple[str, ...] = ()
    compress: bool = False

    @classmethod
    def of(cls, options: BuilderOptions, order: ArchiveOrder) -> ArchiveRules:
        """Make them of what is set, and of what was asked for on top of that."""
        more = _capitals(order.add2primary)
        primary = (*_capitals(options.archive_primary), *more) if options.archive_primary else ()
        secondary = (*_capitals(options.archive_secondary), *_capitals(order.add2secondary))
        metadata = (*(_capitals(options.archive_metadata) or ("*",)), *_capitals(order.add2metadata))
        asked = (*more, *_capitals(order.add2secondary), *_capitals(order.add2metadata))
        return cls(
            primary=primary,
            secondary=secondary,
            metadata=metadata,
            named=tuple(dict.fromkeys(name for name in asked if not _WILD.search(name))),
            compress=options.compress if order.compress is None else order.compress,
        )


def given_values(order: ArchiveOrder) -> dict[str, Any]:
    """Return the values that an order brings along for keywords that no frame may have."""
    found: dict[str, Any] = {}
    for wanted in (order.add2primary, order.add2secondary, order.add2metadata):
        if isinstance(wanted, Mapping):
            found |= {str(name).upper(): value for name, value in wanted.items() if value is not None}
    return found


def archive_cube(
    frames: Sequence[Path],
    out: Path,
    *,
    exposure: ExposureView,
    options: BuilderOptions,
    rules: ArchiveRules,
    camera: Camera,
    pool: Pool,
    limits: Limits | None = None,
    keep: KeepFunction | None = None,
) -> CubeSummary:
    """Make the cube of an exposure; one of that name is replaced, for it is of the same exposure.

    A keyword that was asked for and is in no frame becomes a COMMENT that says so.

    Parameters
    ----------
    frames : sequence of Path
        Multi-extension files with FRAME in their primary header, as `write_frame` makes them.
    keep : callable, optional
        See `KeepFunction`; without it whoever calls is the only one who writes this cube.

    Raises
    ------
    Rejected
        If no frame can be used.
    Retryable
        If the file system refuses.
    """
    limits = limits or Limits()
    files = [item for item in scan_files(frames, limits) if isinstance(item, FrameFile)]
    if not files:
        message = f"exposure {exposure.expid} has no frame that could be archived"
        raise Rejected(message, remedy="build at least one frame")
    tables = _tables(files, limits)

    def make(path: Path) -> CubeSummary:
        request = CubeRequest(
            paths=tuple(frames),
            out=path,
            role=options.module or options.role,
            exposure=f"{exposure.expid:08d}",
            night=exposure.night.label,
            camera=camera.name,
            compression=Compression() if rules.compress else None,
            keywords=Keywords((), rules.secondary, rules.metadata),
            source_names=_named(files),
            extra=_primary_cards(files, exposure, options, rules),
            durable=options.durable,
            overwrite=True,
        )
        try:
            summary = assemble_cube(request, pool=pool, limits=limits, camera=camera)
        except NightglassError as error:  # a person knows the cube by its final name
            raise type(error)(error.message.replace(str(path), str(out)), remedy=error.remedy) from error
        return _with_tables(summary, tables, limits) if tables else summary

    return (keep or keep_alone)(out, make)


def keeping(keeper: CubeKeeper | None, exposure: ExposureView, frames: Sequence[FrameView]) -> KeepFunction:
    """Return how the cube of these frames is kept: by whoever knows of it, or alone."""
    if keeper is None:
        return keep_alone
    files = {view.published or view.directory: _content(view) for view in frames}
    return partial(keeper.keep, night=exposure.night, expid=exposure.expid, files=files)


def _content(view: FrameView) -> str:
    """Return what tells one content of a frame from another."""
    parts = [f"{record.name}={record.sha256}" for record in view.extensions]
    return hashlib.sha256("\n".join((str(view.frame), view.primary, *parts)).encode()).hexdigest()[:32]


def keep_alone(path: Path, make: Callable[[Path], CubeSummary]) -> CubeSummary:
    """Have a cube made under a passing name and publish it, where nobody else could be at it; see `KeepFunction`."""
    passing = path.with_name(f"{_PASSING}{path.name}")
    try:
        summary = make(passing)
        publish(passing, path)
    finally:
        passing.unlink(missing_ok=True)
    return replace(summary, path=path, size=path.stat().st_size)


def _tables(files: Sequence[FrameFile], limits: Limits) -> list[ExtensionRecord]:
    """Return what frames brought besides images, as PMGSTARS: what is the same in several frames once.

    What is different in a later frame has its number behind the name: ``PMGSTARS_0003``.
    """
    found: dict[str, ExtensionRecord] = {}
    known: set[tuple[str, str]] = set()
    for file in sorted(files, key=_frame):
        if not any(_is_no_image(hdu.text) for hdu in file.hdus):
            continue
        for info in scan_headers(file.stamp.path, limits):
            mark = (info.name, _digest(file.stamp.path, info)) if info.index and info.name and not info.shape else None
            if mark is None or mark in known:
                continue
            known.add(mark)
            name = f"{info.name}_{_frame(file):04d}" if info.name in found else info.name
            found[name] = ExtensionRecord(
                name=name,
                path=file.stamp.path,
                hdu=info.index,
                header_offset=info.header_offset,
                data_offset=info.data_offset,
                data_size=info.data_size,
            )
    return list(found.values())


def _is_no_image(header: bytes) -> bool:
    if header.startswith(b"XTENSION= 'IMAGE"):
        return _EMPTY.match(header, 2 * CARD) is not None
    return header.startswith(b"XTENSION= ") and b"ZIMAGE" not in header


def _digest(path: Path, info: HduInfo) -> str:
    """Return what tells an HDU from others: its cards, but for checksums, and its data."""
    cards = sorted(str(card) for card in info.header.cards if card.keyword not in ("CHECKSUM", "DATASUM"))
    digest = hashlib.sha256("\n".join(cards).encode())
    with path.open("rb") as stream:
        stream.seek(info.data_offset)
        left = info.data_size
        while left and (piece := stream.read(min(left, _PIECE))):
            digest.update(piece)
            left -= len(piece)
    return digest.hexdigest()


def _with_tables(summary: CubeSummary, tables: Sequence[ExtensionRecord], limits: Limits) -> CubeSummary:
    """Append tables to a cube that has no name yet; where one of its HDUs has theirs, with a number behind it."""
    taken = {info.name for info in scan_headers(summary.path, limits)}
    for table in tables:
        names = (table.name if number == 1 else f"{table.name}_{number}" for number in itertools.count(1))
        name = next(name for name in names if name not in taken)
        taken.add(name)
        append_extension(summary.path, replace(table, name=name), limits=limits)
    return replace(summary, checksum="")  # it is of what was there before


def write_manifest(path: Path, summary: CubeSummary, exposure: ExposureView, frames: Sequence[int]) -> None:
    """Write ``manifest_EXPID.json``: what is in the cubes of an exposure; the same frames give the same manifest.

    Builders that share a directory (guider and focus, say) share the manifest: each writes the entry of its own cube.

    Raises
    ------
    Retryable
        If the file system refuses.
    """
    entry = {
        "frames": sorted(frames),
        "size": summary.size,
        "checksum": summary.checksum or content_id(summary.path),
        "sources": {source.name: source.frames for source in summary.sources},
        "problems": [f"{problem.path.name}: {problem.reason}" for problem in summary.problems],
    }
    with _locked(path.parent):
        for part in path.parent.glob(f"{path.name}.*.part"):
            part.unlink(missing_ok=True)  # of who was killed here: whoever writes it holds the lock
        cubes = _others(path, exposure) | {summary.path.name: entry}
        record = {
            "format": _FORMAT,
            "expid": exposure.expid,
            "frames": sorted({number for cube in cubes.values() for number in cube["frames"]}),
            "night": exposure.night.label,
            "cubes": dict(sorted(cubes.items())),
        }
        with write_atomic(path) as part:
            part.write_text(json.dumps(record, indent=1) + "\n")


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Hold the lock of a directory, where its file system has locks."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _others(path: Path, exposure: ExposureView) -> dict[str, Any]:
    """Return the entries of a manifest that are of cubes which are still there."""
    try:
        record = json.loads(path.read_text())
        cubes = {str(name): dict(entry) for name, entry in record["cubes"].items()}
        same = (record["format"], record["expid"]) == (_FORMAT, exposure.expid)
        return {
            name: entry for name, entry in cubes.items() if same and entry["frames"] and (path.parent / name).is_file()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}  # none was there, or it is of something else


def _primary_cards(
    files: Sequence[FrameFile], exposure: ExposureView, options: BuilderOptions, rules: ArchiveRules
) -> dict[str, CardValue]:
    """Return the cards of HDU 0, by what the primary headers of the frames say, the first of them first."""
    cards: dict[str, CardValue] = {
        "MODULE": (options.mode or options.module, "image sources, component"),
        "NIGHT": int(exposure.night.label),
    }
    for file in sorted(files, key=lambda item: _frame(item)):
        header = fits.Header.fromstring(file.hdus[0].text)
        for card in header.cards:
            keyword = card.keyword
            if keyword in cards or not _is_of_exposure(keyword) or not isinstance(card.value, (str, bool, int, float)):
                continue
            if _is_wanted(keyword, rules):
                # those that the cube says itself have its comments
                cards[keyword] = card.value if keyword in _CUBES else (card.value, card.comment)
    known = {keyword for file in files for hdu in file.hdus for keyword in read_header(hdu.text)}
    for name in rules.named:
        if name not in known and name not in cards and _KEYWORD.fullmatch(name) and _is_of_exposure(name):
            cards[name] = (None, "It was asked for, and no frame has it.")
    own = {"EXPID", "CAMERA"}  # said by the cube itself
    return {keyword: value for keyword, value in cards.items() if keyword not in own}


def _named(files: Sequence[FrameFile]) -> dict[str, str]:
    """Have every extension keep its name, also one such as IMAGE, which in other files means nothing."""
    names = {read_header(hdu.text).get("EXTNAME") for file in files for hdu in file.hdus[1:]}
    return {name: name for name in sorted(name for name in names if isinstance(name, str))}


def _is_of_exposure(keyword: str) -> bool:
    ordinary = bool(_KEYWORD.fullmatch(keyword)) and not is_structural(keyword)
    return ordinary and not _OF_A_FRAME.fullmatch(keyword)


def _is_wanted(keyword: str, rules: ArchiveRules) -> bool:
    if not rules.primary:
        return True
    return any(fnmatchcase(keyword, pattern) for pattern in (*_ALWAYS, *rules.primary))


def _frame(file: FrameFile) -> int:
    value = read_header(file.hdus[0].text).get("FRAME")
    return value if isinstance(value, int) else 0


def _capitals(names: Iterable[str] | Mapping[str, Any]) -> tuple[str, ...]:
    found = tuple(str(name).upper() for name in names)
    for name in found:
        if not 1 <= len(name) <= 68 or not name.isprintable():
            message = f"{name!r} is no keyword"
            raise Misconfigured(message, remedy="write keywords, or shell patterns of keywords")
    return found
