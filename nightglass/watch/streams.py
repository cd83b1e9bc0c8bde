"""The streams of a watch: one line each, what they complain of, and the alarms that follow from how they fare."""

from __future__ import annotations

import queue
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

from nightglass.errors import Misconfigured
from nightglass.watch.streamline import StreamLine, StreamState

if TYPE_CHECKING:
    from nightglass.config import Camera, Observatory
    from nightglass.layout import Layout
    from nightglass.watch.alarms import Alarms
    from nightglass.watch.sources import Place, SightingFunction

__all__ = ["StreamDesk"]


class StreamDesk:
    """Runs the streams of an observatory.

    `start`, `stop` and `look` are called from the one thread of the watch.

    Parameters
    ----------
    cameras : mapping of str to Camera
        By the names that streams use, or by their own.
    on_sighting : callable
        Told each file that a stream wrote, from threads of the streams.

    Raises
    ------
    Misconfigured
        If a stream asks for a camera that was not given, or for a protocol that makes no exposures.
    """

    def __init__(
        self,
        observatory: Observatory,
        cameras: Mapping[str, Camera],
        *,
        layout: Layout,
        alarms: Alarms,
        on_sighting: SightingFunction,
    ) -> None:
        self._alarms = alarms
        self._complaints: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()
        self._before: dict[str, tuple[int, int]] = {}
        self._lines = tuple(
            StreamLine(
                source,
                _camera(source.camera, source.name, cameras),
                layout=layout,
                site=observatory.site,
                on_sighting=on_sighting,
                on_complaint=partial(self._hear, source.name),
            )
            for source in observatory.streams
        )

    def __len__(self) -> int:
        """Return the number of streams."""
        return len(self._lines)

    @property
    def places(self) -> tuple[Place, ...]:
        """The directories that files are written to."""
        return tuple(place for line in self._lines for place in line.places)

    def start(self) -> None:
        """Begin to receive.

        Raises
        ------
        Misconfigured
            If an endpoint is none.
        """
        for line in self._lines:
            line.start()

    def stop(self, *, hurry: Callable[[], bool]) -> None:
        """End all streams, and wait until what they received is written.

        Parameters
        ----------
        hurry : callable
            Whether to wait no longer; what is not written then is lost.
        """
        for line in self._lines:
            line.stop()
        for line in self._lines:
            line.join(hurry=hurry)

    def look(self) -> list[dict[str, Any]]:
        """Raise and clear alarms, and describe each stream for the heartbeat."""
        states = []
        for line in self._lines:
            state = line.state()
            source = line.source
            self._note_losses(state)
            self._stand(f"stream/{state.name}", bool(state.error), f"Stream {state.name}", state.error)
            text = f"What is worked on was received {state.lag_s:.0f} s ago; {state.waiting} messages wait."
            lagging = state.lag_s > source.lag_alarm_s
            self._stand(f"lag/{state.name}", lagging, f"Stream {state.name} lags behind", text)
            text = f"Nothing has come from {', '.join(source.endpoints)} for {state.silent_s:.0f} s."
            silent = 0 < source.silence_alarm_s < state.silent_s
            self._stand(f"silence/{state.name}", silent, f"Stream {state.name} is silent", text)
            states.append(asdict(state))
        while not self._complaints.empty():
            name, text = self._complaints.get()
            self._happened(f"trouble/{name}", f"Trouble with stream {name}", text)
        return states

    def _hear(self, name: str, text: str) -> None:
        self._complaints.put((name, text))

    def _note_losses(self, state: StreamState) -> None:
        lost, dropped = self._before.get(state.name, (0, 0))
        if state.lost > lost:
            text = f"{state.lost - lost} messages were lost on their way, {state.lost} since the start."
            self._happened(f"gap/{state.name}", f"Gap in stream {state.name}", text)
        if state.dropped > dropped:
            text = (
                f"{state.dropped - dropped} messages came too fast and were dropped, {state.dropped} since the start."
            )
            self._happened(f"drop/{state.name}", f"Stream {state.name} is too fast", text)
        self._before[state.name] = (state.lost, state.dropped)

    def _stand(self, key: str, standing: bool, subject: str, text: str) -> None:  # noqa: FBT001 - one of two calls
        if standing:
            self._alarms.raise_(key, subject, text)
        else:
            self._alarms.clear(key)

    def _happened(self, key: str, subject: str, text: str) -> None:
        self._alarms.raise_(key, subject, text)
        self._alarms.clear(key)  # an event, not a state


def _camera(asked: str, stream: str, cameras: Mapping[str, Camera]) -> Camera:
    camera = cameras.get(asked) or {camera.name: camera for camera in cameras.values()}.get(asked)
    if camera is None:
        message = f"stream {stream} asks for camera {asked!r}, which was not loaded"
        raise Misconfigured(message, remedy=f"loaded: {', '.join(sorted(cameras)) or 'none'}")
    return camera
