"""The parts of a watch, put together."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from nightglass.layout import Layout
from nightglass.model import Night, State
from nightglass.watch.alarms import AlarmFunction, Alarms
from nightglass.watch.archiving import ArchiveDesk
from nightglass.watch.building import BuildingDesk
from nightglass.watch.catchup import CatchUp
from nightglass.watch.chores import Chores
from nightglass.watch.collector import Collector
from nightglass.watch.courier import Courier
from nightglass.watch.curves import CurveDesk
from nightglass.watch.dark import DarkExecutor
from nightglass.watch.dispatch import Dispatch
from nightglass.watch.heartbeat import choose_path
from nightglass.watch.intake import Intake
from nightglass.watch.launcher import Launcher
from nightglass.watch.nightkeeper import NightFunction, NightKeeper
from nightglass.watch.once import Finish
from nightglass.watch.owners import Owner
from nightglass.watch.pulse import Pulse
from nightglass.watch.searching import Search
from nightglass.watch.sentry import Sentry
from nightglass.watch.sources import Sources
from nightglass.watch.streams import StreamDesk
from nightglass.watch.telling import Teller
from nightglass.watch.work import Workbench

if TYPE_CHECKING:
    from nightglass.config import Camera, Observatory
    from nightglass.ledger import Entry
    from nightglass.watch.executor import Executor
    from nightglass.watch.jobs import Job, JobReport

__all__ = ["Calls", "Parts", "assemble"]

_log = logging.getLogger(__name__)

_LOOK_S = 10.0
_HOLD_S = 60.0
"""See `CatchUp`, for a watch that goes on: the first exposures are worth a wait, but not a long one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calls:
    """Whom a watch tells what.

    Attributes
    ----------
    wake : callable
        Called from any thread when something happened.
    alarm, on_night_opened : callable or None
        See `nightglass.watch.loop.Watch`.
    """

    wake: Callable[[], None]
    alarm: AlarmFunction | None = None
    on_night_opened: NightFunction | None = None


@dataclass(slots=True, kw_only=True)
class Parts:
    """What a watch is made of; the loop says when each has its turn."""

    layout: Layout
    courier: Courier
    alarms: Alarms
    sentry: Sentry
    launcher: Launcher
    keeper: NightKeeper
    chores: Chores
    archives: ArchiveDesk
    teller: Teller
    collector: Collector
    curves: CurveDesk
    # these need one another, so they are put in as they are made
    sources: Sources = field(init=False)
    streams: StreamDesk = field(init=False)
    building: BuildingDesk = field(init=False)
    intake: Intake = field(init=False)
    search: Search = field(init=False)
    catch_up: CatchUp = field(init=False)
    pulse: Pulse = field(init=False)
    finish: Finish | None = None

    @property
    def looking(self) -> bool:
        """Whether files are still being scanned or checked."""
        return not self.sources.caught_up or len(self.intake) > 0

    def take_over(self, entries: tuple[Entry, ...]) -> None:
        """Take entries whose leases are over, or that may run again."""
        now = time.monotonic()
        for entry in entries:
            if entry.state is State.REDUCED:
                seconds = entry.times.get("reduced", 0.0) - entry.times.get("seen", 0.0)
                _log.info("%s reduced, %.2f s after it was seen", entry.exposure_id, seconds)
        self.chores.note_over(entries, now)
        self.curves.note(entries)
        self.search.take(entries, now)

    def take_end(self, job: Job, report: JobReport) -> None:
        """Take the end of a job that is no group job."""
        self.chores.ended(job, report, time.monotonic())
        self.archives.ended(job, report, time.monotonic())
        self.teller.ended(job, report, time.monotonic())


