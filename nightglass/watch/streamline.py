"""One stream of a watch: receivers, the backlog behind them, and a thread that makes files of what they bring."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nightglass.errors import NightglassError, Retryable
from nightglass.layout import Layout
from nightglass.model import Night, Sighting
from nightglass.nights import night_of
from nightglass.sensors import open_backlog, open_receivers
from nightglass.streams.exposures import exposure_number
from nightglass.watch.assembling import Assembler, make_assembler
from nightglass.watch.sources import Place, stream_directory

if TYPE_CHECKING:
    from nightglass.config import Camera, Site, StreamSource
    from nightglass.sensors import Backlog, Receiver
    from nightglass.watch.sources import SightingFunction

__all__ = ["StreamLine", "StreamState"]

_log = logging.getLogger(__name__)

_LOOK_S = 0.1
_RETRY_S = 1.0
_END_S = 60.0
"""For what was received to be written after a stop, and for a disk that refuses the last files."""
_NIGHTS = 3
"""Nights whose files are looked through at the start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamState:
    """How a stream fares, for the heartbeat.

    Attributes
    ----------
    peers : list of dict
        ``peer``, ``state``, ``messages``, ``bytes``, ``trouble`` of each endpoint.
    messages, bytes, skipped : int
        That came; bytes that belonged to no message.
    lost : int
        Messages that the numbers of others tell of.
    dropped : int
        Messages that came too fast, for the system or for the backlog.
    waiting, waiting_bytes, spilled_bytes, peak_bytes : int
        In the backlog.
    files, partial, late, duplicates, untimed : int
        See `AssemblyCounts`.
    lag_s : float
        How long ago that was received which is worked on.
    silent_s : float
        Since the last message, or the start.
    error : str
        Why nothing is received or written.
    """

    name: str
    camera: str
    protocol: str
    peers: list[dict[str, Any]] = field(default_factory=list)
    messages: int = 0
    bytes: int = 0
    skipped: int = 0
    lost: int = 0
    dropped: int = 0
    waiting: int = 0
    waiting_bytes: int = 0
    spilled_bytes: int = 0
    peak_bytes: int = 0
    files: int = 0
    partial: int = 0
    late: int = 0
    duplicates: int = 0
    untimed: int = 0
    lag_s: float = 0.0
    silent_s: float = 0.0
    error: str = ""


