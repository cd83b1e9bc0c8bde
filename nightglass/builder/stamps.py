"""Postage stamps: regions of interest cut out of every frame, kept on disk until their cube is made.

``<root>/<camera>/<night>/stamps/<expid>/<frame>-<EXTENSION>.fits`` holds the stamps of one extension of one frame.
Nothing is kept in memory. Beyond a limit stamps that are in a cube go, the oldest first; others never do, and are cut
on: those of a guider cannot be had again. Where the disk takes no more, their frame waits, with its pixels.
"""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from nightglass.builder.cards import HeaderRules
from nightglass.builder.naming import Names
from nightglass.builder.records import ExposureView, ExtensionRecord, FrameView, RoiOrder
from nightglass.builder.refusals import Unknown
from nightglass.builder.rois import Roi, RoiTable
from nightglass.builder.tiles import find_planes
from nightglass.builder.writing import extension_header, write_arrays, write_frame
from nightglass.config import BuilderOptions, Limits
from nightglass.cubes.converting import read_plane, stored_dtype
from nightglass.cubes.records import Encoding, FrameFile, Plane
from nightglass.errors import NightglassError, Rejected, Retryable
from nightglass.fitsio import scan_headers
from nightglass.fitsio.structure import is_structural

__all__ = ["StampStore"]

_COMPLETE: Final = ".complete"
_ARCHIVED: Final = ".archived"


