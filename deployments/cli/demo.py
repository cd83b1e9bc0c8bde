"""``nightglass demo``: a night in two minutes."""

from __future__ import annotations

import os
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from deployments.cli.closing import closing
from deployments.cli.live import LiveNight
from deployments.cli.request import Plan, RunRequest
from deployments.cli.run import logs_of, watching
from deployments.cli.screen import night_screen, output
from deployments.cli.session import Session
from deployments.cli.view import NightView, look, prefect_ui
from deployments.demonstration import CAMERA, Director, Phase, demo_observatory, demo_plan
from nightglass.config import load_camera

if TYPE_CHECKING:
    from nightglass.ledger import Ledger

__all__ = ["demo_command"]


def demo_command(directory: Path | None, *, seed: int, workers: int) -> int:
    """Simulate a night, run it, print what came of it; return 1 if it did not come to its end."""
    place = (directory or Path(tempfile.mkdtemp(prefix="nightglass-demo-"))).absolute()
    raw, root = place / "raw", place / "root"
    for path in (raw, root):
        path.mkdir(parents=True, exist_ok=True)
    # a server of the user's is not the place for a demonstration
    for name in [name for name in os.environ if name.startswith(("PREFECT_", "NIGHTGLASS_"))]:
        del os.environ[name]
    observatory = demo_observatory(root, raw, workers=workers)
    simulated = demo_plan(observatory)
    plan = Plan(
        session=Session(observatory, None),
        cameras={CAMERA: load_camera(CAMERA)},
        nights=(simulated.night,),
        request=RunRequest(),
    )
    console, started = output(), time.monotonic()
    console.print(Text.assemble("A simulated night of the camera ", (CAMERA, "bold"), f", kept in {place}"))
    with logs_of(plan, console, terminal_level="ERROR"), ExitStack() as stack:
        watched = stack.enter_context(watching(plan))
        director = Director(
            simulated,
            raw,
            watched.ledger,
            seed=seed,
            ready=lambda: watched.executor is not None and watched.executor.healthy,
            over=watched.watch.stop,
            tell=lambda phase: _tell(console, phase, started, prefect_ui(observatory)),
        )
        if console.is_terminal:
            stack.enter_context(_screen(plan, director, watched.ledger, console))
        stack.callback(director.stop)
        director.start()
        watched.watch.run()
        director.join(timeout=2.0)  # the watch may see the end of the night a moment earlier
        view = look(watched.ledger, observatory, simulated.night, camera=CAMERA, recent=0)
    console.print(closing(view, plan.session.layout))
    if director.phase is not Phase.OVER:
        console.print(Text(f"the demonstration ended early, at: {director.phase.value}. {director.error}", "bold red"))
        return 1
    return 0


def _tell(console: Console, phase: Phase, started: float, ui: str) -> None:
    console.print(Text.assemble((f"{time.monotonic() - started:5.0f} s  ", "bright_black"), phase.value))
    if phase is Phase.CALIBRATIONS and ui:
        console.print(Text.assemble("         Prefect is at ", (ui, f"link {ui} underline"), " while this runs"))


def _screen(plan: Plan, director: Director, ledger: Ledger, console: Console) -> LiveNight:
    def frame(view: NightView, width: int) -> RenderableType:
        return Group(_progress(director), night_screen(view, width=width))

    return LiveNight(console, ledger, plan.observatory, night=lambda: director.night, camera=CAMERA, frame=frame)


def _progress(director: Director) -> Table:
    grid = Table.grid(padding=(0, 1))
    bar = ProgressBar(total=max(director.planned, 1), completed=director.written, width=48)
    grid.add_row(bar, f"{director.written} of {director.planned} files written")
    return grid