class StreamLine:
    """Receives one stream, and tells of the files that it makes.

    What is renamed into place and in the ledger is safe from any kill. What is not, because it waits in the backlog or
    for the rest of its group, is lost by a kill, and written at an orderly end.

    Parameters
    ----------
    on_sighting : callable
        Told each file, from this line's thread.
    on_complaint : callable
        Told what went wrong.
    """

    def __init__(
        self,
        source: StreamSource,
        camera: Camera,
        *,
        layout: Layout,
        site: Site,
        on_sighting: SightingFunction,
        on_complaint: Callable[[str], None],
    ) -> None:
        self.source = source
        self.camera = camera
        self._layout = layout
        self._site = site
        self._files = stream_directory(source, layout)
        self._on_sighting = on_sighting
        self._on_complaint = on_complaint
        self._assembler: Assembler = make_assembler(source, self._path)
        self._backlog: Backlog[Any] | None = None
        self._receivers: tuple[Receiver, ...] = ()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"stream-{source.name}", daemon=True)
        self._started_at = time.time()
        self._end_by = float("inf")
        self._lag_s = 0.0
        self._error = ""
        self._places: dict[Night, Place] = {}

    @property
    def places(self) -> tuple[Place, ...]:
        """Where files were written, or found at the start."""
        return tuple(self._places.values())

    def start(self) -> None:
        """Tell of the files that are there, and begin to receive.

        Raises
        ------
        Misconfigured
            If an endpoint is none, or the spill has no place.
        """
        files = self._earlier()
        self._assembler.restore(files)
        for path in files:
            self._sight(path)
        backlog = self._backlog = open_backlog(self.source, directory=self._layout.run)
        self._receivers = open_receivers(self.source, backlog, on_alarm=self._on_complaint)
        for receiver in self._receivers:
            receiver.start()
        self._started_at = time.time()
        self._thread.start()

    def stop(self) -> None:
        """Ask it to end: what was received is still written, the last group as well."""
        self._end_by = time.monotonic() + _END_S
        for receiver in self._receivers:
            receiver.stop()
        self._stopping.set()

    def join(self, *, hurry: Callable[[], bool]) -> None:
        """Wait until all is written, or the disk refused for a minute, or there is no time for it."""
        while self._thread.is_alive() and not hurry():
            self._thread.join(_LOOK_S)

    def state(self) -> StreamState:
        """Return how it fares now."""
        statuses = [receiver.status for receiver in self._receivers]
        counts = self._assembler.counts
        backlog = self._backlog.counts if self._backlog is not None else None
        last = max((status.last_message_at.timestamp() for status in statuses if status.last_message_at), default=0.0)
        trouble = self._error or (self._backlog.trouble if self._backlog is not None else "")
        return StreamState(
            name=self.source.name,
            camera=self.camera.name,
            protocol=self.source.protocol,
            peers=[
                {
                    "peer": status.peer,
                    "state": status.state.value,
                    "messages": status.messages,
                    "bytes": status.bytes,
                    "trouble": status.trouble,
                }
                for status in statuses
            ],
            messages=sum(status.messages for status in statuses),
            bytes=sum(status.bytes for status in statuses),
            skipped=sum(status.skipped for status in statuses),
            lost=sum(status.losses.lost for status in statuses if status.losses),
            dropped=sum(status.kernel_drops or 0 for status in statuses) + (backlog.dropped if backlog else 0),
            waiting=backlog.messages if backlog else 0,
            waiting_bytes=backlog.bytes if backlog else 0,
            spilled_bytes=backlog.spilled_bytes if backlog else 0,
            peak_bytes=backlog.peak_bytes if backlog else 0,
            files=counts.files,
            partial=counts.partial,
            late=counts.late,
            duplicates=counts.duplicates,
            untimed=counts.untimed,
            lag_s=round(self._lag_s, 3),
            silent_s=round(max(time.time() - max(last, self._started_at), 0.0), 1),
            error=trouble or "; ".join(status.trouble for status in statuses if status.trouble),
        )

    def _run(self) -> None:
        while not self._is_over():
            self._guarded(self._turn)
        self._guarded(self._assembler.flush)
        while self._assembler.due and time.monotonic() < self._end_by:
            self._guarded(self._write)
        if self._assembler.due:
            _log.error("stream %s: %d files could not be written", self.source.name, self._assembler.due)
        if self._backlog is not None:
            self._backlog.close()

    def _is_over(self) -> bool:
        if not self._stopping.is_set() or self._backlog is None:
            return False
        ended = all(receiver.join(0.0) for receiver in self._receivers)
        return (ended and not self._backlog.counts.messages) or time.monotonic() >= self._end_by

    def _turn(self) -> None:
        """Take what came, and write what is ready; while the disk refuses, nothing is taken: the backlog has limits."""
        if self._backlog is not None and not self._assembler.due:
            batch = self._backlog.take(wait_s=_LOOK_S, most=self._assembler.most)
            self._lag_s = (datetime.now(UTC) - batch[0].received_at).total_seconds() if batch else 0.0
            self._assembler.take(batch, time.monotonic())
        self._assembler.tick(time.monotonic())
        self._write()

    def _write(self) -> None:
        while self._assembler.due:
            try:
                path = self._assembler.write_next()
            except Retryable:
                raise
            except Exception:
                self._assembler.drop_next()  # or it would be tried for ever, and the stream stood still
                raise
            self._sight(path)
        self._error = ""

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Retryable as error:
            self._error = str(error)
            time.sleep(_RETRY_S)
        except Exception as error:  # noqa: BLE001 - a boundary: whatever one message causes, the stream goes on
            text = f"{self.source.name}: {type(error).__name__}: {error}"
            level = logging.WARNING if isinstance(error, NightglassError) else logging.ERROR
            _log.log(level, "stream %s", text, exc_info=error)
            self._on_complaint(text)
            time.sleep(_LOOK_S)

    def _path(self, moment: datetime) -> Path:
        night = night_of(moment, self._site)
        stem = f"{self.source.name}-{moment.astimezone(UTC):%Y%m}{exposure_number(moment):011d}"
        return self._layout.received(self.camera.name, night, self.source.name) / f"{stem}.fits"

    def _sight(self, path: Path) -> None:
        sighting = Sighting.of(path, path.stat(), datetime.now(UTC))
        place = self._place(Night(path.parent.parent.parent.name))
        self._on_sighting(place, sighting)

    def _place(self, night: Night) -> Place:
        if night not in self._places:
            directory = self._layout.received(self.camera.name, night, self.source.name)
            self._places[night] = Place(self._files, self.camera, directory, night)
            while len(self._places) > _NIGHTS:
                del self._places[min(self._places)]
        return self._places[night]

    def _earlier(self) -> list[Path]:
        """Return the files of the last nights, earliest first; one may have been renamed and not been told of."""
        nights = sorted((self._layout.root / self.camera.name).glob(f"*/raw/{self.source.name}"))
        return sorted(path for directory in nights[-_NIGHTS:] for path in directory.glob("*.fits"))
