"""The peer of the benchmarks: the same steps, called in a plain loop."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from nightglass.config import Observatory, load_camera
from nightglass.model import ExposureRef, Kind, MasterRef
from nightglass.reduction import ReductionSpec, reduce_exposure

__all__ = ["plain_spec", "reduce_plainly"]


def plain_spec(ref: ExposureRef, masters: Sequence[MasterRef], root: Path) -> ReductionSpec:
    """Return what the real-time reduction of an exposure is asked to do, with products beside the real ones."""
    camera = load_camera(ref.camera)
    best: dict[Kind, MasterRef] = {}
    for master in masters:
        if master.kind is not Kind.FLAT or master.filter == ref.filter:
            best.setdefault(master.kind, master)
    return ReductionSpec(
        ref=ref,
        camera=camera,
        entries=camera.step_list("realtime", ref.kind),
        product=root / "plain" / f"{ref.name}.fits",
        token="plain",
        masters=tuple(best.values()) if ref.kind is Kind.SCIENCE else (),
        quicklook=root / "plain" / f"{ref.name}.png",
        limits=Observatory().limits,
    )


def reduce_plainly(ref: ExposureRef, masters: Sequence[MasterRef], root: Path) -> float:
    """Reduce one exposure here and now, publish its files, and return the seconds it took."""
    started = time.perf_counter()
    for part in reduce_exposure(plain_spec(ref, masters, root)).parts:
        part.part.replace(part.final)
    return time.perf_counter() - started
