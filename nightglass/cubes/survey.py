"""What frames hold: which planes of which sources, in which order; from headers alone.

- EXTNAME names a source. The same EXTNAME again in one file, with its own EXTVER or not, is the next frame.
- An image of three or more axes is several frames.
- Frames go on from file to file, as `nightglass.cubes.numbering` has it.
- Tables and empty HDUs are no sources.
- What cannot be read, and what would be the same frame of the same source again, is left out and named.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from nightglass.config import Camera, Limits
from nightglass.cubes.geometry import GEOMETRIC, MAX_PLANES, Picture, find_picture
from nightglass.cubes.headers import read_header
from nightglass.cubes.lookup import FileHeaders, StartReader
from nightglass.cubes.numbering import Found, Unit, frame_number, natural_key, number_frames
from nightglass.cubes.records import CubeRequest, Encoding, FrameFile, HduText, Plane, Problem, Survey, TileLayout
from nightglass.cubes.scanning import scan_file, scan_files
from nightglass.cubes.sourcenames import SourceNames
from nightglass.cubes.uncollected import uncollected
from nightglass.errors import Misconfigured, Rejected, Retryable
from nightglass.fitsio.cards import Scalar
from nightglass.pool import Pool

__all__ = ["survey_frames"]

_PATIENCE_S: Final = 1.0
"""Headers in the page cache are read sooner here than sent here: 20,000 files in this time. What takes longer is far
away or gzip, and the pool reads it."""
_FEW: Final = 4
"""Files that are read before it is known how long the others will take."""
_ATTEMPTS: Final = 3
"""Workers that may die over the same files."""
_MANY_KEYWORDS: Final = 300
"""Beyond so many structural keywords it is better to read headers one by one than by column."""
_IMAGE_ONLY: Final = "frames are FITS files that hold an image"


@uncollected()
def survey_frames(
    request: CubeRequest, limits: Limits, *, camera: Camera | None = None, pool: Pool | None = None
) -> Survey:
    """Read the headers of all frames, and find their planes.

    Parameters
    ----------
    camera : Camera, optional
        Its frame keywords, detectors and time rules count before the general ones.
    pool : Pool, optional
        Reads headers where that takes long, and all of them in the mode ``gather``: only workers see the frames there.

    Returns
    -------
    Survey
        Independent of the order in which the frames were given.

    Raises
    ------
    Rejected
        If no frame can be used; or, unless `CubeRequest.skip_bad`, if any of them cannot.
    Retryable
        Unless `CubeRequest.skip_bad`, if one is gone or still growing.
    """
    paths = sorted(dict.fromkeys(request.paths), key=lambda path: (natural_key(path.name), str(path)))
    scanned = _scan(paths, request, limits, pool)
    problems = [item for item in scanned if isinstance(item, Problem)]
    if problems and not request.skip_bad:
        if request.mode == "shared":
            scan_file(problems[0].path, limits)  # raises the very error
        raise Retryable(problems[0].reason, remedy="leave the frame out, or allow bad frames to be left out")
    files = [item for item in scanned if isinstance(item, FrameFile)]
    surveyor = _Surveyor(files, request, limits, camera)
    planes = surveyor.planes()
    problems += surveyor.problems
    if surveyor.problems and not request.skip_bad:
        raise Rejected(surveyor.problems[0].reason, remedy="leave the frame out, or allow bad frames to be left out")
    if not planes:
        reasons = "; ".join(problem.reason for problem in problems[:3]) or "no files were given"
        message = f"no frame for {request.out}: {reasons}"
        raise Rejected(message, remedy=_IMAGE_ONLY)
    return Survey(tuple(files), planes, tuple(problems))


def _scan(paths: Sequence[Path], request: CubeRequest, limits: Limits, pool: Pool | None) -> list[FrameFile | Problem]:
    """Read headers here as long as that goes quickly, the rest on the pool."""
    found: list[FrameFile | Problem] = []
    remote = pool is not None and request.mode == "gather"
    started = time.monotonic()
    while len(found) < len(paths) and not remote:
        found += scan_files(paths[len(found) : 2 * len(found) + _FEW], limits)
        # an estimate of all of it: a file system that is slow is known after the first ones
        expected_s = (time.monotonic() - started) * (len(paths) / len(found) - 1)
        remote = pool is not None and expected_s > _PATIENCE_S
    if pool is not None and len(found) < len(paths):
        found += _scan_remotely(paths[len(found) :], limits, pool)
    return found


def _scan_remotely(paths: Sequence[Path], limits: Limits, pool: Pool) -> list[FrameFile | Problem]:
    found: list[FrameFile | Problem] = []
    size = max(-(-len(paths) // 16), 1)
    chunks = [tuple(paths[start : start + size]) for start in range(0, len(paths), size)]
    futures = [pool.submit(scan_files, chunk, limits, key="scan") for chunk in chunks]
    for chunk, future in zip(chunks, futures, strict=True):
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                found += future.result()
                break
            except Retryable:  # its worker died; what is wrong with a file is a problem instead
                if attempt == _ATTEMPTS:
                    raise
                future = pool.submit(scan_files, chunk, limits, key="scan")
    return found


class _Surveyor:
    """Finds the planes of files whose headers were read."""

    def __init__(self, files: Sequence[FrameFile], request: CubeRequest, limits: Limits, camera: Camera | None) -> None:
        self.problems: list[Problem] = []
        self._files = files
        self._limits = limits
        self._headers = FileHeaders(files)
        self._names = SourceNames(request, camera, self._headers)
        self._starts = StartReader(camera)
        before = camera.header.frame if camera else ()
        self._frames = list(self._headers.columns((*before, *request.frame_keyword)).values())
        self._from_name = _pattern(camera.header.frame_from_name) if camera else None
        self._geometry = _Geometry(self._headers, limits)
        there = self._headers.columns(("EXTNAME", "EXTVER", "DATASUM"))
        self._extname, self._extver, self._datasum = (there.get(key, []) for key in ("EXTNAME", "EXTVER", "DATASUM"))

    def planes(self) -> tuple[Plane, ...]:
        """Return the planes by source, then frame; what had to be left out is in `problems` then."""
        units = [unit for file in range(len(self._files)) if (unit := self._unit(file))]
        if any(unit.number is None for unit in units):
            self._add_starts(units)
        taken: dict[tuple[str, int], Plane] = {}
        rank: dict[str, tuple[int, int]] = {}
        twice: dict[tuple[int, int, str], list[int]] = {}
        for unit, image, frame in number_frames(units):
            rank.setdefault(image.source, (image.hdu, len(rank)))
            for plane in self._image_planes(unit.file, image, frame):
                other = taken.setdefault((plane.source, plane.frame), plane)
                if other is not plane:
                    twice.setdefault((plane.file, other.file, plane.source), []).append(plane.frame)
        self.problems += [self._twice(*where, frames) for where, frames in twice.items()]
        return tuple(sorted(taken.values(), key=lambda plane: (rank[plane.source], plane.frame)))

    def _unit(self, file: int) -> Unit | None:
        """Return the images of a file, None where it has none."""
        path = self._files[file].stamp.path
        before = len(self.problems)
        pictures = [item for hdu in range(len(self._files[file].hdus)) if (item := self._picture(file, hdu))]
        if not pictures:
            if len(self.problems) == before:
                self.problems.append(Problem(path, f"{path} holds no image with pixels ({_IMAGE_ONLY})"))
            return None
        if (planes := sum(picture.planes for _, picture in pictures)) > MAX_PLANES:
            reason = f"{path} holds {planes} planes, more than {MAX_PLANES} (write so many frames into several files)"
            self.problems.append(Problem(path, reason))
            return None
        empty = self._files[file].hdus[0].data_size == 0
        images = []
        first: dict[Scalar, int] = {}
        for hdu, picture in pictures:
            place = self._headers.place(file, hdu)
            extname = self._extname[place] if self._extname else None
            # a name that comes again says that its images belong together, even one that says nothing else
            named = first.setdefault(extname, hdu) if extname else hdu
            source = self._names.name(file, named, extname, empty_primary=empty, only=len(pictures) == 1)
            version = self._extver[place] if self._extver else None
            counted = version if isinstance(version, int) and not isinstance(version, bool) else None
            images.append(Found(hdu, source, picture, counted, self._number(place)))
        number = images[0].number if images[0].hdu == 0 else self._number(self._headers.place(file))
        if number is None:
            number = images[0].number if images[0].number is not None else self._number_in_name(path.name)
        return Unit(file, images, number)

    def _picture(self, file: int, hdu: int) -> tuple[int, Picture] | None:
        """Return the image of an HDU with its number; what is wrong with it is a problem."""
        frame = self._files[file]
        if frame.hdus[hdu].data_size == 0:
            return None
        try:
            picture = self._geometry.picture(self._headers.place(file, hdu), frame.hdus[hdu], hdu)
            if picture is not None and picture.tiles is not None and frame.gzip:
                message = f"HDU {hdu} is compressed in tiles, and its file is gzip as well"
                raise Rejected(message, remedy="expand it with gunzip")
        except Rejected as error:
            path = frame.stamp.path
            self.problems.append(Problem(path, f"{path}: {error}"))
            return None
        return None if picture is None else (hdu, picture)

    def _number(self, place: int) -> int | None:
        for column in self._frames:
            number = frame_number(column[place])
            if number is not None:
                return number
        return None

    def _number_in_name(self, name: str) -> int | None:
        found = self._from_name.search(name) if self._from_name else None
        return frame_number(found[1]) if found and found.groups() else None

    def _add_starts(self, units: Sequence[Unit]) -> None:
        columns = self._headers.columns(self._starts.keywords)
        wanted = [columns.get(keyword, []) for keyword in self._starts.keywords]
        for unit in units:
            first, other = self._headers.place(unit.file), self._headers.place(unit.file, unit.images[0].hdu)
            values = tuple(
                [
                    (column[first] if column[first] is not None else column[other]) if column else None
                    for column in wanted
                ]
            )
            unit.start = self._starts.start(values)

    def _image_planes(self, file: int, image: Found, frame: int) -> Iterator[Plane]:
        """Return the planes of an image, which are frames one after the other."""
        picture, where = image.picture, self._files[file].hdus[image.hdu]
        if picture.tiles is not None:
            encoding, offset, size, step = Encoding.TILES, where.data_offset, where.data_size, 0
        else:
            encoding = Encoding.GZIP if self._files[file].gzip else Encoding.PLAIN
            offset, size, step = where.data_offset, picture.plane_size, picture.plane_size
        datasum = None
        if picture.planes == 1 and self._datasum:
            datasum = _datasum(self._datasum[self._headers.place(file, image.hdu)])
        for number in range(picture.planes):
            yield Plane(
                file=file,
                hdu=image.hdu,
                number=number,
                source=image.source,
                frame=frame + number,
                shape=picture.shape,
                format=picture.format,
                encoding=encoding,
                offset=offset + number * step,
                size=size,
                datasum=datasum,
                tiles=_tiles(picture, where, number),
            )

    def _twice(self, file: int, other: int, source: str, frames: Sequence[int]) -> Problem:
        path, owner = self._files[file].stamp.path, self._files[other].stamp.path
        what = f"frame {frames[0]}" if len(frames) == 1 else f"{len(frames)} frames from {frames[0]} on"
        where = "twice" if file == other else f"which {owner} holds as well"
        return Problem(path, f"{path}: left out {what} of {source}, {where} (correct the frame keyword)")


class _Geometry:
    """Images of HDUs; headers that say the same are judged once."""

    def __init__(self, headers: FileHeaders, limits: Limits) -> None:
        self._limits = limits
        self._known: dict[tuple[int, tuple[Scalar, ...]], Picture | Rejected | None] = {}
        self._keywords = [keyword for keyword in headers.stack.keywords if GEOMETRIC.fullmatch(keyword)]
        self._rows: list[tuple[Scalar, ...]] = []
        if len(self._keywords) <= _MANY_KEYWORDS:
            self._rows = list(zip(*map(headers.column, self._keywords), strict=True))

    def picture(self, place: int, hdu: HduText, index: int) -> Picture | None:
        """See `find_picture`."""
        if not self._rows:
            return find_picture(read_header(hdu.text), index, self._limits)
        key = (index, self._rows[place])
        if key not in self._known:
            try:
                self._known[key] = find_picture(
                    dict(zip(self._keywords, self._rows[place], strict=True)), index, self._limits
                )
            except Rejected as error:
                self._known[key] = error
        found = self._known[key]
        if isinstance(found, Rejected):
            raise found
        return found


def _tiles(picture: Picture, where: HduText, number: int) -> TileLayout | None:
    """Return where the tiles of one plane are."""
    tiles = picture.tiles
    if tiles is None or picture.whole:
        return None
    return replace(
        tiles,
        first_row=number * tiles.rows,
        table_offset=where.data_offset,
        heap_offset=where.data_offset + tiles.heap_offset,
    )


def _datasum(value: Scalar) -> int | None:
    number = int(value) if isinstance(value, str) and value.isdecimal() and len(value) < 20 else value
    return number if isinstance(number, int) and not isinstance(number, bool) and 0 <= number < 1 << 32 else None


def _pattern(text: str) -> re.Pattern[str] | None:
    try:
        return re.compile(text, re.IGNORECASE) if text else None
    except re.error as error:
        message = f"header.frame_from_name is {text!r}, no regular expression: {error}"
        raise Misconfigured(message, remedy="correct the camera file") from error
