"""What the spool gives back, and which local files are deleted: by number of exposures and frames, and by bytes.

Only what lies somewhere else is ever given back: written, published among the raw frames of its night, or archived.
Local files go only when their frames are archived or published. What would have to go and is not saved is told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nightglass.builder.records import ExposureView, FrameState, FrameView
from nightglass.builder.structure import is_saved
from nightglass.config import BuilderOptions

__all__ = ["Surplus", "find_old_files", "find_surplus", "for_room", "is_idle", "is_there"]

Settings = Callable[[FrameView], BuilderOptions]
"""The options as they are for a frame."""


@dataclass(frozen=True, slots=True)
class Surplus:
    """What is beyond the thresholds: frames that can be given back, and frames that would be lost."""

    free: tuple[FrameView, ...]
    unsaved: tuple[FrameView, ...]


def is_idle(view: FrameView) -> bool:
    """Tell whether all stages of a frame are through."""
    return view.state is not FrameState.OPEN and "done" in view.times


def is_there(view: FrameView, exposure: ExposureView) -> bool:
    """Tell whether what a frame was saved as is still there; raw frames of the night are in the care of its ledger."""
    written = "saved" in view.times and any(path.exists() for path in view.files)
    return written or "published" in view.times or _is_archived(view, exposure)


def find_surplus(exposures: Sequence[Sequence[FrameView]], settings: Settings) -> Surplus:
    """Find what is beyond the numbers of exposures and frames that are kept.

    Parameters
    ----------
    exposures : sequence of sequences of FrameView
        The frames of each exposure, oldest first.
    """
    held = [[view for view in frames if not view.purged and view.extensions] for frames in exposures]
    held = [frames for frames in held if frames]
    beyond: dict[tuple[int, int], FrameView] = {}
    for age, frames in enumerate(reversed(held)):
        for youth, view in enumerate(reversed(frames)):
            options = settings(view)
            surplus = age >= options.mem_purge_threshold or youth >= options.frame_purge_threshold
            if options.mem_purge and surplus and is_idle(view):
                beyond[view.expid, view.frame] = view
    views = [beyond[key] for key in sorted(beyond)]
    return Surplus(
        free=tuple(view for view in views if is_saved(view)),
        unsaved=tuple(view for view in views if not is_saved(view)),
    )


def for_room(exposures: Iterable[Sequence[FrameView]], settings: Settings) -> Iterable[FrameView]:
    """Yield what can be given back to make room, oldest first."""
    for frames in exposures:
        for view in frames:
            if view.extensions and not view.purged and is_idle(view) and is_saved(view) and settings(view).mem_purge:
                yield view


def find_old_files(
    exposures: Sequence[tuple[ExposureView, Sequence[FrameView]]], settings: Settings
) -> tuple[tuple[FrameView, tuple[Path, ...]], ...]:
    """Find local files that are beyond the number of exposures whose files are kept, and lie somewhere else, too."""
    written = [(exposure, frames) for exposure, frames in exposures if any(view.files for view in frames)]
    found = []
    for age, (exposure, frames) in enumerate(reversed(written)):
        for view in frames:
            options = settings(view)
            published = view.published is not None and "published" in view.times and view.published.exists()
            elsewhere = published or _is_archived(view, exposure)
            if (
                options.file_purge
                and age >= options.file_purge_threshold
                and elsewhere
                and view.files
                and is_idle(view)
            ):
                found.append((view, view.files))
    return tuple(found)


def _is_archived(view: FrameView, exposure: ExposureView) -> bool:
    return "archived" in view.times and exposure.archive is not None and exposure.archive.exists()
