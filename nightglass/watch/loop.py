"""The watch: the one resident process of a night. It imports no Prefect and waits for nobody."""

from __future__ import annotations

import contextlib
import enum
import logging
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from nightglass.errors import Retryable
from nightglass.ledger import StageState
from nightglass.model import Night, Stage, State
from nightglass.watch.instance import InstanceLock
from nightglass.watch.parts import Calls, assemble
from nightglass.watch.pulse import count_states
from nightglass.watch.recovery import bury, recover
from nightglass.watch.timers import Timers
from nightglass.watch.work import Workbench

if TYPE_CHECKING:
    from nightglass.config import Camera, Observatory
    from nightglass.ledger import Ledger
    from nightglass.pool import Pool
    from nightglass.watch.alarms import AlarmFunction
    from nightglass.watch.executor import Executor
    from nightglass.watch.nightkeeper import NightFunction

__all__ = ["Watch", "WatchPhase", "WatchResult"]

_log = logging.getLogger(__name__)

_GRACE_S = 20.0
_LAST_S = 5.0
"""For the last files of streams to be checked, once the watch is told to stop."""
_LONGEST_WAIT_S = 1.0
_OVERDUE_S = 0.25
"""Between two looks at something that is due but cannot be started yet."""
_REST_S = 0.2
_BREATH_S = 0.1
"""Between two turns while batches take every slot: each group reports twice, and nothing can be given out anyway."""


class WatchPhase(enum.StrEnum):
    """What the watch is at."""

    STARTING = "starting"
    WATCHING = "watching"
    DRAINING = "draining"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchResult:
    """How a watch ended.

    Attributes
    ----------
    counts : dict
        ``<camera>/<night>`` -> state -> exposures, of the nights that it touched.
    failed : int
        Exposures of those nights that failed.
    stages_failed : tuple of str
        Stages that did not end well.
    """

    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    failed: int = 0
    stages_failed: tuple[str, ...] = ()

    @property
    def nights(self) -> tuple[Night, ...]:
        """The nights of which there are exposures, earliest first."""
        return tuple(sorted({Night(key.rpartition("/")[2]) for key in self.counts}))


