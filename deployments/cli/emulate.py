"""``nightglass emulate``: senders with faults, to try receivers and nights with."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections import Counter


__all__ = ["emulate_app"]

_FAULTS = "Faults (share of messages, 0 to 1)"

emulate_app = typer.Typer(help="Send streams or files, with faults.", no_args_is_help=True)


def _rate(text: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(help=text, min=0, max=1, rich_help_panel=_FAULTS)
    return option


_Late = Annotated[float, _rate("Sent after later ones.")]
_Missing = Annotated[float, _rate("Not sent.")]
_Duplicate = Annotated[float, _rate("Sent twice.")]
_Corrupt = Annotated[float, _rate("With flipped bits.")]
_Torn = Annotated[float, _rate("Only the first part is sent.")]
_Stalled = Annotated[float, _rate("Sent after a silence.")]
_Dribbled = Annotated[float, _rate("Sent in pieces.")]
_Disconnected = Annotated[float, _rate("The connection closes inside of it.")]
_StallS = Annotated[float, typer.Option("--stall-s", help="Length of a silence.", min=0, rich_help_panel=_FAULTS)]
_Seed = Annotated[int, typer.Option(help="The same seed, the same faults.")]
_Host = Annotated[str, typer.Option(help="Address to serve at.")]


@emulate_app.command("aartfaac")
def emulate_aartfaac(
    *,
    image: Annotated[
        Path | None, typer.Option(help="FITS image to send. (default: a made-up sky)", exists=True)
    ] = None,
    host: _Host = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Of the first sub-band; the others follow.")] = 6666,
    bands: Annotated[int, typer.Option(help="Sub-bands.", min=1, max=6)] = 6,
    period: Annotated[float, typer.Option(help="Seconds from step to step.", min=0)] = 1.0,
    size: Annotated[int, typer.Option(help="Width and height of a made-up sky.", min=16, max=8192)] = 1024,
    steps: Annotated[int, typer.Option(help="End each connection after so many. (default: never)", min=0)] = 0,
    late: _Late = 0.0,
    missing: _Missing = 0.0,
    duplicate: _Duplicate = 0.0,
    corrupt: _Corrupt = 0.0,
    torn: _Torn = 0.0,
    stalled: _Stalled = 0.0,
    dribbled: _Dribbled = 0.0,
    disconnected: _Disconnected = 0.0,
    stall_s: _StallS = 1.0,
    seed: _Seed = 1,
) -> None:
    """Serve windows of a radio sky, one port for each sub-band. Ctrl-C ends."""
    from nightglass.simulate.emulator import StreamEmulator
    from nightglass.simulate.faults import FaultPlan
    from nightglass.simulate.streams import SkyBands, read_plane, synthetic_sky

    pixels, cards = read_plane(image) if image else (synthetic_sky((size, size), seed=seed), {})
    wires = SkyBands(pixels, cards=cards, period_s=period or 1.0, seed=None if image else seed)
    plan = FaultPlan(
        late=late,
        missing=missing,
        duplicate=duplicate,
        corrupt=corrupt,
        torn=torn,
        stalled=stalled,
        dribbled=dribbled,
        disconnected=disconnected,
        stall_s=stall_s,
        seed=seed,
    )
    ports = range(port, port + bands)
    with StreamEmulator(host, ports, wires, period_s=period, plan=plan, steps=steps) as emulator:
        _say(f"{pixels.shape[1]} x {pixels.shape[0]} pixels every {period:g} s at {host}:{ports[0]}-{ports[-1]}")
        try:
            emulator.wait()
        except KeyboardInterrupt:
            emulator.stop()
        _tell(emulator.counts)


@emulate_app.command("astropix")
def emulate_astropix(
    *,
    file: Annotated[Path | None, typer.Option(help="FILE.apx to send. (default: made-up hits)", exists=True)] = None,
    group: Annotated[str, typer.Option(help="Host or group to send to.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="UDP port.", min=1, max=65535)] = 5007,
    interface: Annotated[str, typer.Option(help="IPv4 address of the interface for groups.")] = "127.0.0.1",
    rate: Annotated[float, typer.Option(help="Readouts a second; 0: as fast as it goes.", min=0)] = 100.0,
    hits: Annotated[float, typer.Option(help="Mean number of made-up hits in a readout.", min=0, max=400)] = 3.0,
    count: Annotated[int, typer.Option(help="Made-up readouts, or rounds of the file; 0: no end.", min=0)] = 0,
    late: _Late = 0.0,
    missing: _Missing = 0.0,
    duplicate: _Duplicate = 0.0,
    corrupt: _Corrupt = 0.0,
    torn: _Torn = 0.0,
    stalled: _Stalled = 0.0,
    stall_s: _StallS = 1.0,
    seed: _Seed = 1,
) -> None:
    """Send readouts as datagrams. Ctrl-C ends."""
    from nightglass.simulate.emulator import DatagramEmulator
    from nightglass.simulate.faults import FaultPlan
    from nightglass.simulate.streams import run_readouts, synthetic_readouts

    plan = FaultPlan(
        late=late,
        missing=missing,
        duplicate=duplicate,
        corrupt=corrupt,
        torn=torn,
        stalled=stalled,
        stall_s=stall_s,
        seed=seed,
    )
    emulator = DatagramEmulator(group, port, interface=interface, rate_hz=rate, plan=plan)
    made = synthetic_readouts(count=count, rate_hz=rate or 1e4, hits=hits, seed=seed)
    _say(f"{file or 'made-up hits'} to {group}:{port}")
    try:
        emulator.run(run_readouts(file, loops=count) if file else made)
    except KeyboardInterrupt:
        emulator.stop()
    _tell(emulator.counts)


@emulate_app.command("directory")
def emulate_directory(
    source: Annotated[Path, typer.Argument(help="Directory with files to copy.", exists=True, file_okay=False)],
    target: Annotated[Path, typer.Argument(help="Watched directory to write to.", file_okay=False)],
    *,
    period: Annotated[float, typer.Option(help="Seconds from file to file.", min=0)] = 1.0,
    late: _Late = 0.0,
    missing: _Missing = 0.0,
    duplicate: _Duplicate = 0.0,
    corrupt: _Corrupt = 0.0,
    torn: _Torn = 0.0,
    stalled: _Stalled = 0.0,
    stall_s: _StallS = 1.0,
    seed: _Seed = 1,
) -> None:
    """Write files into a directory as a camera would, in the order of their names. Ctrl-C ends."""
    from nightglass.simulate.directory import write_directory
    from nightglass.simulate.faults import FaultPlan

    plan = FaultPlan(
        late=late,
        missing=missing,
        duplicate=duplicate,
        corrupt=corrupt,
        torn=torn,
        stalled=stalled,
        stall_s=stall_s,
        seed=seed,
    )
    _tell(write_directory(source, target, period_s=period, plan=plan, stopping=threading.Event()))


def _say(text: str) -> None:
    from deployments.cli.screen import output

    output().print(text, markup=False, highlight=False)


def _tell(counts: Counter[str]) -> None:
    _say("  ".join(f"{name} {count}" for name, count in sorted(counts.items()) if count) or "nothing was sent")
