"""``nightglass apx convert`` and ``apx play``: files of AstroPix readouts."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from nightglass.streams.astropix import Decoded, Readout, RunSummary

__all__ = ["apx_app"]

_SHOWN_COLUMNS = ("chip_id", "row", "column", "ts_dec1", "ts_dec2", "tot_us")
_ROLE_STYLES = ("", "bright_black", "bright_black", "bold green", "green", "yellow", "magenta", "bold red")
"""By `ByteRole`."""

apx_app = typer.Typer(help="Files of AstroPix readouts.", no_args_is_help=True)

_Source = Annotated[Path, typer.Argument(help="FILE.apx, or a legacy FILE.log.", exists=True, dir_okay=False)]


@apx_app.command("convert")
def apx_convert(
    file: _Source,
    *,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="FILE.fits, .csv, .ecsv, .hdf5, .parquet, or .apx.", dir_okay=False)
    ],
    columns: Annotated[str | None, typer.Option(help="Columns of the table, separated by commas.")] = None,
) -> None:
    """Decode a run, and write its hits as a table; or its readouts as .apx."""
    from deployments.cli.screen import output as screen
    from nightglass.streams.tables import convert_run

    chosen = None if columns is None else [name for name in columns.replace(" ", "").split(",") if name]
    summary = convert_run(file, output, columns=chosen)
    console = screen()
    console.print(f"{summary.hits} hits in {summary.readouts} readouts -> {output}", markup=False)
    _tell(console, summary)
    # the table holds what could be read; a script has to know that this was not all
    raise typer.Exit(1 if summary.problems else 0)


@apx_app.command("play")
def apx_play(
    file: _Source,
    *,
    start: Annotated[int, typer.Option(help="Readouts to pass over.", min=0)] = 0,
    no_hits: Annotated[bool, typer.Option("--no-hits", help="Only the bytes.")] = False,
    sleep: Annotated[
        float | None, typer.Option(help="Seconds between readouts. (default: wait for Enter)", min=0)
    ] = None,
) -> None:
    """Show a run readout by readout: every byte in the colour of its role, and the hits.

    Enter goes on, q ends.
    """
    from deployments.cli.screen import output as screen
    from nightglass.streams.astropix import HitDecoder, RunSummary, read_run

    console, summary, decoder = screen(), RunSummary(), HitDecoder()
    _, pieces = read_run(file, summary)
    proceed = _proceed(sleep)
    shown = False
    for number, readout in enumerate(itertools.chain.from_iterable(pieces)):
        decoded = decoder.decode((readout,))
        if number < start:
            continue
        if shown and not proceed():
            return
        shown = True
        console.print(_title(number, readout, decoded), _bytes(readout, decoded), *([] if no_hits else _hits(decoded)))
    console.print("end of file" if shown else f"there are no readouts from number {start} on", style="bright_black")
    _tell(console, summary)
    raise typer.Exit(1 if summary.problems else 0)


def _proceed(sleep: float | None) -> Callable[[], bool]:
    """Return what waits between readouts, and tells whether to go on."""

    def proceed() -> bool:
        if sleep is not None:
            time.sleep(sleep)
            return True
        line = sys.stdin.readline()
        return line != "" and not line.strip().lower().startswith("q")

    return proceed


def _tell(console: Console, summary: RunSummary) -> None:
    losses = summary.losses
    for count, text in (
        (losses.lost, "readouts are missing, by their numbers"),
        (losses.duplicates, "readouts come twice"),
        (losses.late, "readouts come late"),
        (losses.restarts, "times the numbers begin anew"),
    ):
        if count:
            console.print(f"  {count} {text}", style="yellow")
    for name, count in sorted(summary.statuses.items()):
        console.print(f"  {count} readouts with {name.lower().replace('_', ' ')}", style="bright_black")
    for problem in summary.problems:
        console.print(f"! {problem}", style="bold red", markup=False)


def _title(number: int, readout: Readout, decoded: Decoded) -> RenderableType:
    from rich.text import Text

    from nightglass.streams.astropix import ReadoutStatus

    moment = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(readout.timestamp_ns // 1_000_000_000))
    fraction = f"{readout.timestamp_ns % 1_000_000_000:09d}"
    when = f"{moment}.{fraction}" if readout.timestamp_ns else "no time"
    status = " ".join(str(bit.name) for bit in ReadoutStatus(int(decoded.status[0]))) or "OK"
    return Text.assemble(
        (f"readout {number}", "bold"),
        f"  id {readout.readout_id}  {when}  {len(readout.data)} bytes  {len(decoded.hits)} hits  ",
        (status, "green" if status == "OK" else "yellow"),
    )


def _bytes(readout: Readout, decoded: Decoded) -> RenderableType:
    from rich.text import Text

    text = Text("  ")
    for value, role in zip(readout.data, decoded.roles.tolist(), strict=True):
        text.append(f"{value:02x}", _ROLE_STYLES[role])
    return text


def _hits(decoded: Decoded) -> list[RenderableType]:
    from deployments.cli.screen import add_row, table

    if not len(decoded.hits):
        return []
    made = table(*(f">{name}" for name in _SHOWN_COLUMNS))
    for hit in decoded.hits:
        add_row(made, *(f"{hit[name]:.2f}" if name == "tot_us" else str(hit[name]) for name in _SHOWN_COLUMNS))
    return [made]
