"""A sensor on a real directory, and all that it said."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from nightglass.config import Source
from nightglass.model import Sighting
from nightglass.sensors import FileSensor
from nightglass.simulate import hostile

CONTENT = hostile.tiny()
PATIENCE_S = 120.0
_NEVER_S = 3600.0
_SENTINEL = "the-last-of-all-"


class Watched:
    """A sensor on a directory and all that it said.

    Scans begin too late to find anything in time, unless a test asks for them: what is sighted was told by an event.
    """

    def __init__(self, directory: Path, **settings: object) -> None:
        options = {"settle_s": 0.15, "rescan_s": 0.2 if settings.get("polling") else _NEVER_S} | settings
        self.directory = directory
        self.sightings: list[Sighting] = []
        self.times: list[float] = []
        self.alarms: list[str] = []
        self.refuse: set[str] = set()
        self._sentinels: set[str] = set()
        source = Source.model_validate({"camera": "lynx", "directory": str(directory)} | options)
        self.sensor = FileSensor(source, directory, on_sighting=self._sight, on_alarm=self.alarms.append)

    def _sight(self, sighting: Sighting) -> None:
        if sighting.path.name in self.refuse:
            self.refuse.remove(sighting.path.name)
            message = "the ledger is locked"
            raise RuntimeError(message)
        if sighting.path.name.startswith(_SENTINEL):
            self._sentinels.add(sighting.path.name)
            return
        self.sightings.append(sighting)
        self.times.append(time.monotonic())

    @property
    def names(self) -> list[str]:
        return [str(item.path.relative_to(self.directory)) for item in self.sightings]

    def until(self, condition: Callable[[], bool], *, seconds: float = PATIENCE_S) -> None:
        ends_at = time.monotonic() + seconds
        while not condition() and time.monotonic() < ends_at:
            time.sleep(0.005)
        assert condition(), (self.names, self.alarms, self.sensor.status)

    def rest(self) -> None:
        """Wait until the sensor has seen all there is, and nothing more comes.

        Events come in order: once the sensor sighted a file that was written last, it has heard of all others.
        """
        self.until(lambda: self.sensor.status.caught_up)
        time.sleep(0.2)
        name = f"{_SENTINEL}{len(self._sentinels)}.fits"
        (self.directory / name).write_bytes(CONTENT)
        self.until(lambda: name in self._sentinels and self.sensor.status.caught_up)


Watch = Callable[..., Watched]
