"""``nightglass record`` and ``nightglass replay``: their options; the work is in `record`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["recording_app"]

_STREAMS = "Streams"

recording_app = typer.Typer()


@recording_app.command(rich_help_panel=_STREAMS)
def record(
    source: Annotated[str, typer.Argument(help="protocol://host:port,host:port")],
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="New file.", dir_okay=False)],
    interface: Annotated[str, typer.Option(help="Network interface for groups. (default: loopback)")] = "",
    duration: Annotated[float, typer.Option(help="Seconds; 0: until Ctrl-C.", min=0)] = 0.0,
    limit_mib: Annotated[int, typer.Option(help="The file grows no larger; 0: no limit.", min=0)] = 0,
) -> None:
    """Record a stream as it comes, byte by byte."""
    from deployments.cli.record import record_command

    raise typer.Exit(record_command(source, output, interface=interface, duration_s=duration, limit_mib=limit_mib))


@recording_app.command(rich_help_panel=_STREAMS)
def replay(
    file: Annotated[Path, typer.Argument(help="A recording.", exists=True, dir_okay=False)],
    *,
    speed: Annotated[
        float, typer.Option(help="1 as it came, 10 ten times faster; 0: as fast as it goes.", min=0)
    ] = 1.0,
    endpoints: Annotated[str | None, typer.Option(help="host:port,... (default: the ports of the recording)")] = None,
    interface: Annotated[str, typer.Option(help="IPv4 address of the interface for groups.")] = "127.0.0.1",
) -> None:
    """Serve a recording the way it came: over TCP, or as datagrams."""
    from deployments.cli.record import replay_command

    raise typer.Exit(replay_command(file, speed=speed, endpoints=endpoints, interface=interface))