def assemble(
    bench: Workbench,
    cameras: Mapping[str, Camera],
    executor: Executor | None,
    *,
    nights: Iterable[Night],
    calls: Calls,
    once: bool,
) -> Parts:
    """Put the parts of a watch together; nothing is started but idle threads.

    Parameters
    ----------
    bench : Workbench
        With the cameras by their own names.
    cameras : mapping of str to Camera
        By the names that sources use.

    Raises
    ------
    Misconfigured
        If a source or an address does not fit.
    """
    parts = _core(bench, executor, calls)
    observatory = bench.observatory
    parts.intake = Intake(
        bench.ledger,
        observatory,
        wake=calls.wake,
        on_complete=lambda entry: parts.search.complete(entry, time.monotonic()),
    )
    parts.sources = Sources(
        observatory, cameras, nights=nights, on_sighting=parts.intake.sight, started_at=datetime.now(UTC)
    )
    # who reduces what is there and ends does not wait for what may come
    receiving = observatory.model_copy(update={"streams": (), "builders": ()}) if once else observatory
    _receive(parts, bench, receiving, cameras)
    parts.search = Search(
        cameras=bench.cameras,
        ledger=bench.ledger,
        intake=parts.intake,
        collector=parts.collector,
        launcher=parts.launcher,
        keeper=parts.keeper,
        sources=parts.sources,
    )
    now = time.monotonic()
    parts.catch_up = CatchUp(
        parts.launcher,
        parts.chores,
        look_until=now + (float("inf") if once else _LOOK_S),
        hold_until=now + (float("inf") if once else _HOLD_S),
    )
    parts.pulse = _pulse(bench, parts)
    if once:
        parts.finish = Finish(parts.intake, parts.collector, parts.launcher, parts.chores, bench.ledger)
    return parts


def _receive(parts: Parts, bench: Workbench, receiving: Observatory, cameras: Mapping[str, Camera]) -> None:
    """Put in what receives over the network."""
    parts.streams = StreamDesk(
        receiving, cameras, layout=parts.layout, alarms=parts.alarms, on_sighting=parts.intake.sight
    )
    parts.building = BuildingDesk(
        receiving,
        cameras,
        layout=parts.layout,
        pool=bench.pool,
        ledger=bench.ledger,
        alarms=parts.alarms,
        on_sighting=parts.intake.sight,
        teller=parts.teller,
    )


def _core(bench: Workbench, executor: Executor | None, calls: Calls) -> Parts:
    """Put together what stands between the ledger and the executors."""
    observatory = bench.observatory
    layout = Layout(observatory.root)
    courier = Courier(layout.run / "outbox", observatory.notices)
    alarms = Alarms(calls.alarm or courier.tell)
    # one more than there are workers keeps all of them busy
    dark = executor if isinstance(executor, DarkExecutor) else DarkExecutor(bench, capacity=_width(bench) + 1)
    main = None if isinstance(executor, DarkExecutor) else executor
    slots = (main or dark).terms.capacity
    queue = Dispatch(batch_limit=observatory.prefect.batch_limit, slots=slots)
    launcher = Launcher(
        bench=bench,
        owner=Owner.here("watch"),
        main=main,
        dark=dark,
        queue=queue,
        on_over=lambda entries: parts.take_over(entries),
        on_end=lambda job, report: parts.take_end(job, report),
    )
    keeper = NightKeeper(
        bench.ledger,
        observatory,
        cameras=frozenset(bench.cameras),
        # where nobody else can run a stage, nobody is waited for
        fallback_s=observatory.prefect.fallback_s if main is not None and main.terms.visible else 0.0,
        alarms=alarms,
        on_opened=calls.on_night_opened,
    )
    parts = Parts(
        layout=layout,
        courier=courier,
        alarms=alarms,
        sentry=Sentry(observatory, alarms),
        launcher=launcher,
        keeper=keeper,
        chores=Chores(
            bench.ledger,
            launcher,
            keeper,
            alarms,
            settle_s=observatory.reduction.calibration_settle_s,
            on_again=lambda entries: parts.take_over(entries),
        ),
        archives=ArchiveDesk(bench.ledger, launcher, keeper, alarms, rules=observatory.archive),
        teller=Teller(launcher, layout.tellings),
        collector=Collector(bench.ledger, bench.cameras, queue),
        curves=CurveDesk(bench.cameras, ledger=bench.ledger, layout=layout),
    )
    return parts


def _pulse(bench: Workbench, parts: Parts) -> Pulse:
    return Pulse(
        path=choose_path(parts.layout.run, bench.cameras),
        started=time.time(),
        cameras=tuple(sorted(bench.cameras)),
        cluster=bench.pool.address,
        ledger=bench.ledger,
        launcher=parts.launcher,
        keeper=parts.keeper,
        sources=parts.sources,
        streams=parts.streams,
        building=parts.building,
        sentry=parts.sentry,
        alarms=parts.alarms,
    )


def _width(bench: Workbench) -> int:
    return max(len(bench.pool.workers()), 1)
