"""The account of an exposure: what became of its frames and when, as a small file that outlives the spool."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles
from typing import Any

from nightglass.builder.accountfiles import restored
from nightglass.builder.cubeaccounts import order_label
from nightglass.builder.records import ExposureView, FrameState, FrameView

__all__ = ["CLEARED", "STEPS", "Account", "FrameAccount", "make_account", "read_account"]

STEPS: Mapping[str, tuple[str, str]] = {
    "collect": ("assigned", "last"),
    "build": ("last", "built"),
    "write": ("built", "saved"),
    "send": ("built", "sent"),
    "plot": ("built", "plotted"),
}
"""Step of a frame -> the times between which it happened, see `FrameView.times`."""

CLEARED = "cleared"
"""State of an exposure that was thrown away before it was complete."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameAccount:
    """One frame.

    Attributes
    ----------
    size : int
        Bytes of its extensions.
    times : dict
        As `FrameView.times`.
    """

    frame: int
    state: str
    extensions: int
    size: int
    missing: list[str] = field(default_factory=list)
    files: int = 0
    times: dict[str, float] = field(default_factory=dict)
    revision: int = 1

    def seconds(self, step: str) -> float | None:
        """Return how long a step took; None: it did not happen."""
        began, ended = (self.times.get(name) for name in STEPS[step])
        began = self.times.get("first") if began is None else began
        return None if began is None or ended is None else max(ended - began, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """One exposure.

    Attributes
    ----------
    exposure : str
        ``<camera>/<night>/<number>``.
    opened : str
        When it was opened, which tells exposures of one number apart; see `order_label`.
    """

    exposure: str
    builder: str
    camera: str
    night: str
    expid: int
    state: str
    frames: list[FrameAccount] = field(default_factory=list)
    archive: str = ""
    opened: str = ""

    @property
    def mark(self) -> object:
        """What has to differ for the exposure to be told of again."""
        frames = [(frame.frame, frame.state, frame.revision) for frame in self.frames]
        return self.opened, self.state == CLEARED, frames

    def summary(self, step: str) -> dict[str, Any]:
        """Return how many frames a step was done for, and how long it took: ``frames``, ``p50_s``, ``p95_s``."""
        seconds = sorted(each for frame in self.frames if (each := frame.seconds(step)) is not None)
        if not seconds:
            return {"frames": 0}
        cuts = quantiles(seconds, n=20, method="inclusive") if len(seconds) > 1 else seconds * 19
        return {"frames": len(seconds), "p50_s": round(cuts[9], 3), "p95_s": round(cuts[18], 3)}

    @property
    def partial(self) -> list[int]:
        """Frames that were built without some of what was expected."""
        return [frame.frame for frame in self.frames if frame.state == FrameState.PARTIAL.value]


def make_account(builder: str, camera: str, exposure: ExposureView, frames: Sequence[FrameView]) -> Account:
    """Return the account of an exposure as it stands."""
    return Account(
        exposure=f"{camera}/{exposure.night}/{exposure.expid}",
        builder=builder,
        camera=camera,
        night=exposure.night.label,
        expid=exposure.expid,
        state=exposure.state.value,
        archive=str(exposure.archive) if exposure.archive else "",
        opened=order_label(exposure.opened_at),
        frames=[
            FrameAccount(
                frame=view.frame,
                state=view.state.value,
                extensions=len(view.extensions),
                size=sum(record.size for record in view.extensions),
                missing=list(view.missing),
                files=len(view.files),
                times=dict(view.times),
                revision=view.revision,
            )
            for view in frames
        ],
    )


def read_account(path: Path) -> Account:
    """Return an account.

    Raises
    ------
    Misconfigured
        If there is none, or it is of another shape.
    """

    def made(content: dict[str, Any]) -> Account:
        return Account(**{**content, "frames": [FrameAccount(**frame) for frame in content["frames"]]})

    return restored(path, made, written="complete")
