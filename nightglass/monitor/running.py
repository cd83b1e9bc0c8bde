"""Driving a monitor: messages as they come, pictures at their interval, faults that stop nothing."""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from nightglass.monitor.feeds import Arrival, Feed, FeedState
from nightglass.monitor.live import LivePicture
from nightglass.monitor.monitor import Monitor
from nightglass.monitor.pictures import Panel, Picture, Series, SeriesPanel, TablePanel
from nightglass.monitor.rates import RateMeter

__all__ = ["run_monitor"]

M = TypeVar("M")
_LOG = logging.getLogger(__name__)
_LONGEST_WAIT_S = 0.2


def run_monitor(
    monitor: Monitor[M],
    feed: Feed[M],
    live: LivePicture,
    *,
    stop: threading.Event,
    refresh_s: float = 0.5,
    state: Callable[[], FeedState] = FeedState,
) -> None:
    """Run a monitor until it is stopped: take what comes at once, and renew the picture at the interval.

    However fast the stream is, there is a picture each `refresh_s`, or as soon as the batch in hand is processed; a
    last one is made when it stops. An exception of the monitor is shown in the picture, counted and logged; the
    messages of that batch are lost to it, and it goes on.

    Parameters
    ----------
    feed : Feed
        As a `Backlog`.
    live : LivePicture
        Where pictures go, and requests for a new beginning come from.
    state : callable, optional
        Tells about losses and peers; called for each picture.
    """
    _Run(monitor, live, state).run(feed, stop, refresh_s)


class _Run(Generic[M]):
    def __init__(self, monitor: Monitor[M], live: LivePicture, state: Callable[[], FeedState]) -> None:
        self._monitor, self._live, self._state = monitor, live, state
        self._number = live.newest.number
        self._began = time.monotonic()
        self._clear()

    def _clear(self) -> None:
        self._messages, self._bytes = RateMeter(), RateMeter()
        self._faults = 0
        self._fault = ""
        self._guard(self._monitor.setup)

    def run(self, feed: Feed[M], stop: threading.Event, refresh_s: float) -> None:
        due = time.monotonic() + refresh_s
        self._publish()
        while not stop.is_set():
            # never much longer than this without a look at the requests
            wait = min(max(0.0, due - time.monotonic()), _LONGEST_WAIT_S)
            arrivals = feed.take(wait_s=wait, most=self._monitor.batch)
            if self._live.take_reset():
                self._clear()
                due = time.monotonic()
            if arrivals:
                self._process(arrivals)
            if time.monotonic() >= due:
                self._publish()
                due = max(due + refresh_s, time.monotonic())
        self._publish()

    def _process(self, arrivals: Sequence[Arrival[M]]) -> None:
        now = time.monotonic()
        self._messages.add(len(arrivals), now=now)
        self._bytes.add(sum(arrival.size for arrival in arrivals), now=now)
        self._guard(lambda: self._monitor.process_many(arrivals))

    def _guard(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:  # noqa: BLE001 - a monitor is anybody's code, and the stream goes on
            if not self._faults:
                _LOG.exception("the monitor %s failed", type(self._monitor).__name__)
            self._faults += 1
            self._fault = f"{type(error).__name__}: {error}"

    def _publish(self) -> None:
        made = [Picture(title=self._monitor.title)]
        self._guard(lambda: made.append(self._monitor.update()))
        self._number += 1
        try:
            picture = self._complete(made[-1])
            # what cannot be shown is found here, not at a viewer's
            self._live.publish(picture)
            self._live.text()
        except (TypeError, ValueError, OverflowError) as error:
            self._faults += 1
            self._fault = f"the picture cannot be shown: {error}"
            self._live.publish(self._complete(Picture(title=self._monitor.title)))

    def _complete(self, picture: Picture) -> Picture:
        now, state = time.monotonic(), self._state()
        fault = (f"the monitor failed {self._faults} times, last with {self._fault}",) if self._faults else ()
        rates = {
            "messages/s": self._messages.rate(now=now),
            "MiB/s": self._bytes.rate(now=now) / 2**20,
        }
        return dataclasses.replace(
            picture,
            # what is drawn first, then what is written: the page fits together better
            panels=tuple(sorted((*picture.panels, self._traffic(now), *_peers(state)), key=_is_table)),
            counters={**picture.counters, "messages": round(self._messages.total)},
            rates={**picture.rates, **rates},
            losses={**state.losses, **picture.losses},
            alarms=(*state.alarms, *picture.alarms, *fault),
            number=self._number,
            at=time.time(),
        )

    def _traffic(self, now: float) -> SeriesPanel:
        history = self._messages.history(now=now)
        ages, rates = (tuple(column) for column in zip(*history, strict=True)) if history else ((), ())
        return SeriesPanel(
            title="Traffic",
            series=(Series("messages", ages, rates),),
            x_label="time before now [s]",
            y_label="messages [1/s]",
            note=f"{self._bytes.total / 2**20:.1f} MiB in {_span(now - self._began)}",
        )


def _peers(state: FeedState) -> tuple[TablePanel, ...]:
    if not state.peers:
        return ()
    return (TablePanel(title="Peers", columns=("peer", "state"), rows=state.peers),)


def _is_table(panel: Panel) -> bool:
    return isinstance(panel, TablePanel)


def _span(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
