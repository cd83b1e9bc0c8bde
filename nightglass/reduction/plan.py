"""From a reference to a specification: which steps, which masters, which paths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nightglass.config.camera import MissingCalibration
from nightglass.layout import Layout
from nightglass.model import CALIBRATION_KINDS, ExposureRef, Kind, MasterRef
from nightglass.reduction.spec import ReductionSpec

if TYPE_CHECKING:
    from nightglass.config import Camera, Observatory
    from nightglass.ledger import Ledger

__all__ = ["plan"]


def plan(
    ref: ExposureRef,
    lists: Sequence[str],
    *,
    token: str,
    ledger: Ledger,
    observatory: Observatory,
    camera: Camera,
) -> ReductionSpec:
    """Choose the masters that the step lists need, and say where the products go.

    Raises
    ------
    Waiting
        If a master is missing and the camera's rule says wait.
    Misconfigured
        If the camera has no step list of such a name.
    """
    from nightglass.calibrations import choose

    entries = tuple(entry for name in lists for entry in camera.step_list(name, ref.kind))
    needed = CALIBRATION_KINDS & {Kind(entry.step) for entry in entries if entry.step in set(CALIBRATION_KINDS)}
    masters: tuple[MasterRef, ...] = ()
    notes: tuple[str, ...] = ()
    if needed:
        choice = choose(ref, _needing(camera, needed), ledger, now_night=ref.night)
        masters = tuple(master for master in choice.masters if master.kind in needed)
        notes = tuple(f"master {item.kind.value} of {item.night}" for item in choice.archived if item.kind in needed)
    layout = Layout(observatory.root)
    return ReductionSpec(
        ref=ref,
        camera=camera,
        entries=entries,
        product=layout.reduced(ref),
        token=token,
        masters=masters,
        quicklook=layout.quicklook(ref) if observatory.reduction.quicklook else None,
        limits=observatory.limits,
        notes=notes,
    )


def _needing(camera: Camera, needed: frozenset[Kind]) -> Camera:
    """Return the camera without the wish to wait for masters that no listed step applies."""
    rules = {
        kind: rule if kind in needed else rule.model_copy(update={"missing": MissingCalibration.PROCEED})
        for kind, rule in camera.calibrations.items()
    }
    return camera.model_copy(update={"calibrations": rules})
