"""The account of a cube: what was made of an exposure, by whose order, and how long it took; or why it was not made."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from nightglass.builder.accountfiles import restored
from nightglass.builder.records import ExposureView
from nightglass.errors import Misconfigured, NightglassError
from nightglass.layout import Layout
from nightglass.model import Night

if TYPE_CHECKING:
    from nightglass.cubes import CubeSummary

__all__ = ["CubeAccount", "CubeSource", "newest_account", "order_label", "read_cube_account"]

_MIB = 2.0**20
_MOST_PROBLEMS = 100
_WRITTEN = "archived, or cannot be"


@dataclass(frozen=True, slots=True, kw_only=True)
class CubeSource:
    """One image HDU of a cube."""

    name: str
    planes: int
    shape: list[int]
    bitpix: int
    stored_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CubeAccount:
    """One order to archive an exposure, and what became of it.

    Attributes
    ----------
    exposure : str
        ``<camera>/<night>/<number>``.
    order : str
        When it was asked for, to the millisecond: orders of one exposure differ by it.
    state : str
        ``making``, ``waiting`` (it is tried again), ``archived`` or ``failed``.
    seconds : float
        From the first attempt to the end.
    size, pixel_bytes : int
        Bytes of the cube, and of its pixels uncompressed.
    stages : dict
        Seconds of each stage of the work, in order.
    checksum : str
        Of the file.
    problems : list of str
        What is not in the cube, and why.
    error, kind, remedy : str
        Why there is none, the class of that error, and what a person can do.
    """

    exposure: str
    builder: str
    camera: str
    night: str
    expid: int
    order: str
    state: str = "making"
    began: float = 0.0
    seconds: float = 0.0
    path: str = ""
    frames: int = 0
    size: int = 0
    pixel_bytes: int = 0
    checksum: str = ""
    sources: list[CubeSource] = field(default_factory=list)
    stages: dict[str, float] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    error: str = ""
    kind: str = ""
    remedy: str = ""

    @classmethod
    def begun(cls, builder: str, camera: str, exposure: ExposureView) -> Self:
        """Return the account of what was asked for, at its first attempt."""
        return cls(
            exposure=f"{camera}/{exposure.night}/{exposure.expid}",
            builder=builder,
            camera=camera,
            night=exposure.night.label,
            expid=exposure.expid,
            order=order_label(exposure.asked_at),
            began=time.time(),
        )

    @property
    def is_over(self) -> bool:
        """Whether nothing more becomes of it."""
        return self.state in ("archived", "failed")

    @property
    def planes(self) -> int:
        """Images in the cube."""
        return sum(source.planes for source in self.sources)

    @property
    def rate_mib_s(self) -> float:
        """MiB of pixels a second."""
        return self.pixel_bytes / _MIB / self.seconds if self.seconds > 0 else 0.0

    def archived(self, summary: CubeSummary) -> Self:
        """Return the account with its cube."""
        return replace(
            self,
            state="archived",
            seconds=time.time() - self.began,
            path=str(summary.path),
            frames=summary.frames,
            size=summary.size,
            pixel_bytes=summary.pixel_bytes,
            checksum=summary.checksum,
            sources=[
                CubeSource(
                    name=item.name,
                    planes=item.frames,
                    shape=list(item.shape),
                    bitpix=item.bitpix,
                    stored_bytes=item.stored_bytes,
                )
                for item in summary.sources
            ],
            stages={name: round(seconds, 3) for name, seconds in summary.seconds.items()},
            problems=[f"{item.path.name}: {item.reason}" for item in summary.problems[:_MOST_PROBLEMS]],
            error="",
            kind="",
            remedy="",
        )

    def without(self, error: Exception, *, again: bool) -> Self:
        """Return the account with the reason why there is no cube, or none yet."""
        return replace(
            self,
            state="waiting" if again else "failed",
            seconds=time.time() - self.began,
            error=error.message if isinstance(error, NightglassError) else str(error),
            kind=type(error).__name__,
            remedy=error.remedy if isinstance(error, NightglassError) else "see the log of the watch",
        )

    def facts(self) -> dict[str, Any]:
        """Return what people want to know first, in a few words each."""
        if self.error:
            return {"error": f"{self.kind}: {self.error}", "remedy": self.remedy, "seconds": round(self.seconds, 3)}
        return {
            "cube": self.path,
            "planes": f"{self.planes} of {len(self.sources)} sources, {self.frames} frames",
            "bytes": self.size,
            "seconds": round(self.seconds, 3),
            "MiB/s": round(self.rate_mib_s, 1),
            "checks": "every plane was read back and compared with its frame; CHECKSUM and DATASUM of every HDU",
            "checksum": self.checksum,
            "problems": "; ".join(self.problems) or "none",
        }


def order_label(asked_at: float) -> str:
    """Return what orders of one exposure are told apart by: their time (seconds since 1970) to the millisecond, UTC."""
    moment = datetime.fromtimestamp(asked_at, UTC)
    return f"{moment:%Y%m%dT%H%M%S}{moment.microsecond // 1000:03d}"


def newest_account(layout: Layout, camera: str, night: Night, builder: str, expid: int) -> Path:
    """Return where the account of the last order to archive an exposure is.

    Raises
    ------
    Misconfigured
        If there is none.
    """
    pattern = layout.cube_account(camera, night, builder, expid, "X")
    paths = pattern.parent.glob(pattern.name.replace("-archive-X.", "-archive-*."))
    newest = max(paths, default=None)
    if newest is None:
        message = f"exposure {expid} of builder {builder}, night {night}, has no account of a cube"
        raise Misconfigured(message, remedy=f"it is written when an exposure is {_WRITTEN}")
    return newest


def read_cube_account(path: Path) -> CubeAccount:
    """Return an account.

    Raises
    ------
    Misconfigured
        If there is none, or it is of another shape.
    """

    def made(content: dict[str, Any]) -> CubeAccount:
        return CubeAccount(**{**content, "sources": [CubeSource(**source) for source in content["sources"]]})

    return restored(path, made, written=_WRITTEN)
