"""The image builders of a watch: hosted behind one port, their frames sighted, their exposures told of."""

from __future__ import annotations

import logging
import os
import queue
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nightglass.errors import Misconfigured, NightglassError
from nightglass.model import Night, Sighting
from nightglass.watch.accounting import Accountant
from nightglass.watch.sources import Place, built_camera, stream_directory

if TYPE_CHECKING:
    from nightglass.builder.cubeaccounts import CubeAccount
    from nightglass.builder.records import FrameView
    from nightglass.builder.service import Builder
    from nightglass.config import BuilderSource, Camera, Observatory
    from nightglass.layout import Layout
    from nightglass.ledger import Ledger
    from nightglass.model import ExposureRef, Kind, MasterRef
    from nightglass.pool import Pool
    from nightglass.watch.alarms import Alarms
    from nightglass.watch.sources import SightingFunction
    from nightglass.watch.telling import Teller
    from nightglass.web import WebServer

__all__ = ["BuildingDesk", "open_builder"]

_log = logging.getLogger(__name__)

_RETRY_S = 5.0
"""Between two attempts to get the port."""


class BuildingDesk:
    """Runs the image builders of an observatory, and the server in front of them.

    `start`, `stop` and `look` are called from the one thread of the watch.

    Parameters
    ----------
    cameras : mapping of str to Camera
        By the names that builders use, or by their own.
    pool, ledger : Pool, Ledger, optional
        Who makes cubes, and who knows the masters.
    on_sighting : callable, optional
        Told each frame that was published, from threads of the builders; without it none is.
    teller : Teller, optional
        Tells Prefect of exposures and cubes.

    Raises
    ------
    Misconfigured
        If a builder asks for a camera that was not given, its options do not fit, or there is no token where other
        machines reach the server.
    """

    def __init__(
        self,
        observatory: Observatory,
        cameras: Mapping[str, Camera],
        *,
        layout: Layout,
        alarms: Alarms,
        pool: Pool | None = None,
        ledger: Ledger | None = None,
        on_sighting: SightingFunction | None = None,
        teller: Teller | None = None,
    ) -> None:
        self._observatory = observatory
        self._layout = layout
        self._alarms = alarms
        self._complaints: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()
        self._places: dict[tuple[str, Night], Place] = {}
        self._life = ExitStack()
        self._server: WebServer | None = None
        self._next_attempt = 0.0
        self._sources = {source.name: source for source in observatory.builders}
        self._cameras = {source.name: _camera(source, cameras) for source in observatory.builders}
        self.builders: dict[str, Builder] = {}
        self._accountant = Accountant(
            self.builders,
            {name: camera.name for name, camera in self._cameras.items()},
            layout=layout,
            teller=teller,
            complain=lambda name, text: self._complaints.put((name, text)),
            give_up=partial(_give_up, observatory, ledger) if ledger is not None else lambda _: None,
        )
        for source in observatory.builders:
            self.builders[source.name] = open_builder(
                source,
                self._cameras[source.name],
                observatory,
                pool=pool,
                ledger=ledger,
                on_frame=partial(self._sight, source.name, on_sighting) if on_sighting is not None else None,
                on_alarm=lambda text, name=source.name: self._complaints.put((name, text)),  # type: ignore[misc]
                on_cube=self._accountant.take_cube,
            )
        if self.builders:
            from nightglass.web import check_place  # heavy; only where there is something to serve

            check_place(observatory.web.host, _token())

    def __len__(self) -> int:
        """Return the number of builders."""
        return len(self.builders)

    @property
    def places(self) -> tuple[Place, ...]:
        """The directories that frames are published in."""
        return tuple(self._places.values())

    @property
    def address(self) -> str:
        """Where the builders are reached; empty while they are not."""
        return self._server.url if self._server is not None else ""

    def start(self) -> None:
        """Take up what was begun, and open the port."""
        for builder in self.builders.values():
            self._life.enter_context(builder)
        self._accountant.start()
        if self.builders:
            self._serve(time.monotonic())

    def stop(self) -> None:
        """Close the port, then the builders; what was acknowledged is on the disk."""
        self._life.close()
        self._server = None
        self._accountant.look()

    def look(self) -> list[dict[str, Any]]:
        """Raise and clear alarms, tell of exposures that are over, and describe each builder for the heartbeat."""
        now = time.monotonic()
        if self.builders and self._server is None and now >= self._next_attempt:
            self._serve(now)
        self._accountant.look()
        while not self._complaints.empty():
            name, text = self._complaints.get()
            text = text.removeprefix(f"image builder {name}: ")
            self._alarms.raise_(f"builder/{name}", f"Trouble with image builder {name}", text)
            self._alarms.clear(f"builder/{name}")  # an event, not a state
        return [self._describe(name, builder) for name, builder in self.builders.items()]

    def _serve(self, now: float) -> None:
        from nightglass.web import Site, WebServer

        web = self._observatory.web
        self._next_attempt = now + _RETRY_S
        try:
            server = WebServer(Site(builders=self.builders, token=_token()), host=web.host, port=web.port)
        except NightglassError as error:
            self._alarms.raise_("builders/port", "Image builders cannot be reached", str(error))
            return
        self._server = self._life.enter_context(server)
        self._alarms.clear("builders/port")
        _log.info("image builders %s are served at %s", ", ".join(self.builders), self._server.url)

    def _sight(self, name: str, tell: SightingFunction, path: Path, frame: FrameView) -> None:  # noqa: ARG002 - as called
        sighting = Sighting.of(path, path.stat(), datetime.now(UTC))
        tell(self._place(name, Night(path.parent.parent.parent.name)), sighting)

    def _place(self, name: str, night: Night) -> Place:
        camera = built_camera(self._cameras[name])
        directory = self._layout.received(camera.name, night, name)
        files = stream_directory(self._sources[name], self._layout)
        return self._places.setdefault((name, night), Place(files, camera, directory, night))

    def _describe(self, name: str, builder: Builder) -> dict[str, Any]:
        exposures = builder.exposures()
        return {
            "name": name,
            "camera": self._cameras[name].name,
            "role": builder.options.role,
            "address": self.address,
            "exposures": len(exposures),
            "frames": sum(len(view.frames) for view in exposures),
            "unsaved": sum(len(view.frames) - len(view.saved) for view in exposures),
            "held_bytes": builder.spool.held,
            "last": exposures[-1].expid if exposures else None,
        }


