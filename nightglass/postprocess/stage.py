"""Midway and final: the library calls, each one a piece that may run by itself, and all of them in order."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nightglass.calibrations import build_masters
from nightglass.config import Camera
from nightglass.errors import LeaseLost, NightglassError
from nightglass.layout import Layout
from nightglass.ledger import Reconciliation, StageLease
from nightglass.model import MasterRef, Night, Stage
from nightglass.postprocess.archiving import archive_all, archive_facts
from nightglass.postprocess.places import raw_files
from nightglass.postprocess.redo import GroupFunction, find_open, find_redo, reduce_groups
from nightglass.reduction.stacking import stack_group
from nightglass.report import StageReport, write_reports
from nightglass.watch.owners import Owner

if TYPE_CHECKING:
    from nightglass.archive import NightArchive
    from nightglass.config import Observatory
    from nightglass.ledger import Ledger
    from nightglass.pool import Pool
    from nightglass.reduction import GroupOutcome

__all__ = ["Postprocess", "StageSummary", "run_stage"]

_log = logging.getLogger(__name__)

_BEATS = 15
"""How often a lease is prolonged in its time: a ledger that is locked for a while must not cost the claim."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageSummary:
    """What a stage did.

    Attributes
    ----------
    masters, redone, stacks : int
        Masters of the night, exposures reduced again, stacks of the night.
    differences : tuple of str
        What reconciliation found; final only.
    archived : int
        Exposures that are cubes now; final only.
    archive_failures : tuple of str
        Exposures that are not, and why.
    """

    stage: str
    night: str
    camera: str
    masters: int = 0
    redone: int = 0
    stacks: int = 0
    counts: dict[str, int] | None = None
    differences: tuple[str, ...] = ()
    archived: int = 0
    archive_failures: tuple[str, ...] = ()
    reports: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the summary as plain JSON values."""
        return asdict(self)


@dataclass(slots=True)
class Postprocess:
    """One stage of one night of one camera, with what its pieces share.

    Attributes
    ----------
    owner : str
        Under which name the stage, and the exposures that it reduces again, are claimed; empty: this process.
    lease_s : float
        How long a claim outlives its holder.
    """

    stage: Stage
    night: Night
    camera: Camera
    ledger: Ledger
    pool: Pool
    observatory: Observatory
    lease: StageLease | None = None
    owner: str = ""
    lease_s: float = 900.0

    def __post_init__(self) -> None:
        self.owner = self.owner or str(Owner.here("stage"))

    def claim(self) -> bool:
        """Take the stage in the ledger; False: somebody else runs it, or it is done."""
        self.lease = self.ledger.claim_stage(
            self.night, self.camera.name, self.stage, owner=self.owner, lease_s=self.lease_s
        )
        return self.lease is not None

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Prolong the claim while the pieces run within: one of them may take longer than the lease."""
        over = threading.Event()
        keeper = threading.Thread(target=self._keep_until, args=(over,), name=f"{self.stage.value}-lease", daemon=True)
        keeper.start()
        try:
            yield
        finally:
            over.set()
            keeper.join()

    def _keep_until(self, over: threading.Event) -> None:
        while not over.wait(self.lease_s / _BEATS) and self.lease is not None:
            try:
                self.ledger.extend_stage(self.lease, lease_s=self.lease_s)
            except LeaseLost:
                return  # the next piece finds out, and ends the stage
            except NightglassError as error:
                _log.warning("the claim on %s of %s is not prolonged: %s", self.stage.value, self.night, error)

    def refresh_masters(self) -> tuple[MasterRef, ...]:
        """Make tonight's masters of all accepted frames."""
        self._keep()
        return build_masters(self.night, self.camera, ledger=self.ledger, pool=self.pool, observatory=self.observatory)

    def flush_groups(self, reduce: GroupFunction) -> tuple[GroupOutcome, ...]:
        """Close the groups that are still open and reduce them; final only."""
        self._keep()
        if self.stage is not Stage.FINAL:
            return ()
        lists = self.observatory.reduction.realtime
        return self._reduce(find_open(self.night, self.camera, self.ledger, lists), reduce)

    def redo(self, reduce: GroupFunction) -> tuple[GroupOutcome, ...]:
        """Reduce again what waited, used worse masters, or lacks the steps of post-processing."""
        self._keep()
        found = find_redo(
            self.night,
            self.camera,
            ledger=self.ledger,
            observatory=self.observatory,
            lists=self.observatory.reduction.postprocess,
        )
        return self._reduce(found, reduce)

    def stack(self) -> int:
        """Make the stacks that are missing or out of date, and return how many there are now."""
        self._keep()
        made = 0
        for record in self.ledger.groups(self.night, self.camera.name):
            product, _ = stack_group(
                record.group_id,
                ledger=self.ledger,
                pool=self.pool,
                observatory=self.observatory,
                camera=self.camera,
            )
            made += product is not None
        return made

    def _reduce(self, redos: Any, reduce: GroupFunction) -> tuple[GroupOutcome, ...]:
        return reduce_groups(
            redos,
            camera=self.camera,
            ledger=self.ledger,
            observatory=self.observatory,
            owner=self.owner,
            reduce=reduce,
        )

    def archive(self) -> NightArchive | None:
        """Archive all exposures of the night; final only. What can't be archived is told, and stops nothing."""
        self._keep()
        if self.stage is not Stage.FINAL:
            return None
        return archive_all(
            self.night,
            self.camera,
            ledger=self.ledger,
            pool=self.pool,
            observatory=self.observatory,
            owner=self.owner,
        )

    def reconcile(self) -> Reconciliation | None:
        """Compare ledger, directories and products; final only."""
        self._keep()
        if self.stage is not Stage.FINAL:
            return None
        layout = Layout(self.observatory.root)
        files = raw_files(self.ledger.entries(night=self.night, camera=self.camera.name), self.observatory)
        reduced = layout.night(self.camera.name, self.night) / "reduced"
        products = sorted(path for path in reduced.glob("*.fits")) if reduced.is_dir() else []
        return self.ledger.reconcile(self.night, self.camera.name, files=files, product_files=products)

    def report(self, reconciliation: Reconciliation | None) -> StageReport:
        """Write light curves, where the camera has them, and summary, error report and exposure log."""
        from nightglass.lightcurves import make_light_curves

        self._keep()
        make_light_curves(self.night, self.camera, ledger=self.ledger, layout=Layout(self.observatory.root))
        return write_reports(
            self.stage,
            self.night,
            self.camera,
            ledger=self.ledger,
            layout=Layout(self.observatory.root),
            reconciliation=reconciliation,
        )

    def announce(self, report: StageReport) -> None:
        """Put the notice into the outbox, from which it is sent and tried again until it is delivered."""
        from nightglass.notices import Notice, Outbox

        layout = Layout(self.observatory.root)
        log = layout.log(self.camera.name, self.night)
        notice = Notice(
            subject=report.subject,
            text=report.text,
            html=report.html,
            attachments=tuple(path for path in (log, *report.attachments) if path.exists()),
            key=f"{self.camera.name}/{self.night}/{self.stage.value}/{self._due}",
        )
        outbox = Outbox(layout.run / "outbox", self.observatory.notices)
        outbox.put(notice)

    @property
    def _due(self) -> str:
        """When the stage was due: a night that was opened again is told of again."""
        record = self.ledger.find_night(self.night, self.camera.name)
        return f"{record.stage(self.stage).due:%Y%m%dT%H%M%S}" if record else ""

    def finish(self, summary: StageSummary) -> None:
        """Record the stage as done; final closes the night, and then nothing grows any more."""
        from nightglass.lightcurves import drop_live

        if self.lease is not None:
            self.ledger.finish_stage(self.lease, summary.to_json())
        if self.stage is Stage.FINAL:
            self.ledger.close_night(self.night, self.camera.name)
            drop_live(self.camera.name, self.night, Layout(self.observatory.root))

    def fail(self, error: BaseException) -> None:
        """Record that the stage did not go well: it is tried again later, or given up."""
        if self.lease is not None:
            with suppress(LeaseLost):  # then somebody else has it, and says how it ends
                self.ledger.fail_stage(self.lease, error)

    def _keep(self) -> None:
        """Prolong the claim; a stage that was taken over stops here."""
        if self.lease is not None:
            self.lease = self.ledger.extend_stage(self.lease, lease_s=self.lease_s)