class StampStore:
    """The stamps of one builder.

    Parameters
    ----------
    on_alarm : callable, optional
        Told what could not be cut, and once that more stamps wait for their cube than should.
    """

    def __init__(
        self, names: Names, table: RoiTable, *, limits: Limits, on_alarm: Callable[[str], None] | None = None
    ) -> None:
        self._names = names
        self._table = table
        self._limits = limits
        self._on_alarm = on_alarm
        self._lock = threading.Lock()
        self._bytes: int | None = None
        self._is_over = False

    @property
    def table(self) -> RoiTable:
        """The regions."""
        return self._table

    @property
    def root(self) -> Path:
        """The directory above all nights."""
        return self._names.layout.root / self._names.camera

    def directory(self, exposure: ExposureView) -> Path:
        """Return where the stamps of an exposure are."""
        night = self._names.layout.night(self._names.camera, exposure.night)
        return night / "stamps" / f"{exposure.expid:08d}"

    def cut(
        self, exposure: ExposureView, frame: FrameView, options: BuilderOptions, primary: fits.Header
    ) -> tuple[Path, ...]:
        """Cut the stamps of a frame; one that was cut before is cut again, for the frame may have changed.

        Raises
        ------
        Retryable
            If the disk takes no more; the frame is to wait, and to be cut then.
        """
        rois = self._table.of(exposure.expid)
        if not rois:
            return ()
        self._make_room(options.stamp_mib << 20)
        directory = self.directory(exposure)
        written = []
        for record in frame.extensions:
            mine = [roi for roi in rois if roi.extension == record.name]
            if not mine or len(record.shape) < 2:
                continue
            path = directory / f"{frame.frame:04d}-{record.name}.fits"
            before = path.stat().st_size if path.exists() else 0
            try:
                write_arrays(self._stamps(record, mine), primary, path, overwrite=True, durable=options.durable)
            except Retryable:
                raise
            except NightglassError as error:
                self._alarm(f"stamps of {record.name}, exposure {exposure.expid}, frame {frame.frame}: {error}")
                continue
            self._count(path.stat().st_size - before)
            written.append(path)
        if written:
            with self._lock:  # after the files: see `note_archived`
                (directory / _ARCHIVED).unlink(missing_ok=True)
        return tuple(written)

    def files(self, exposure: ExposureView, frame: int | None = None) -> dict[int, tuple[Path, ...]]:
        """Return the files of each frame."""
        found: dict[int, list[Path]] = {}
        for path in sorted(self.directory(exposure).glob("[0-9][0-9][0-9][0-9]-*.fits")):
            number = int(path.name[:4])
            if frame in (None, number):
                found.setdefault(number, []).append(path)
        return {number: tuple(paths) for number, paths in found.items()}

    def clear(self, expid: int | None, frame: int | None, extension: str | None) -> int:
        """Drop stamps, of all exposures, frames or extensions where None; returns how many files."""
        exposure = "*" if expid is None else f"{expid:08d}"
        pattern = f"{'*' if frame is None else f'{frame:04d}'}-{'*' if extension is None else extension.upper()}.fits"
        count = 0
        for directory in self.root.glob(f"*/stamps/{exposure}"):
            for path in directory.glob(pattern):
                self._count(-path.stat().st_size)
                path.unlink(missing_ok=True)
                count += 1
            if not any(directory.glob("*.fits")):
                shutil.rmtree(directory, ignore_errors=True)
        return count

    def note_complete(self, expid: int) -> None:
        """Note that no further stamps of an exposure come; those of frames on their way are cut all the same."""
        name = f"{expid:08d}"
        for night in {
            path.parent.parent for kind in ("stamps", "builder") for path in self.root.glob(f"*/{kind}/{name}")
        }:
            (night / "stamps" / name).mkdir(parents=True, exist_ok=True)
            (night / "stamps" / name / _COMPLETE).touch()

    def snapshot(self, exposure: ExposureView) -> dict[Path, int]:
        """Return the files of an exposure, each with the time of its last change in nanoseconds."""
        found = {}
        for path in sorted(self.directory(exposure).glob("[0-9][0-9][0-9][0-9]-*.fits")):
            with contextlib.suppress(FileNotFoundError):  # it was cleared just now
                found[path] = path.stat().st_mtime_ns
        return found

    def note_archived(self, exposure: ExposureView, archived: Mapping[Path, int]) -> None:
        """Note that the stamps of an exposure are in their cube, unless others have been cut since the snapshot.

        An exposure of the same number in another night is another one.
        """
        with self._lock:
            if self.snapshot(exposure) == archived:
                (self.directory(exposure) / _ARCHIVED).touch()

    def assemble(
        self, exposure: ExposureView, frame: int, order: RoiOrder, path: Path, *, replace: Sequence[Path] = ()
    ) -> Path:
        """Write the stamps of a frame to one file.

        Raises
        ------
        Unknown
            If there are none.
        Exists
            If another file of that name is there, and not to be overwritten.
        """
        files = self.files(exposure, frame).get(frame)
        if not files:
            message = f"exposure {exposure.expid}, frame {frame} has no stamps"
            raise Unknown(message, remedy="accept regions of interest before the frame is built")
        primary = scan_headers(files[0], self._limits)[0].header
        kept = fits.Header([card for card in primary.cards if not is_structural(card.keyword)])
        kept["EXTNAME"] = "PRIMARY"
        records = [record for item in files for record in self._records(item)]
        rules = HeaderRules(all_fields=True)
        return write_frame(
            records, kept, path, rules=rules, overwrite=order.overwrite, replace=replace, limits=self._limits
        )

    def status(self) -> dict[str, Any]:
        """Return counts, and the exposures that are complete."""
        with self._lock:
            total = self._total()
        complete = {path.parent.name for path in self.root.glob(f"*/stamps/*/{_COMPLETE}")}
        return {
            "bytes": total,
            "stamps": sum(1 for _ in self.root.glob("*/stamps/*/*.fits")),
            "complete": sorted(int(name) for name in complete if name.isdecimal()),
        }

    def _records(self, path: Path) -> Iterator[ExtensionRecord]:
        for info in scan_headers(path, self._limits)[1:]:
            yield ExtensionRecord(
                name=info.name,
                path=path,
                hdu=info.index,
                header_offset=info.header_offset,
                data_offset=info.data_offset,
                data_size=info.data_size,
                shape=info.shape,
                bitpix=info.bitpix,
            )

    def _stamps(self, record: ExtensionRecord, rois: Sequence[Roi]) -> Iterator[tuple[str, NDArray[Any], fits.Header]]:
        _, header = extension_header(record, HeaderRules(), self._limits)
        file, planes = find_planes(record.path, record.hdu, self._limits)
        plane = planes[-1]
        whole = None if plane.encoding is Encoding.PLAIN else read_plane(file, plane)
        empty = True
        for roi in rois:
            rows, columns = roi.place(plane.shape)
            if rows.start >= rows.stop or columns.start >= columns.stop:
                self._alarm(f"region {roi.name} lies outside of {record.name}, which has {plane.shape} pixels")
                continue
            empty = False
            pixels = _read_part(file, plane, rows, columns) if whole is None else whole[rows, columns]
            yield roi.name, pixels, _stamp_header(header, roi, rows, columns)
        if empty:
            message = f"no region lies within {record.name}"
            raise Rejected(message, remedy="correct the regions of interest")

    def _make_room(self, limit: int) -> None:
        """Remove stamps that are in a cube until there is room, the oldest first; where there is none, tell it once."""
        with self._lock:
            total = self._total()
            done = [path.parent for path in self.root.glob(f"*/stamps/*/{_ARCHIVED}")] if total >= limit else []
            for directory in sorted(done, key=lambda item: item.stat().st_mtime):
                shutil.rmtree(directory, ignore_errors=True)
                self._bytes = None
                total = self._total()
                if total < limit:
                    break
            told, self._is_over = self._is_over, total >= limit
        if self._is_over and not told:
            oldest = min(self.root.glob("*/stamps/*"), key=lambda item: item.stat().st_mtime, default=self.root)
            self._alarm(
                f"{total >> 20} MiB of stamps wait for their cube, more than stamp_mib; archive or clear those of "
                f"exposure {oldest.name} and later ones: no stamp is lost, but the disk fills"
            )

    def _total(self) -> int:
        if self._bytes is None:
            total = 0
            for path in self.root.glob("*/stamps/*/*.fits"):
                with contextlib.suppress(OSError):
                    total += path.stat().st_size
            self._bytes = total
        return self._bytes

    def _count(self, change: int) -> None:
        with self._lock:
            self._bytes = self._total() if self._bytes is None else self._bytes + change

    def _alarm(self, text: str) -> None:
        if self._on_alarm is not None:
            self._on_alarm(text)