def open_builder(
    source: BuilderSource,
    camera: Camera,
    observatory: Observatory,
    *,
    pool: Pool | None = None,
    ledger: Ledger | None = None,
    on_frame: Callable[[Path, FrameView], None] | None = None,
    on_alarm: Callable[[str], None] | None = None,
    on_cube: Callable[[CubeAccount], None] | None = None,
) -> Builder:
    """Return the image builder of a section of the observatory file; nothing is started.

    Parameters
    ----------
    ledger : Ledger, optional
        Knows the masters for ``dark_subtract``, and is told of cubes, which are written one at a time.

    Raises
    ------
    Misconfigured
        If its options do not fit.
    """
    from nightglass.archive import BuiltCubes
    from nightglass.builder.delivering import CameraOutputs
    from nightglass.builder.presets import options_of
    from nightglass.builder.service import Builder
    from nightglass.layout import Layout

    options, layout = options_of(source), Layout(observatory.root)

    outputs = CameraOutputs(
        source.name,
        options,
        layout=layout,
        camera=camera,
        site=observatory.site,
        pool=pool,
        cubes=BuiltCubes(source.name, camera.name, ledger=ledger, rules=observatory.archive) if ledger else None,
        masters=partial(_masters, camera, ledger) if ledger else None,
        limits=observatory.limits,
        on_alarm=on_alarm,
    )
    return Builder(
        source.name,
        options,
        layout=layout,
        camera=camera,
        site=observatory.site,
        outputs=outputs,
        on_frame=on_frame,
        on_alarm=on_alarm,
        on_cube=on_cube,
    )


def _give_up(observatory: Observatory, ledger: Ledger, account: CubeAccount) -> None:
    from nightglass.archive import BuiltCubes

    cubes = BuiltCubes(account.builder, account.camera, ledger=ledger, rules=observatory.archive)
    cubes.give_up(Night(account.night), account.expid, account.error)


def _masters(camera: Camera, ledger: Ledger, ref: ExposureRef) -> Mapping[Kind, MasterRef]:
    from nightglass.calibrations.choose import choose_masters

    return choose_masters(ref, camera, ledger, night=ref.night)


def _camera(source: BuilderSource, cameras: Mapping[str, Camera]) -> Camera:
    camera = cameras.get(source.camera) or {each.name: each for each in cameras.values()}.get(source.camera)
    if camera is None:
        message = f"image builder {source.name} asks for camera {source.camera!r}, which was not loaded"
        raise Misconfigured(message, remedy=f"loaded: {', '.join(sorted(cameras)) or 'none'}")
    return camera


def _token() -> str:
    return os.environ.get("NIGHTGLASS_TOKEN", "")
