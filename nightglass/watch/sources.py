"""Which directories are watched now: one sensor a source, and one a night where the directory names it."""

from __future__ import annotations

import logging
import queue
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nightglass.errors import Misconfigured
from nightglass.layout import Layout
from nightglass.model import Night, Sighting
from nightglass.nights import night_of, night_span

if TYPE_CHECKING:
    from nightglass.config import BuilderSource, Camera, Observatory, Source, StreamSource
    from nightglass.ledger import Entry
    from nightglass.sensors import FileSensor

__all__ = ["Place", "Sources", "built_camera", "camera_of", "directory_of", "stream_directory"]

_log = logging.getLogger(__name__)

_HANGS_S = 15.0

SightingFunction = Callable[["Place", Sighting], None]


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """A directory that is watched for a camera; equal are those of one camera, directory and night.

    Attributes
    ----------
    night : Night or None
        The night that all its exposures belong to; None: the headers tell.
    """

    source: Source
    camera: Camera
    directory: Path
    night: Night | None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Place) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)

    @property
    def _identity(self) -> tuple[str, Path, Night | None]:
        return self.camera.name, self.directory, self.night


def directory_of(source: Source, camera: Camera, night: Night) -> Path:
    """Return the directory of a source with ``{camera}`` and ``{night}`` filled in.

    Raises
    ------
    Misconfigured
        If the text holds another name in braces.
    """
    try:
        return Path(source.directory.format(camera=camera.name, night=night.label)).expanduser().absolute()
    except (KeyError, IndexError, ValueError) as error:
        message = f"source directory {source.directory!r} cannot be filled in: {error!r}"
        raise Misconfigured(message, remedy="it may hold {camera} and {night}") from error


def stream_directory(stream: StreamSource | BuilderSource, layout: Layout) -> Source:
    """Return where a stream or an image builder puts its files, as a source of files."""
    from nightglass.config import Source

    root = str(layout.root).replace("{", "{{").replace("}", "}}")
    directory = f"{root}/{{camera}}/{{night}}/raw/{stream.name}"
    return Source.model_validate({"camera": stream.camera, "directory": directory})


def built_camera(camera: Camera) -> Camera:
    """Return a camera as it is for files of an image builder: each is one frame of an exposure, and says which."""
    rules = camera.header
    numbers = {"number": ("EXPID", *rules.number), "frame": ("FRAME", *rules.frame)}
    return camera.model_copy(update={"header": rules.model_copy(update=numbers)})


def camera_of(source: Source, cameras: Mapping[str, Camera]) -> Camera:
    """Return the camera of a source, by what the source calls it or by its own name.

    Raises
    ------
    Misconfigured
        If it is not among those given.
    """
    by_name = {camera.name: camera for camera in cameras.values()}
    camera = cameras.get(source.camera) or by_name.get(source.camera)
    if camera is None:
        message = f"source {source.directory} asks for camera {source.camera!r}, which was not loaded"
        raise Misconfigured(message, remedy=f"loaded: {', '.join(sorted({*cameras, *by_name})) or 'none'}")
    return camera