def _read_part(file: FrameFile, plane: Plane, rows: slice, columns: slice) -> NDArray[Any]:
    """Read some columns of some rows; no more of the image comes into memory than these rows."""
    dtype = stored_dtype(plane.format.bitpix)
    width = plane.shape[1]
    offset = plane.offset + rows.start * width * dtype.itemsize
    count = (rows.stop - rows.start) * width
    band = np.fromfile(file.stamp.path, dtype, count, offset=offset)
    if band.size < count:
        message = f"{file.stamp.path} ends too early"
        raise Rejected(message, remedy="push the extension again")
    return band.reshape(-1, width)[:, columns]


def _stamp_header(header: fits.Header, roi: Roi, rows: slice, columns: slice) -> fits.Header:
    """Return the header of a stamp: coordinates refer to its own pixels, and it says where it was cut."""
    made = header.copy()
    for keyword, start in (("CRPIX1", columns.start), ("CRPIX2", rows.start)):
        value = made.get(keyword)
        if isinstance(value, (int, float)):
            made[keyword] = float(value) - start
    cards: Mapping[str, tuple[int | str, str]] = {
        "ROIEXT": (roi.extension, "extension it was cut from"),
        "ROICOL": (columns.start + 1, "its first column there"),
        "ROIROW": (rows.start + 1, "its first row there"),
        "ROIX": (roi.x, "centre that was asked for"),
        "ROIY": (roi.y, "centre that was asked for"),
    }
    for keyword, value in cards.items():
        made[keyword] = value
    return made
