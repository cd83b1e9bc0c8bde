"""``nightglass serve``: the page of the night and live monitors on one port, image builders on another."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deployments.cli.monitor import MonitorWish, open_server, showing, token, until_told
from deployments.cli.registering import running_monitors
from deployments.cli.screen import output
from deployments.cli.session import Session, open_session
from deployments.cli.view import NightView, alive, as_json, latest_night, look
from deployments.logs import logging_to
from nightglass.errors import Misconfigured, NightglassError
from nightglass.monitor import LivePicture

if TYPE_CHECKING:
    from nightglass.watch.building import BuildingDesk

__all__ = ["NightPage", "serve_command"]

_KEEP_S = 1.0
_RECENT = 12


def serve_command(
    sources: Sequence[str], *, host: str, port: int, camera: str | None, config: Path | None, root: Path | None
) -> int:
    """Serve until interrupted; return the exit code."""
    from nightglass.web import Site, check_place

    check_place(host, token())
    session = open_session(config, root)
    console, page, run = output(), NightPage(session, camera), session.layout.run
    with logging_to(logging.StreamHandler(sys.stderr), level="WARNING"), until_told() as stop, ExitStack() as stack:
        monitors: dict[str, LivePicture] = {}
        for source in sources:
            live = stack.enter_context(showing(MonitorWish(source=source), session))
            if live.name in monitors:
                message = f"two monitors have the name {live.name!r}"
                raise Misconfigured(message, remedy="name the streams in the observatory file, each by its own name")
            monitors[live.name] = live
        site = Site(monitors=monitors, night=page, elsewhere=lambda: running_monitors(run), token=token())
        server = stack.enter_context(open_server(site, host, port))
        console.print(f"serving {server.url}/{'?token=...' if site.token else ''}   (Ctrl-C ends)", markup=False)
        desk, pulse = stack.enter_context(_building(session))
        if session.observatory.builders:
            console.print(_where(session, desk), markup=False)
        while not stop.wait(_KEEP_S):
            pulse("serving")
    return 0


def _where(session: Session, desk: BuildingDesk | None) -> str:
    """Return the line that says where the image builders are."""
    web = session.observatory.web
    if desk is None:
        return f"image builders: another process has them, at port {web.port}; nightglass status tells of it"
    if not desk.address:
        return (
            f"image builders: port {web.port} of {web.host} is taken; it is tried again ([web] port names another one)"
        )
    return f"image builders: {desk.address}/{'?token=...' if token() else ''}   (addresses: {desk.address}/v1/docs)"


@contextmanager
def _building(session: Session) -> Iterator[tuple[BuildingDesk | None, Callable[[str], None]]]:
    """Host the image builders of the observatory file while a block runs, and say how to have them looked after.

    None: there are none, or a watch has them.
    """
    from nightglass.config import load_camera
    from nightglass.watch.alarms import Alarms
    from nightglass.watch.building import BuildingDesk
    from nightglass.watch.heartbeat import Heartbeat, choose_path, write_heartbeat
    from nightglass.watch.instance import InstanceLock, lock_holder

    observatory, run = session.observatory, session.layout.run
    texts = {builder.camera for builder in observatory.builders}
    cameras = {text: load_camera(text, directories=observatory.camera_directories) for text in texts}
    names = sorted({camera.name for camera in cameras.values()})
    if not cameras or any(lock_holder(run, name) is not None for name in names):
        yield None, lambda _: None
        return
    with InstanceLock(run, names):
        alarms = Alarms(lambda *_: None)  # it is in the log, which is the terminal
        desk = BuildingDesk(observatory, cameras, layout=session.layout, alarms=alarms)
        path, started = choose_path(run, names), time.time()

        def pulse(phase: str) -> None:
            told = [{"subject": one.subject, "text": one.text, "since": one.since} for one in alarms.standing]
            beat = Heartbeat(
                pid=os.getpid(),
                at=time.time(),
                started=started,
                phase=phase,
                cameras=names,
                builders=desk.look(),
                alarms=told,
            )
            with suppress(OSError):  # a full disk ends no collecting
                write_heartbeat(path, beat)

        desk.start()
        try:
            yield desk, pulse
        finally:
            desk.stop()
            pulse("stopped")


class NightPage:
    """The newest night as plain values; asked for often, looked up once a second.

    Parameters
    ----------
    camera : str or None
        None: all cameras.
    """

    def __init__(self, session: Session, camera: str | None = None) -> None:
        self._session, self._camera = session, camera
        self._lock = threading.Lock()
        self._until = 0.0
        self._last: Mapping[str, Any] = {}

    def __call__(self) -> Mapping[str, Any]:
        """Return the night, or the reason why there is none to be seen."""
        with self._lock:
            if time.monotonic() >= self._until:
                self._last = self._look()
                self._until = time.monotonic() + _KEEP_S
            return self._last

    def _look(self) -> Mapping[str, Any]:
        try:
            with self._session.ledger() as ledger:
                night = latest_night(ledger, self._camera)
                if night is None:
                    return self._nothing("no exposure was seen yet")
                view = look(ledger, self._session.observatory, night, camera=self._camera, recent=_RECENT)
        except (NightglassError, OSError) as error:
            # no night was run yet, or the ledger is busy; the next look is near
            return self._nothing(str(error))
        return {**as_json(view), "recent": _recent(view)}

    def _nothing(self, reason: str) -> Mapping[str, Any]:
        beats = alive(self._session.layout.run)
        return {"night": None, "reason": reason, "watches": [{"builders": beat.builders} for beat in beats]}


def _recent(view: NightView) -> list[dict[str, Any]]:
    return [
        {
            "exposure": entry.exposure_id.rsplit("/", 1)[-1],
            "kind": entry.kind.value if entry.kind else "",
            "filter": entry.ref.filter if entry.ref else "",
            "latency_s": entry.latency_s,
            "quality": entry.quality.value if entry.quality else "",
            "age_s": max(0.0, view.at - entry.times.get("reduced", view.at)),
        }
        for entry in view.recent
    ]
