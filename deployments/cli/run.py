"""``nightglass run``: a watch with its cluster, its Prefect children and its screen."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from deployments.cli.closing import closing
from deployments.cli.live import LiveNight, ScreenHandler, newest_night
from deployments.cli.places import remember_sources
from deployments.cli.request import Plan, RunRequest, make_plan
from deployments.cli.screen import night_screen, output
from deployments.cli.session import tonight
from deployments.cli.view import look
from deployments.logs import NightFiles, logging_to, night_paths
from nightglass.errors import Misconfigured
from nightglass.watch.instance import lock_holder

if TYPE_CHECKING:
    from deployments.runner_executor import PrefectExecutor
    from nightglass.ledger import Ledger
    from nightglass.model import Night
    from nightglass.pool import Pool
    from nightglass.watch.loop import Watch

__all__ = ["RunRequest", "Watched", "logs_of", "run_command", "watching"]

log = logging.getLogger(__name__)


def run_command(request: RunRequest, *, config: Path | None, root: Path | None) -> int:
    """Run a night as it was asked for; return the exit code."""
    plan = make_plan(request, config=config, root=root)
    console = output()
    _make_root(plan.observatory.root)
    with logs_of(plan, console), ExitStack() as stack:
        with console.status("starting Dask workers..."):
            watched = stack.enter_context(watching(plan))
        with _screen(plan, watched.ledger, console) if console.is_terminal else nullcontext():
            result = watched.watch.run()
        shown = _shown_night(plan, watched.ledger)
        views = [
            look(watched.ledger, plan.observatory, night, camera=_only_camera(plan), recent=0)
            for night in (result.nights or (shown,) if request.once else (shown,))
        ]
        for view in views:
            if request.once:
                console.print(closing(view, plan.session.layout))
            elif console.is_terminal:
                console.print(night_screen(view, width=console.width))
    return int(request.once and bool(result.failed or result.stages_failed))


@contextmanager
def logs_of(plan: Plan, console: Console, *, terminal_level: str = "DEBUG") -> Iterator[None]:
    """Send log lines to the file of the night, and to the terminal: all of them, or beside a screen the warnings.

    Parameters
    ----------
    terminal_level : str
        Lines below stay off the terminal.
    """
    observatory = plan.observatory
    terminal = ScreenHandler(console) if console.is_terminal else logging.StreamHandler(sys.stderr)
    levels = logging.getLevelNamesMapping()
    terminal.setLevel(max(levels[terminal_level], logging.WARNING if console.is_terminal else logging.NOTSET))
    files = NightFiles(_log_paths(plan))
    with logging_to(terminal, files, level=observatory.log_level):
        yield


def _log_paths(plan: Plan) -> Callable[[], tuple[Path, ...]]:
    """Return a function that names the log files of now; a replay of old nights writes to theirs."""
    if plan.nights or not plan.request.once:
        return night_paths(plan.observatory, plan.camera_names, plan.nights[0] if plan.nights else None)

    def opened() -> tuple[Path, ...]:
        if not plan.session.layout.ledger.exists() and not plan.observatory.ledger_url:
            return ()
        with plan.session.ledger() as ledger:
            known = [record for camera in plan.camera_names for record in ledger.open_nights(camera)]
        return tuple(plan.session.layout.log(record.camera, record.night) for record in known)

    return opened


@dataclass(frozen=True, slots=True)
class Watched:
    """A watch that can run, and what it works with."""

    watch: Watch
    ledger: Ledger
    executor: PrefectExecutor | None


@contextmanager
def watching(plan: Plan) -> Iterator[Watched]:
    """Open ledger and cluster, make the watch of a plan, and close everything at the end."""
    from nightglass.cluster import start
    from nightglass.ledger import Ledger
    from nightglass.watch.loop import Watch

    observatory, session = plan.observatory, plan.session
    remember_sources(observatory)
    for camera in plan.camera_names:
        if holder := lock_holder(session.layout.run, camera):
            message = f"camera {camera} is watched under {observatory.root} already, by process {holder}"
            raise Misconfigured(message, remedy=f"stop it with: kill {holder}; or choose another --root")
    with Ledger.open(session.ledger_address) as ledger, start(observatory.cluster, layout=session.layout) as pool:
        executor = _executor(plan, pool) if plan.request.prefect else None
        watch = Watch(observatory, plan.cameras, ledger, pool, executor, nights=plan.nights, once=plan.request.once)
        yield Watched(watch, ledger, executor)


def _executor(plan: Plan, pool: Pool) -> PrefectExecutor:
    from deployments.runner_executor import PrefectExecutor

    return PrefectExecutor(plan.observatory, configuration=plan.session.configuration, cluster_address=pool.address)


def _make_root(root: Path) -> None:
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"the root {root} can't be made: {error.strerror}"
        raise Misconfigured(message, remedy="choose another place by --root") from error


def _screen(plan: Plan, ledger: Ledger, console: Console) -> LiveNight:
    return LiveNight(
        console, ledger, plan.observatory, night=lambda: _shown_night(plan, ledger), camera=_only_camera(plan)
    )


def _only_camera(plan: Plan) -> str | None:
    return plan.camera_names[0] if len(plan.camera_names) == 1 else None


def _shown_night(plan: Plan, ledger: Ledger) -> Night:
    if plan.nights:
        return plan.nights[0]
    return newest_night(ledger, _only_camera(plan)) or tonight(plan.observatory)