def run_stage(
    stage: Stage,
    night: Night,
    camera: Camera,
    *,
    ledger: Ledger,
    pool: Pool,
    observatory: Observatory,
    reduce: Callable[..., GroupOutcome] | None = None,
    lease_s: float = 900.0,
) -> StageSummary | None:
    """Run midway or final: masters, redo, reports, notice; final also flushes, reconciles and closes the night.

    Run twice is once: a stage that is done, or that somebody else runs, is left alone.

    Parameters
    ----------
    reduce : callable, optional
        Instead of `nightglass.reduction.run_group`, with its parameters.
    lease_s : float
        How long the claim on the stage outlives this process; it is prolonged while the stage runs.

    Returns
    -------
    StageSummary or None
        None if the stage is done already, or somebody else runs it.
    """
    from nightglass.reduction import run_group

    work = Postprocess(stage, night, camera, ledger, pool, observatory, lease_s=lease_s)
    if not work.claim():
        _log.info("%s of %s, %s is done or runs elsewhere", stage.value, night, camera.name)
        return None
    chosen = reduce or run_group

    def reduce_one(job: Any) -> GroupOutcome:
        return chosen(job, ledger=ledger, pool=pool, observatory=observatory, camera=camera)

    try:
        with work.kept():
            summary = _in_order(work, reduce_one)
    except BaseException as error:
        work.fail(error)
        raise
    work.finish(summary)
    return summary


def _in_order(work: Postprocess, reduce: GroupFunction) -> StageSummary:
    summary = StageSummary(stage=work.stage.value, night=work.night.label, camera=work.camera.name)
    flushed = work.flush_groups(reduce)
    masters = work.refresh_masters()
    redone = work.redo(reduce)
    stacks = work.stack()
    archived = work.archive()
    reconciliation = work.reconcile()
    report = work.report(reconciliation)
    work.announce(report)
    counts = work.ledger.counts(work.night, work.camera.name)
    return replace(
        summary,
        masters=len(masters),
        stacks=stacks,
        redone=sum(len(outcome.reduced) for outcome in (*flushed, *redone)),
        counts={state.value: count for state, count in counts.items()},
        differences=tuple(str(item) for item in reconciliation.differences) if reconciliation else (),
        **archive_facts(archived),
        reports=tuple(str(path) for path in (report.page, *report.attachments) if isinstance(path, Path)),
    )
