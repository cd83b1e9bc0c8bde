"""``nightglass reduce``: one exposure or a few, now, in this process."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from deployments.cli.screen import STATE_STYLES, duration, output
from deployments.cli.session import Session, names_in, open_session
from deployments.logs import logging_to
from nightglass.config import Camera, load_camera
from nightglass.errors import NightglassError, Rejected
from nightglass.model import Kind, Night, ProductKind, State

if TYPE_CHECKING:
    from nightglass.ledger import Ledger
    from nightglass.pool import Pool

__all__ = ["reduce_command"]

_FEW = 3
"""Up to so many are reduced here; for more it pays to start workers."""


def reduce_command(
    files: Sequence[Path], *, camera: str, steps: str | None, night: str | None, config: Path | None, root: Path | None
) -> int:
    """Reduce files, print what became of them, and return 1 if one was not reduced."""
    overrides = {"reduction": {"realtime": names_in(steps)}}
    session = open_session(config, root, overrides)
    observatory = session.observatory
    chosen = load_camera(camera, directories=observatory.camera_directories)
    for name in observatory.reduction.realtime:
        chosen.step_list(name, Kind.SCIENCE)
    asked = Night(night) if night else None
    console = output()
    with ExitStack() as stack:
        stack.enter_context(logging_to(logging.StreamHandler(sys.stderr), level="WARNING"))
        pool = stack.enter_context(_pool(session, len(files)))
        from nightglass.ledger import Ledger

        observatory.root.mkdir(parents=True, exist_ok=True)
        ledger = stack.enter_context(Ledger.open(session.ledger_address))
        with console.status("reducing..."), ThreadPoolExecutor(max(1, len(pool.workers()))) as threads:
            work = _Work(session, ledger, pool, chosen, asked)
            rows = list(threads.map(work, files))
    _print(rows, console)
    return 0 if all(row.state is State.REDUCED for row in rows) else 1


def _pool(session: Session, files: int) -> Pool:
    from nightglass.cluster import SerialPool, connect

    if files <= _FEW and not session.observatory.cluster.address:
        return SerialPool()
    return connect(session.observatory.cluster, layout=session.layout)


@dataclass(frozen=True, slots=True)
class _Row:
    """What became of one file."""

    path: Path
    state: State
    exposure_id: str = ""
    text: str = ""
    seconds: float = 0.0
    products: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class _Work:
    """Reduces one file after the other."""

    session: Session
    ledger: Ledger
    pool: Pool
    camera: Camera
    night: Night | None

    def __call__(self, path: Path) -> _Row:
        try:
            return self._reduce(path)
        except Rejected as error:
            return _Row(path, State.REJECTED, text=str(error))
        except NightglassError as error:
            return _Row(path, State.FAILED, text=str(error))

    def _reduce(self, path: Path) -> _Row:
        from nightglass.byhand import claim_exposures, take_in
        from nightglass.reduction import run_group
        from nightglass.watch.owners import Owner

        observatory = self.session.observatory
        entry = take_in(path, self.camera, ledger=self.ledger, observatory=observatory, night=self.night)
        owner = str(Owner.here("reduce"))
        (job,) = claim_exposures([entry], ledger=self.ledger, observatory=observatory, owner=owner)
        outcome = run_group(job, ledger=self.ledger, pool=self.pool, observatory=observatory, camera=self.camera)
        (member,) = outcome.members
        products = self.ledger.products_of(member.exposure_id)
        return _Row(
            path,
            member.state or State.FAILED,
            exposure_id=member.exposure_id,
            text=member.error or "; ".join(member.notes),
            seconds=outcome.seconds,
            products=tuple((_SHOWN[item.kind], str(item.path)) for item in products if item.kind in _SHOWN),
        )


_SHOWN = {ProductKind.REDUCED: "product", ProductKind.QUICKLOOK: "quick look"}


def _print(rows: Sequence[_Row], console: Console) -> None:
    for row in rows:
        text = Text.assemble(
            (row.exposure_id or str(row.path), "bold"), "  ", (row.state.value, STATE_STYLES[row.state])
        )
        console.print(text.append(f" in {duration(row.seconds)}" if row.state is State.REDUCED else ""), soft_wrap=True)
        for name, path in row.products:
            console.print(Text.assemble((f"  {name:<11}", "bright_black"), path), soft_wrap=True)
        for note in row.text.split("; "):
            if note:
                console.print(Text(f"  {note}", "bright_black" if row.state is State.REDUCED else ""), soft_wrap=True)
