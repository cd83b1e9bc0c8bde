"""What a control system may ask for, by the names it knows; all answers are plain JSON values."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from astropy.io.fits.card import Undefined

from nightglass.builder.bulletin import Bulletin
from nightglass.builder.headertext import read_header
from nightglass.builder.holdings import Holdings
from nightglass.builder.instructions import merged
from nightglass.builder.journal import exposure_json, frame_json, plain
from nightglass.builder.options import BuilderOptions, plot_options
from nightglass.builder.outputs import Outputs
from nightglass.builder.passwords import without_passwords
from nightglass.builder.records import ExposureView, ExtensionRecord, FrameState, FrameView
from nightglass.builder.refusals import Unknown
from nightglass.config import choose
from nightglass.errors import Misconfigured, Rejected

__all__ = ["Answers", "Subject", "disk_space"]

_STAGES: Final[Mapping[str, str]] = {
    "built": "built",
    "written": "saved",
    "queued": "queued",
    "sent": "sent",
    "plotted": "plotted",
    "published": "published",
    "archived": "archived",
    "finished": "done",
}
"""Stages of processing -> the time that tells that a frame is through."""
_OPTION_NAMES: Final[Mapping[str, str]] = {
    "add_frames": "add_frame",
    "camib_version": "software_version",
    "specib_version": "software_version",
    "donutApp": "donut_app",
    "guiderApp": "guider_app",
}
"""What control systems call some options."""
_CALLBACKS: Final = {"builtCB": "built", "savedCB": "saved", "sentCB": "sent", "archivedCB": "archived"}


@dataclass(frozen=True, slots=True)
class Subject:
    """Whom the questions are about."""

    holdings: Holdings
    bulletin: Bulletin
    outputs: Outputs | None
    options: Callable[[], BuilderOptions]
    status: Callable[[], dict[str, Any]]
    address: Callable[[], str]


class Answers:
    """Answers by name."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._known: dict[str, Callable[..., Any]] = {
            "status": lambda: subject.status(),
            "hostname": platform.node,
            "myURI": lambda: subject.address(),
            "exposure_status": self.exposure_status,
            "processing_times": self.processing_times,
            "exposure": self.exposure,
            "ib_instructions": self.instructions,
            "exp_ready": lambda: subject.bulletin.ready("exposure_ready"),
            "image_ready": lambda: subject.bulletin.ready("image_ready"),
            "archive_ready": lambda: subject.bulletin.ready("archive_ready"),
            "plot_options": lambda: plot_options(subject.options()),
            **{name: self._callback(stage) for name, stage in _CALLBACKS.items()},
        }

    @property
    def names(self) -> tuple[str, ...]:
        """Everything that may be asked for."""
        return tuple(sorted({*self._known, *BuilderOptions.model_fields, *_OPTION_NAMES}))

    def get(self, what: str, options: Mapping[str, Any]) -> Any:
        """Answer one question.

        Raises
        ------
        Misconfigured
            If it is unknown (the closest known one is named), or does not take these options.
        Unknown
            If there is no such exposure, frame or extension.
        """
        name = choose(what, self.names, what="answer")
        if name not in self._known:
            self._check(name, options, ())
            return without_passwords(plain(getattr(self._subject.options(), _OPTION_NAMES.get(name, name))))
        if name in ("exposure_status", "processing_times", "ib_instructions"):
            self._check(name, options, ("expid", "frame") if name == "ib_instructions" else ("expid",))
        elif name == "exposure":
            self._check(name, options, ("mode", "expid", "frame", "extheader", "extdata"))
        else:
            self._check(name, options, ())
        return plain(self._known[name](**options))

    def exposure_status(self, expid: int | None = None) -> dict[str, Any]:
        """Return the frame numbers of an exposure, or the current one, in each stage of processing."""
        exposure = self._current(expid)
        if exposure is None:
            return {"expid": None}
        frames = self._subject.holdings.frames(exposure.expid)
        through = {stage: [view.frame for view in frames if mark in view.times] for stage, mark in _STAGES.items()}
        return {
            "expid": exposure.expid,
            "state": exposure.state.value,
            "frames": [view.frame for view in frames],
            "collecting": [view.frame for view in frames if view.state is FrameState.OPEN],
            "partial": [view.frame for view in frames if view.state is FrameState.PARTIAL],
            **through,
            "purged": [view.frame for view in frames if view.purged],
            "unsaved": [view.frame for view in frames if view.extensions and view.frame not in exposure.saved],
        }

    def processing_times(self, expid: int | None = None) -> dict[str, Any]:
        """Return how long each frame took in each stage, in seconds."""
        exposure = self._current(expid)
        if exposure is None:
            return {"expid": None, "frames": {}}
        views = self._subject.holdings.frames(exposure.expid)
        return {"expid": exposure.expid, "frames": {str(view.frame): _durations(view) for view in views}}

    def instructions(self, expid: int | None = None, frame: int | None = None) -> dict[str, Any]:
        """Return what a trigger said about an exposure, or one of its frames."""
        exposure = self._current(expid)
        if exposure is None:
            return {}
        said = exposure.instructions
        if frame is not None:
            said = merged(said, self._subject.holdings.frame(exposure.expid, frame).instructions)
        return {name: value for name, value in asdict(said).items() if value is not None}

    def exposure(
        self,
        mode: str = "all",
        expid: int | None = None,
        frame: int | None = None,
        extheader: str | None = None,
        extdata: str | None = None,
    ) -> Any:
        """Return the structure: of all exposures, one, or one frame; or header or place of one extension."""
        if extheader is not None or extdata is not None:
            if expid is None or frame is None:
                message = "a header or data of an extension belong to one frame"
                raise Misconfigured(message, remedy="give expid and frame as well")
            return (
                self._header(expid, frame, extheader)
                if extheader is not None
                else self._data(expid, frame, str(extdata))
            )
        if frame is not None and expid is not None:
            return frame_json(self._subject.holdings.frame(expid, frame))
        holdings = self._subject.holdings
        exposures: Iterable[ExposureView] = holdings.exposures() if expid is None else (holdings.exposure(expid),)
        kind = choose(mode, ("all", "list", "detail"), what="mode of exposure")
        if kind == "list":
            return [exposure.expid for exposure in exposures]
        if kind == "detail":
            return {str(exposure.expid): self._detail(exposure) for exposure in exposures}
        structure = {str(exposure.expid): self._structure(exposure) for exposure in exposures}
        return structure if expid is None else structure[str(expid)]

    def _structure(self, exposure: ExposureView) -> dict[str, Any]:
        frames = {str(view.frame): frame_json(view) for view in self._subject.holdings.frames(exposure.expid)}
        return {**exposure_json(exposure), "frames": frames}

    def _detail(self, exposure: ExposureView) -> dict[str, Any]:
        views = self._subject.holdings.frames(exposure.expid)
        return {
            "night": exposure.night.label,
            "state": exposure.state.value,
            "frames": {str(view.frame): [item.name for item in view.extensions] for view in views},
        }

    def _header(self, expid: int, frame: int, name: str) -> dict[str, Any]:
        subject = self._subject
        with subject.holdings.lent(expid, frame) as view:
            if name.upper() == subject.options().primary:
                if subject.outputs is not None:
                    header = subject.outputs.primary(subject.holdings.exposure(expid), view, subject.options())
                else:
                    header = view.primary_header
            else:
                header = read_header(self._extension(view, name))
        return {card.keyword: plain(_card_value(card.value)) for card in header.cards if card.keyword}

    def _data(self, expid: int, frame: int, name: str) -> dict[str, Any]:
        view = self._subject.holdings.frame(expid, frame)
        record = self._extension(view, name)
        if view.purged:
            message = f"the pixels of frame {expid}/{frame} were given back"
            raise Rejected(
                message, remedy=f"they are in {', '.join(str(item) for item in view.files) or view.published}"
            )
        return asdict(record)

    def _extension(self, view: FrameView, name: str) -> ExtensionRecord:
        found = next((item for item in view.extensions if item.name == name.upper()), None)
        if found is None:
            message = f"frame {view.expid}/{view.frame} has no extension {name}"
            raise Unknown(message, remedy=f"there are {', '.join(item.name for item in view.extensions) or 'none'}")
        return found

    def _current(self, expid: int | None) -> ExposureView | None:
        if expid is not None:
            return self._subject.holdings.exposure(expid)
        return next(reversed(self._subject.holdings.exposures()), None)

    def _callback(self, stage: str) -> Callable[[], Any]:
        def listed() -> list[dict[str, Any]]:
            outputs = self._subject.outputs
            return [item for item in outputs.hooks.listed() if item.get("stage") == stage] if outputs else []

        return listed

    def _check(self, what: str, options: Mapping[str, Any], known: tuple[str, ...]) -> None:
        unknown = sorted(set(options) - set(known))
        if unknown:
            choose(unknown[0], known, what=f"option of {what}")


def disk_space(directory: Path) -> dict[str, Any]:
    """Return the bytes that are free where images are written, and how many there are."""
    there = next((path for path in (directory, *directory.parents) if path.exists()), Path("/"))
    usage = shutil.disk_usage(there)
    return {"path": str(directory), "free": usage.free, "total": usage.total}


def _card_value(value: Any) -> Any:
    if isinstance(value, Undefined):
        return None
    return value if value is None or isinstance(value, (str, bool, int, float)) else str(value)


def _durations(view: FrameView) -> dict[str, Any]:
    times = view.times
    steps = {
        "assigned": ("assigned", "first"),
        "collect": ("first", "last"),
        "build": ("collected", "built"),
        "write": ("built", "saved"),
        "publish": ("built", "published"),
        "send": ("built", "sent"),
        "plot": ("built", "plotted"),
        "archive": ("built", "archived"),
        "total": ("collected", "done"),
    }
    spent = {
        name: round(times[end] - times[begin], 4) for name, (begin, end) in steps.items() if {begin, end} <= set(times)
    }
    return {"state": view.state.value, "revision": view.revision, "times": dict(times), "seconds": spent}
