"""The serve child: executes scheduled runs, and runs that people start, of all deployments.

It makes the deployments as it starts, then polls for their runs and gives each a process of its own. A worker of the
work pool may run beside it: Prefect lets only one of them take a run.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from pathlib import Path

from prefect.runner import Runner

from deployments.childlogs import speaking
from deployments.deploy import Schedules, build_deployments
from deployments.processes import on_end_of_input
from nightglass.config import Observatory
from nightglass.errors import NightglassError
from tasks.bench import find_observatory

__all__ = ["serve"]

_POLL_S = 1.0
_AT_ONCE = 4


async def serve(observatory: Observatory, *, configuration: Path | None = None) -> None:
    """Make the deployments and execute their runs, until cancelled.

    Schedules that a person set are kept; new ones come paused, because the watch that starts this child opens its
    nights itself.
    """
    # Prefect's default pauses all schedules at the end, which would silence a site's cron
    runner = Runner(name="nightglass", query_seconds=_POLL_S, limit=_AT_ONCE, pause_on_shutdown=False)
    for deployment in await build_deployments(observatory, configuration=configuration, schedules=Schedules.KEEP):
        await runner.aadd_deployment(deployment)
    await _run_until_sigterm(runner)


async def _run_until_sigterm(runner: Runner) -> None:
    serving = asyncio.create_task(runner.start())
    stop = asyncio.Event()
    await asyncio.sleep(0)  # it sets a handler of its own as it starts, which fails within a running loop
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if stop.is_set() and runner.started:
        await runner.astop()
    stopping.cancel()
    await asyncio.gather(serving, stopping, return_exceptions=stop.is_set())


def _main() -> int:
    on_end_of_input(sys.stdin, lambda: os.kill(os.getpid(), signal.SIGTERM))
    configuration = os.environ.get("NIGHTGLASS_CONFIG", "")
    try:
        with speaking():
            asyncio.run(serve(find_observatory(), configuration=Path(configuration) if configuration else None))
    except NightglassError as error:
        logging.getLogger(__name__).error("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_main())
