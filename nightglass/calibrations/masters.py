"""The masters of a night: made of its accepted frames, bias first, each at most once."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from nightglass.calibrations.checks import judge_frames, measure_frame
from nightglass.calibrations.choose import choose_masters
from nightglass.calibrations.combine import FLOOR, CombineSpec, combine_frames
from nightglass.calibrations.frames import FrameSet, frame_sets
from nightglass.calibrations.index import same_set
from nightglass.config import Camera
from nightglass.errors import Rejected
from nightglass.fitsio import content_id, write_atomic
from nightglass.layout import Layout
from nightglass.model import (
    ExposureRef,
    Kind,
    MasterRef,
    Night,
    Product,
    ProductKind,
    Quality,
    State,
    content_key,
)

if TYPE_CHECKING:
    from nightglass.config import Observatory
    from nightglass.ledger import Ledger
    from nightglass.pool import Pool

__all__ = ["ORDER", "REJECTED_FRAME", "build_masters", "master_identity"]

ORDER = (Kind.BIAS, Kind.DARK, Kind.FLAT)
"""Each kind may need those before it."""
REJECTED_FRAME = "RejectedCalibrationFrame"
"""Cause under which the ledger keeps frames that were left out."""

_log = logging.getLogger(__name__)


def build_masters(
    night: Night,
    camera: Camera,
    kinds: Collection[Kind] | None = None,
    *,
    ledger: Ledger,
    pool: Pool,
    observatory: Observatory,
) -> tuple[MasterRef, ...]:
    """Make every master that the reduced frames of a night allow; those that exist already are not made again.

    Frames that do not fit their set are left out, and the ledger says why.

    Returns
    -------
    tuple of MasterRef
        The masters of the night as they are now, one a set.

    Raises
    ------
    Retryable
        If the workers are gone.
    """
    builder = _Builder(night, camera, ledger, pool, observatory)
    wanted = [kind for kind in ORDER if kinds is None or kind in kinds]
    return tuple(master for kind in wanted for master in builder.build(kind))


def master_identity(frame_set: FrameSet, camera: Camera, used: Sequence[MasterRef | None]) -> str:
    """Return the id of a master: a hash of its kind, its settings and its inputs, in no order of arrival."""
    rule = camera.calibrations[frame_set.kind]
    settings = (rule.sigma, FLOOR, rule.min_response, sorted(rule.match))
    return content_key(
        frame_set.kind.value,
        camera.name,
        repr(settings),
        *frame_set.key,
        *sorted(ref.content_id for ref in frame_set.refs),
        *(master.master_id if master else "-" for master in used),
    )


class _Builder:
    def __init__(self, night: Night, camera: Camera, ledger: Ledger, pool: Pool, observatory: Observatory) -> None:
        self._night = night
        self._camera = camera
        self._ledger = ledger
        self._pool = pool
        self._layout = Layout(observatory.root)
        self._memory_mib = observatory.reduction.calibration_memory_mib

    def build(self, kind: Kind) -> list[MasterRef]:
        rule = self._camera.calibrations[kind]
        made = []
        for frame_set in frame_sets(self._frames(kind), self._camera.calibrations, kind):
            accepted = self._accepted(frame_set)
            if len(accepted.refs) < rule.min_frames:
                _log.info("%s %s: %d frames of %d", kind.value, accepted.key, len(accepted.refs), rule.min_frames)
                continue
            try:
                master = self._master(replace(accepted, refs=accepted.refs[: rule.max_frames]))
            except Rejected as error:
                # a set that cannot be combined must not keep the others, or the night, from going on
                _log.warning("no master %s of %s: %s", kind.value, accepted.key, error)
                continue
            made.append(self._in_use(master))
        return made

    def _frames(self, kind: Kind) -> list[ExposureRef]:
        entries = self._ledger.entries(
            night=self._night, camera=self._camera.name, states={State.REDUCED}, kinds={kind}
        )
        return [entry.ref for entry in entries if entry.ref is not None]

    def _accepted(self, frame_set: FrameSet) -> FrameSet:
        rule = self._camera.calibrations[frame_set.kind]
        paths = [self._layout.reduced(ref) for ref in frame_set.refs]
        measured = self._pool.map_small(measure_frame, paths)
        statistics = {
            ref.exposure_id: replace(item, exposure_time_s=ref.exposure_time_s)
            for ref, item in zip(frame_set.refs, measured, strict=True)
        }
        reasons = judge_frames(statistics, frame_set.kind, rule)
        for exposure_id, reason in reasons.items():
            _log.warning("%s is left out of the master %s: %s", exposure_id, frame_set.kind.value, reason)
        verdicts = {ref.exposure_id: reasons.get(ref.exposure_id, "") for ref in frame_set.refs}
        self._ledger.remark(verdicts, quality=Quality.BAD, cause=REJECTED_FRAME)
        return replace(frame_set, refs=tuple(ref for ref in frame_set.refs if ref.exposure_id not in reasons))

    def _master(self, frame_set: FrameSet) -> MasterRef:
        bias, dark = self._ingredients(frame_set)
        example, kind = frame_set.example, frame_set.kind
        matched = self._camera.calibrations[kind].match
        master = MasterRef(
            master_id=master_identity(frame_set, self._camera, (bias, dark)),
            kind=kind,
            camera=self._camera.name,
            night=self._night,
            path=Path(),
            detector=example.detector,
            filter=example.filter if "filter" in matched else "",
            binning=example.binning,
            readout=example.readout if "readout" in matched else "",
            exposure_time_s=frame_set.exposure_time_s if kind is Kind.DARK or "exposure" in matched else 0.0,
            frames=len(frame_set.refs),
            inputs=tuple(sorted(ref.content_id for ref in frame_set.refs)),
            uses=tuple(item.master_id for item in (bias, dark) if item),
        )
        master = replace(master, path=self._layout.master(master))
        known = self._ledger.find_master(master.master_id)
        if known is not None and known.path.is_file():
            return known
        return self._make(master, frame_set, bias, dark)

    def _in_use(self, current: MasterRef) -> MasterRef:
        """Take earlier masters of the same set out of the choice: they lack frames, or hold ones rejected since."""
        for other in self._ledger.masters(self._camera.name, current.kind, night=self._night):
            if same_set(other, current) and other.master_id != current.master_id and other.quality is not Quality.BAD:
                self._ledger.add_master(replace(other, quality=Quality.BAD))
        if current.quality is Quality.BAD:  # the set is what it was before: a frame came and went
            current = replace(current, quality=Quality.OK)
            self._ledger.add_master(current)
        return current

    def _ingredients(self, frame_set: FrameSet) -> tuple[MasterRef | None, MasterRef | None]:
        needed = {Kind.BIAS: (), Kind.DARK: (Kind.BIAS,), Kind.FLAT: (Kind.BIAS, Kind.DARK)}[frame_set.kind]
        found = choose_masters(frame_set.example, self._camera, self._ledger, night=self._night, kinds=needed)
        return found.get(Kind.BIAS), found.get(Kind.DARK)

    def _make(
        self, master: MasterRef, frame_set: FrameSet, bias: MasterRef | None, dark: MasterRef | None
    ) -> MasterRef:
        with write_atomic(master.path) as part:
            spec = CombineSpec(
                master=master,
                refs=frame_set.refs,
                frames=tuple(self._layout.reduced(ref) for ref in frame_set.refs),
                rule=self._camera.calibrations[frame_set.kind],
                part=part,
                bias=bias,
                dark=dark,
                memory_mib=self._memory_mib,
            )
            done = self._pool.submit(combine_frames, spec, key=f"master {master.kind.value}", priority=5)
            finished: MasterRef = done.result()
            checksum, size = content_id(part), part.stat().st_size
        product = Product(
            kind=ProductKind.MASTER,
            key=master.master_id,
            path=master.path,
            checksum=checksum,
            size=size,
            inputs=(*master.inputs, *master.uses),
        )
        self._ledger.add_product(product, night=self._night, camera=self._camera.name)
        self._ledger.add_master(finished)
        _log.info("master %s of %d frames: %s", master.kind.value, finished.frames, master.path)
        return finished
