"""Which directories are watched now: one sensor a source, and one a night where the directory names it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nightglass.errors import Misconfigured
from nightglass.model import Night, Sighting
from nightglass.nights import night_of, night_span

if TYPE_CHECKING:
    from nightglass.config import Camera, Observatory, Source
    from nightglass.sensors import FileSensor

__all__ = ["Place", "Sources", "directory_of"]

_log = logging.getLogger(__name__)

SightingFunction = Callable[["Place", Sighting], None]


@dataclass(frozen=True, slots=True)
class Place:
    """A directory that is watched for a camera.

    Attributes
    ----------
    night : Night or None
        The night that all its exposures belong to; None: the headers tell.
    """

    source: Source
    camera: Camera
    directory: Path
    night: Night | None


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
        self._nights = tuple(nights)
        self._on_sighting = on_sighting
        self._started_at = started_at
        self._sensors: dict[Place, FileSensor] = {}
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

    def stop(self) -> None:
        """Stop all sensors, and wait for their threads for a moment."""
        for sensor in self._sensors.values():
            sensor.stop()
        for sensor in self._sensors.values():
            sensor.join(2.0)

    def states(self) -> list[dict[str, Any]]:
        """Describe each source, for the heartbeat."""
        return [
            {
                "camera": place.camera.name,
                "directory": str(place.directory),
                "night": place.night.label if place.night else "",
                "state": "failed" if place in self._errors else "watching",
                "error": self._errors.get(place, ""),
            }
            for place in {**self._sensors, **dict.fromkeys(self._errors)}
        ]

    def errors(self) -> Mapping[Place, str]:
        """Return the places that could not be watched at the last attempt, and why."""
        return dict(self._errors)

    def _wanted(self, now: datetime, more_nights: Iterable[Night]) -> Iterable[Place]:
        tonight = night_of(now, self._site)
        for source, camera in self._sources:
            if "{night}" in source.directory:
                asked = self._nights or (tonight,)
                live = {night for night in (*asked, *more_nights) if now < self._end(night)}
                for night in sorted(live):
                    yield Place(source, camera, directory_of(source, camera, night), night)
            elif not self._nights or any(now < self._end(night) for night in self._nights):
                named = self._nights[0] if len(self._nights) == 1 else None
                yield Place(source, camera, directory_of(source, camera, named or tonight), named)

    def _end(self, night: Night) -> datetime:
        """Return the noon at which a night's sensors stop: of a night gone by, the first after the watch began."""
        return max(night_span(night, self._site)[1], night_span(night_of(self._started_at, self._site), self._site)[1])

    def _start(self, place: Place) -> None:
        from nightglass.sensors import FileSensor

        sensor = FileSensor(
            place.source, place.directory, on_sighting=lambda sighting: self._on_sighting(place, sighting)
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
