"""Monitors of streams: receivers, a small backlog that never holds the sender up, and what became of messages."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from nightglass.config import Overflow, StreamSource
from nightglass.monitor.feeds import FeedState
from nightglass.monitor.live import LivePicture
from nightglass.monitor.monitor import Monitor
from nightglass.monitor.recorded import FileFeed
from nightglass.monitor.running import run_monitor
from nightglass.sensors.backlog import Backlog
from nightglass.sensors.receiver import Receiver, ReceiverStatus
from nightglass.sensors.receivers import open_receivers

__all__ = ["feed_state", "monitor_file", "monitor_stream"]

_BACKLOG_BYTES = 128 << 20
_JOIN_S = 5.0
_LOSSES = ("lost before here", "dropped by the system", "dropped here", "damaged bytes", "reconnects")


@contextmanager
def monitor_stream(
    monitor: Monitor[Any], source: StreamSource, live: LivePicture, *, refresh_s: float = 0.5
) -> Iterator[None]:
    """Receive a stream and run its monitor in threads, while a block runs.

    The monitor has receivers of its own. Where it is slower than the stream the oldest messages are dropped and
    counted: it is to show what is, and nobody waits for it.

    Raises
    ------
    Misconfigured
        If the source cannot be received.
    """
    backlog: Backlog[Any] = Backlog(min(source.backlog_mib << 20, _BACKLOG_BYTES), Overflow.DROP_OLDEST)
    receivers = open_receivers(source, backlog)
    stop = threading.Event()
    thread = threading.Thread(
        target=run_monitor,
        args=(monitor, backlog, live),
        kwargs={"stop": stop, "refresh_s": refresh_s, "state": lambda: feed_state(receivers, backlog)},
        name=f"monitor-{live.name}",
        daemon=True,
    )
    for receiver in receivers:
        receiver.start()
    thread.start()
    try:
        yield
    finally:
        for receiver in receivers:
            receiver.stop()
        for receiver in receivers:
            receiver.join(_JOIN_S)
        stop.set()
        backlog.close()
        thread.join(_JOIN_S)


@contextmanager
def monitor_file(monitor: Monitor[Any], feed: FileFeed, live: LivePicture, *, refresh_s: float = 0.5) -> Iterator[None]:
    """Run a monitor over a file, as fast as it goes; the last picture stays while a block runs."""
    stop = threading.Event()
    thread = threading.Thread(
        target=run_monitor,
        args=(monitor, feed, live),
        kwargs={"stop": stop, "refresh_s": refresh_s, "state": feed.state},
        name=f"monitor-{live.name}",
        daemon=True,
    )
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(_JOIN_S)


def feed_state(receivers: Sequence[Receiver], backlog: Backlog[Any]) -> FeedState:
    """Return what receivers and backlog tell of losses and peers."""
    statuses = [receiver.status for receiver in receivers]
    counts: Counter[str] = Counter(dict.fromkeys(_LOSSES, 0))
    for status in statuses:
        counts["lost before here"] += status.losses.lost if status.losses else 0
        counts["dropped by the system"] += status.kernel_drops or 0
        counts["damaged bytes"] += status.skipped
        counts["reconnects"] += status.reconnects
        counts.update({_words(name): count for name, count in status.faults.items()})
    counts["dropped here"] += backlog.counts.dropped
    if all(status.losses is None for status in statuses):
        del counts["lost before here"]
    if all(status.kernel_drops is None for status in statuses):
        del counts["dropped by the system"]
    alarms = tuple(f"{status.peer}: {status.trouble}" for status in statuses if status.trouble)
    return FeedState(dict(counts), alarms, tuple((status.peer, _peer(status)) for status in statuses))


def _peer(status: ReceiverStatus) -> str:
    since = f" since {status.connected_since:%H:%M:%S} UTC" if status.connected_since else ""
    last = f", last message {status.last_message_at:%H:%M:%S}" if status.last_message_at else ""
    return f"{status.state.value}{since}{last}"


def _words(name: str) -> str:
    return name.lower().replace("_", " ")