class Watch:
    """Runs nights: from sighted files to reduced exposures and closed nights.

    Parameters
    ----------
    observatory : Observatory
        The whole configuration.
    cameras : mapping of str to Camera
        By the name that sources use, or by their own.
    ledger : Ledger
        Stays the caller's, as `pool` does.
    executor : Executor or None
        Who runs jobs; None: the watch itself, by plain library calls. It is closed at the end.
    nights : iterable of Night
        Nights asked for by name: they are opened at once, and the watch ends when all open nights are closed. None:
        whatever night it is, for ever.
    once : bool
        Reduce what is there, run the final stage, and end.
    alarm : callable, optional
        Told subject and text of alarms; must not block. None: a notice in the outbox.
    on_night_opened : callable, optional
        Told each open night once, in a thread of its own.
    grace_s : float
        How long running jobs may go on when the watch is told to stop.

    Raises
    ------
    Misconfigured
        If a source asks for a camera that was not given, or a directory cannot be filled in.
    """

    def __init__(
        self,
        observatory: Observatory,
        cameras: Mapping[str, Camera],
        ledger: Ledger,
        pool: Pool,
        executor: Executor | None = None,
        *,
        nights: Iterable[Night] = (),
        once: bool = False,
        alarm: AlarmFunction | None = None,
        on_night_opened: NightFunction | None = None,
        grace_s: float = _GRACE_S,
    ) -> None:
        self.phase = WatchPhase.STARTING
        self._wakes: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._stops = 0
        self._pause = False
        self._beat_at = 0.0
        self._grace_s = grace_s
        self._nights = tuple(nights)
        self._ledger = ledger
        self._cameras = {camera.name: camera for camera in cameras.values()}
        self._attempts = observatory.reduction.attempts
        bench = Workbench(ledger=ledger, pool=pool, observatory=observatory, cameras=self._cameras)
        calls = Calls(wake=self._wake, alarm=alarm, on_night_opened=on_night_opened)
        self._parts = assemble(bench, cameras, executor, nights=self._nights, calls=calls, once=once)
        self._timers = self._make_timers()

    def run(self) -> WatchResult:
        """Watch until stopped, until the nights that were asked for are closed, or, with `once`, until all is done.

        In the main thread SIGTERM and SIGINT stop it: running jobs may finish for a while, the others go back to the
        queue. A second signal does not wait.

        Raises
        ------
        Misconfigured
            If another process watches one of the cameras under this root.
        """
        with InstanceLock(self._parts.layout.run, self._cameras), _stopping_on_signals(self.stop):
            try:
                self._start()
                while not self._is_over():
                    self._wait()
                    self._turn()
            finally:
                self._drain()
        return self._result()

    def stop(self) -> None:
        """Ask the watch to end; safe from any thread and from signal handlers. Asked twice, it does not wait."""
        self._stops += 1
        self._wake()

    def _wake(self) -> None:
        self._wakes.put(None)  # the one queue that may be put to from a signal handler

    def _make_timers(self) -> Timers:
        parts = self._parts
        timers = Timers()
        timers.every(1.0, "heartbeat", lambda: parts.pulse.beat(self.phase.value))
        timers.every(1.0, "sweep", lambda: parts.take_over(self._ledger.sweep(max_attempts=self._attempts)))
        timers.every(5.0, "the dead", lambda: parts.take_over(bury(self._ledger).exposures))
        timers.every(2.0, "sources", self._sync_sources)
        timers.every(2.0, "nights", self._tend_nights)
        timers.every(5.0, "search", lambda: parts.search.look(time.monotonic()))
        timers.every(0.5, "what builders did", lambda: parts.teller.look(time.monotonic()))
        timers.every(5.0, "late reports", lambda: parts.chores.start_reports(time.monotonic()))
        if parts.finish is None:  # else the final stage follows at once, and archives all
            timers.every(2.0, "archives", lambda: parts.archives.look(time.monotonic()))
        timers.every(10.0, "disk", parts.sentry.look_at_disk)
        return timers

    def _start(self) -> None:
        parts = self._parts
        recover(self._ledger, parts.layout, cameras=self._cameras)
        parts.keeper.refresh()
        for night in self._nights:
            for camera in self._cameras:
                parts.keeper.open(camera, night, datetime.now(UTC))
                parts.intake.touched.add((camera, night))
        parts.search.restore(time.monotonic())
        parts.launcher.attach(self._wake)
        parts.courier.start()
        parts.curves.start()
        self._sync_sources()
        parts.streams.start()
        parts.building.start()
        self.phase = WatchPhase.WATCHING

    def _wait(self) -> None:
        """Wait for something to happen, or for the next time at which something is due."""
        if self._pause:  # what was refused is still there: without a rest this would spin
            self._pause = False
            time.sleep(_REST_S)
        elif self._parts.launcher.flights.in_batches and not self._parts.intake.busy:
            time.sleep(_BREATH_S)
        parts, now = self._parts, time.monotonic()
        due = min(
            self._timers.next_due(),
            parts.collector.next_deadline() or float("inf"),
            max(parts.chores.desk.next_due() or float("inf"), now + _OVERDUE_S),
            now + parts.launcher.next_check(),
            parts.search.ready_at,
            now if parts.intake.busy else now + _LONGEST_WAIT_S,
        )
        with contextlib.suppress(queue.Empty):
            self._wakes.get(timeout=max(due - now, 0.0))
        with contextlib.suppress(queue.Empty):
            while True:  # many wake-ups are one
                self._wakes.get_nowait()

    def _turn(self) -> None:
        """Go round once. Each step is on its own: what one of them meets does not stop the others."""
        parts, now = self._parts, time.monotonic()
        self._attempt("intake", parts.intake.work)
        self._attempt("reports", lambda: parts.launcher.listen(now))
        self._attempt("time-outs", lambda: parts.collector.tick(now))
        for name, action in self._timers.due(now):
            self._attempt(name, action)
        self._attempt("groups", lambda: parts.collector.work(now))
        self._attempt("retries", lambda: parts.search.retry(now))
        self._attempt("executors", lambda: parts.launcher.check(now))
        self._attempt("masters", lambda: parts.chores.start_masters(now))
        looking = parts.looking
        self._attempt("catching up", lambda: parts.catch_up.proceed(now, looking=looking))
        if not parts.sentry.must_pause:
            self._attempt("launch", lambda: parts.launcher.pump(now))
        if parts.finish is not None and not looking and parts.catch_up.is_over:
            finish = parts.finish
            self._attempt("finish", lambda: finish.proceed(now))

    def _attempt(self, name: str, step: Callable[[], object]) -> None:
        alarms, key = self._parts.alarms, f"step/{name}"
        try:
            step()
        except Retryable as error:
            _log.warning("%s: %s; it is tried again", name, error)
            alarms.raise_(key, "The watch is held up", f"{name}: {error}")
        except Exception as error:  # noqa: BLE001 - a boundary: whatever one step meets, the night goes on
            _log.exception("%s failed in an unforeseen way", name)
            text = f"{name}: {type(error).__name__}: {error}. The night goes on; please report this with the log."
            alarms.raise_(key, "A fault in the watch", text)
        else:
            alarms.clear(key)
            return
        self._pause = True
        self._parts.search.ready_at = min(self._parts.search.ready_at, time.monotonic() + 1.0)

    def _sync_sources(self) -> None:
        parts = self._parts
        opened = {record.night for record in parts.keeper.open_nights}
        parts.sources.sync(datetime.now(UTC), more_nights=opened)
        parts.intake.retire((*parts.sources.places, *parts.streams.places, *parts.building.places))

    def _tend_nights(self) -> None:
        parts, moment = self._parts, datetime.now(UTC)
        parts.keeper.refresh()
        parts.keeper.reopen_if_busy(moment)
        for camera, night in parts.keeper.finals_due(moment):
            parts.collector.flush(camera, night)
        if parts.finish is None:
            parts.chores.start_stages(time.monotonic())

    def _is_over(self) -> bool:
        if self._stops:
            return True
        parts = self._parts
        if parts.finish is not None:
            return parts.finish.is_over
        if not self._nights or len(parts.launcher.flights) or len(parts.launcher.queue):
            return False
        finals = (record.stage(Stage.FINAL).state for record in parts.keeper.open_nights)
        return all(state is StageState.FAILED for state in finals)

    def _drain(self) -> None:
        """Let running jobs finish for a while, then give the rest back."""
        parts = self._parts
        self.phase = WatchPhase.DRAINING
        self._attempt("sources", parts.sources.stop)
        self._attempt("image builders", parts.building.stop)
        self._attempt("what builders did", lambda: parts.teller.look(time.monotonic()))
        self._attempt("streams", lambda: parts.streams.stop(hurry=self._hurried))
        self._take_in_the_last()
        self._attempt("checks", parts.intake.stop)
        end = time.monotonic() + self._grace_s
        while len(parts.launcher.flights) and time.monotonic() < end and self._stops < 2:
            with contextlib.suppress(queue.Empty):
                self._wakes.get(timeout=0.1)
            self._attempt("reports", lambda: parts.launcher.listen(time.monotonic()))
            self._attempt("executors", lambda: parts.launcher.check(time.monotonic()))
            self._hurried()
        self._attempt("light curves", lambda: parts.curves.stop(hurry=self._hurried))
        self._attempt("give back", lambda: parts.launcher.take_back_all("the watch ends", time.monotonic()))
        self._attempt("close", parts.launcher.close)
        parts.courier.stop()
        self.phase = WatchPhase.STOPPED
        self._attempt("heartbeat", lambda: parts.pulse.beat(self.phase.value))

    def _take_in_the_last(self) -> None:
        """Record what streams and builders wrote at their end, so that the next start finds it in the ledger."""
        intake, end = self._parts.intake, time.monotonic() + _LAST_S
        writing = len(self._parts.streams) or len(self._parts.building)
        while writing and (intake.busy or len(intake)) and time.monotonic() < end and self._stops < 2:
            self._attempt("intake", intake.work)
            with contextlib.suppress(queue.Empty):
                self._wakes.get(timeout=0.1)
            self._hurried()

    def _hurried(self) -> bool:
        """Whether to wait no longer; whoever waits at the end asks all the time, so that the heart goes on beating."""
        now = time.monotonic()
        if now >= self._beat_at:
            self._beat_at = now + 1.0
            self._attempt("heartbeat", lambda: self._parts.pulse.beat(self.phase.value))
        return self._stops > 1

    def _result(self) -> WatchResult:
        counts = count_states(self._ledger, self._parts.intake.touched)
        finish = self._parts.finish
        return WatchResult(
            counts=counts,
            failed=sum(states.get(State.FAILED.value, 0) for states in counts.values()),
            stages_failed=finish.stages_failed if finish is not None else (),
        )


@contextlib.contextmanager
def _stopping_on_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` on SIGTERM and SIGINT, where this is the main thread; else signals are the caller's."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, lambda *_: stop()) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
