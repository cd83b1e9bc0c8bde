"""What an earlier process left in the spool, taken in again."""

from __future__ import annotations

import hashlib
import logging
import time
from dataclasses import replace
from pathlib import Path

from nightglass.builder.caretaking import refuse_unsaved
from nightglass.builder.holdings import Holdings
from nightglass.builder.journal import read_exposure, read_frame, write_frame
from nightglass.builder.landing import describe
from nightglass.builder.records import ExposureState, ExposureView, ExtensionRecord, FrameState, FrameView
from nightglass.builder.spool import Body, Spool
from nightglass.builder.structure import noted
from nightglass.cubes.publishing import sweep
from nightglass.errors import Misconfigured, NightglassError, Rejected
from nightglass.model import Night

__all__ = ["restore"]

_log = logging.getLogger(__name__)
_PIECE = 1 << 20


def restore(spool: Spool, holdings: Holdings) -> list[str]:
    """Read the spool; returns what a person should know.

    Each entry of a frame has its file, whenever the earlier process was killed. Files without an entry were never
    acknowledged, and go; so do parts of what it was writing. Where an entry cannot be read (loss of power without
    `durable`), it is made anew from the files beside it.
    """
    remarks: list[str] = []
    spool.sweep()
    for directory in spool.exposure_directories():
        try:
            exposure, frames = _exposure(directory, remarks, durable=spool.policy.durable)
        except NightglassError as error:
            remarks.append(f"{directory} is left alone: {error}")
            continue
        former = holdings.find_exposure(exposure.expid)  # of an earlier night: killed while it made way
        if former is not None and not _may_go(holdings, former, remarks):
            continue
        holdings.adopt(exposure, frames)
    for directory in sorted({path.parent for view in holdings.frames() for path in _written(view)}):
        sweep(directory)
    for remark in remarks:
        _log.warning("%s", remark)
    return remarks


def _may_go(holdings: Holdings, former: ExposureView, remarks: list[str]) -> bool:
    """Forget an exposure of an earlier night that has the same number; what is not saved stays, and is told."""
    try:
        holdings.drop_exposure(former.expid, check=refuse_unsaved)
    except NightglassError as error:
        remarks.append(f"{former.directory} is kept, and the later exposure of that number is not read: {error}")
        return False
    return True


def _written(view: FrameView) -> tuple[Path, ...]:
    """Return the names under which a frame was written, or was about to be."""
    return (*view.claims, *view.files, *(() if view.published is None else (view.published,)))


def _exposure(directory: Path, remarks: list[str], *, durable: bool) -> tuple[ExposureView, list[FrameView]]:
    for part in (*directory.glob("*.part"), *directory.glob("*/*.part")):
        part.unlink(missing_ok=True)  # a record that a killed process was about to put in place of the last one
    try:
        exposure = read_exposure(directory)
    except Rejected as error:
        exposure = _exposure_by_name(directory)
        remarks.append(f"exposure {exposure.expid}: {error}")
    frames = [
        _frame(item, exposure.expid, remarks, durable=durable)
        for item in sorted(directory.iterdir())
        if item.is_dir() and item.name.isdecimal()
    ]
    return exposure, [frame for frame in frames if frame is not None]


def _exposure_by_name(directory: Path) -> ExposureView:
    if not directory.name.isdecimal():
        message = f"{directory} is no exposure"
        raise Misconfigured(message, remedy="move away what does not belong into the spool")
    night = Night(directory.parent.parent.name)
    return ExposureView(expid=int(directory.name), night=night, state=ExposureState.OPEN, directory=directory)


def _frame(directory: Path, expid: int, remarks: list[str], *, durable: bool) -> FrameView | None:
    files = set(directory.glob("*.fits"))
    try:
        view = read_frame(directory)
    except Rejected as error:
        if not files:
            return None  # killed before anything was acknowledged
        view = _frame_by_files(directory, expid, files)
        remarks.append(f"frame {expid}/{view.frame} was made anew from {len(view.extensions)} files: {error}")
        write_frame(view, durable=durable)
    if view.purged:
        kept: set[Path] = set()
    else:
        lost = [item for item in view.extensions if item.path not in files or item.path.stat().st_size != item.size]
        if lost:
            view = _without(view, lost)
            remarks.append(f"frame {expid}/{view.frame}: {', '.join(item.name for item in lost)} is gone or cut")
        kept = {item.path for item in view.extensions}
    for path in files - kept:
        path.unlink(missing_ok=True)
    return view


def _without(view: FrameView, lost: list[ExtensionRecord]) -> FrameView:
    rest = tuple(item for item in view.extensions if item not in lost)
    names = {item.name for item in rest} | {item.source for item in rest}
    missing = tuple(name for name in view.expected if name not in names)
    state = FrameState.PARTIAL if missing and view.state is FrameState.BUILT else view.state
    after = replace(view, extensions=rest, missing=missing, state=state)
    return noted(after, f"lost from the spool: {', '.join(item.name for item in lost)}")


def _frame_by_files(directory: Path, expid: int, files: set[Path]) -> FrameView:
    found: dict[str, ExtensionRecord] = {}
    for path in sorted(files, key=lambda item: item.stat().st_mtime_ns):
        name = path.name.partition(".")[0]
        digest = hashlib.sha256()
        with path.open("rb") as stream:
            while piece := stream.read(_PIECE):
                digest.update(piece)
        try:
            record = describe(Body(path, path.stat().st_size, digest.hexdigest()), name)
        except Rejected as error:
            _log.warning("%s is left out: %s", path, error)
            continue
        found[name] = replace(record, path=path, received_at=path.stat().st_mtime)
    return FrameView(
        expid=expid,
        frame=int(directory.name),
        state=FrameState.OPEN,
        extensions=tuple(found.values()),
        directory=directory,
        deadline=time.time(),
        notes=("its record was damaged, and made anew from its files",),
    )