class Sources:
    """The sensors of a watch.

    Parameters
    ----------
    observatory : Observatory
        For the sources and the site.
    cameras : mapping of str to Camera
        By the name that sources use.
    nights : iterable of Night
        Nights asked for by name; none: whatever night it is, roll-over at local noon included.
    on_sighting : callable
        Called from the threads of the sensors.
    """

    def __init__(
        self,
        observatory: Observatory,
        cameras: Mapping[str, Camera],
        *,
        nights: Iterable[Night],
        on_sighting: SightingFunction,
        started_at: datetime,
    ) -> None:
        self._site = observatory.site
        self._sources = tuple((source, camera_of(source, cameras)) for source in observatory.sources)
        # files of streams and image builders: nobody watches for them, but checks are taken up after a restart
        layout = Layout(observatory.root)
        written = [stream_directory(stream, layout) for stream in observatory.streams]
        built = [stream_directory(builder, layout) for builder in observatory.builders]
        self._streamed = tuple((source, camera_of(source, cameras)) for source in written)
        self._streamed += tuple((source, built_camera(camera_of(source, cameras))) for source in built)
        self._nights = tuple(nights)
        self._on_sighting = on_sighting
        self._started_at = started_at
        self._sensors: dict[Place, FileSensor] = {}
        self._complaints: queue.SimpleQueue[tuple[Place, str]] = queue.SimpleQueue()
        self._errors: dict[Place, str] = {}

    @property
    def places(self) -> tuple[Place, ...]:
        """The directories that are watched now."""
        return tuple(self._sensors)

    def sync(self, now: datetime, *, more_nights: Iterable[Night] = ()) -> None:
        """Start the sensors that should run now, and stop those whose night is over.

        Parameters
        ----------
        now : datetime
            Aware.
        more_nights : iterable of Night
            Nights that somebody else opened and whose directories should be watched too, while they last.
        """
        wanted = set(self._wanted(now, more_nights))
        for place in wanted - set(self._sensors):
            self._start(place)
        for place in set(self._sensors) - wanted:
            _log.info("the night is over: %s is not watched any more", place.directory)
            self._sensors.pop(place).stop()
            self._errors.pop(place, None)

    def place_of(self, entry: Entry) -> Place | None:
        """Return the place that an entry's file lies in, watched now or on an earlier night; None: in no source."""
        for place in self._sensors:
            if place.camera.name == entry.camera and entry.path.is_relative_to(place.directory):
                return place
        for source, camera in (*self._sources, *self._streamed):
            directory = directory_of(source, camera, entry.night)
            if camera.name == entry.camera and entry.path.is_relative_to(directory):
                return Place(source, camera, directory, entry.night if "{night}" in source.directory else None)
        return None

    @property
    def caught_up(self) -> bool:
        """Whether every sensor has scanned its directory once, and nothing waits to settle."""
        return all(sensor.status.caught_up for sensor in self._sensors.values())

    def stop(self) -> None:
        """Stop all sensors, and wait for their threads for a moment."""
        for sensor in self._sensors.values():
            sensor.stop()
        for sensor in self._sensors.values():
            sensor.join(2.0)

    def states(self) -> list[dict[str, Any]]:
        """Describe each source, for the heartbeat."""
        found = []
        for place, sensor in self._sensors.items():
            status = sensor.status
            trouble = status.trouble
            if status.silent_s > _HANGS_S:
                trouble = f"its file system has not answered for {status.silent_s:.0f} s"
            found.append(_describe(place, status.state.value, trouble))
        return found + [_describe(place, "failed", error) for place, error in self._errors.items()]

    def complaints(self) -> list[tuple[Place, str]]:
        """Return what the sensors said since the last call beside the troubles that `states` tells."""
        found = []
        while not self._complaints.empty():
            place, text = self._complaints.get()
            sensor = self._sensors.get(place)
            if sensor is not None and sensor.status.trouble != text:
                found.append((place, text))
        return found

    def _wanted(self, now: datetime, more_nights: Iterable[Night]) -> Iterable[Place]:
        live = self._live(now, more_nights)
        for source, camera in self._sources:
            if "{night}" in source.directory:
                for night in live:
                    yield Place(source, camera, directory_of(source, camera, night), night)
            elif live or not self._nights:
                # a night that was asked for names what comes; where several are open, the headers tell
                named = live[0] if self._nights and len(live) == 1 else None
                yield Place(source, camera, directory_of(source, camera, night_of(now, self._site)), named)

    def _end(self, night: Night) -> datetime:
        """Return the noon at which a night's sensors stop: of a night gone by, the first after the watch began."""
        return max(night_span(night, self._site)[1], night_span(night_of(self._started_at, self._site), self._site)[1])

    def _live(self, now: datetime, more_nights: Iterable[Night]) -> list[Night]:
        asked = self._nights or (night_of(now, self._site),)
        return sorted(night for night in {*asked, *more_nights} if now < self._end(night))

    def _start(self, place: Place) -> None:
        from nightglass.sensors import FileSensor

        sensor = FileSensor(
            place.source,
            place.directory,
            on_sighting=partial(self._on_sighting, place),
            on_alarm=lambda text: self._complaints.put((place, text)),  # called from the sensor's threads
        )
        try:
            sensor.start()
        except OSError as error:
            # a file server that is down comes back: the next sync tries again
            if place not in self._errors:
                _log.exception("%s cannot be watched", place.directory)
            self._errors[place] = f"{type(error).__name__}: {error}"
            return
        self._errors.pop(place, None)
        self._sensors[place] = sensor
        _log.info("watching %s for camera %s", place.directory, place.camera.name)


def _describe(place: Place, state: str, trouble: str) -> dict[str, Any]:
    return {
        "camera": place.camera.name,
        "directory": str(place.directory),
        "night": place.night.label if place.night else "",
        "state": state,
        "error": trouble,
    }
