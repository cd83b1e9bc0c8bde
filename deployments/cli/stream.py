"""``nightglass stream``: a watch that receives one stream named on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deployments.cli.options import Config, Root

if TYPE_CHECKING:
    from nightglass.config import StreamSource

__all__ = ["named_stream", "stream_app"]

stream_app = typer.Typer(help="Receive a stream, and reduce what it brings.", no_args_is_help=True)

_Name = Annotated[str | None, typer.Option("--name", help="What status calls the stream. (default: its protocol)")]
_Workers = Annotated[int | None, typer.Option(help="Processes of the local Dask cluster.", min=1)]
_NoPrefect = Annotated[bool, typer.Option("--no-prefect", help="Without any Prefect server.")]
_Overflow = Annotated[str, typer.Option(help="Full backlog: block, spill, drop_oldest or drop_newest.")]
_Backlog = Annotated[int | None, typer.Option("--backlog-mib", help="Messages that wait in memory.", min=1)]
_LogLevel = Annotated[str | None, typer.Option(help="DEBUG, INFO, WARNING or ERROR.")]


@stream_app.command("aartfaac")
def stream_aartfaac(
    endpoints: Annotated[list[str], typer.Argument(metavar="HOST:PORT...", help="The sender of each sub-band.")],
    *,
    camera: Annotated[str, typer.Option(help="Name of a camera, or the path of its TOML file.")] = "aartfaac",
    name: _Name = None,
    members: Annotated[int | None, typer.Option(help="Sub-bands of a time step. (default: one an endpoint)")] = None,
    tolerance: Annotated[float | None, typer.Option(help="Seconds by which time stamps may differ.", min=0)] = None,
    wait: Annotated[float | None, typer.Option(help="Seconds that a time step waits for its members.")] = None,
    idle_timeout: Annotated[float | None, typer.Option(help="Silence in s before a new connection; 0: never.")] = None,
    pixel_order: Annotated[str, typer.Option(help="aartfaac (column by column) or C (row by row).")] = "aartfaac",
    overflow: _Overflow = "spill",
    backlog_mib: _Backlog = None,
    workers: _Workers = None,
    no_prefect: _NoPrefect = False,
    log_level: _LogLevel = None,
    config: Config = None,
    root: Root = None,
) -> None:
    """Connect to AARTFAAC senders, group sub-bands by time, and reduce each time step.

    nightglass stream aartfaac host:6666 host:6667 --camera aartfaac
    """
    stream = named_stream(
        "aartfaac",
        endpoints,
        camera=camera,
        name=name,
        members=members,
        tolerance_s=tolerance,
        wait_s=wait,
        idle_timeout_s=idle_timeout,
        pixel_order=pixel_order,
        overflow=overflow,
        backlog_mib=backlog_mib,
    )
    _run(stream, workers=workers, no_prefect=no_prefect, log_level=log_level, config=config, root=root)


@stream_app.command("astropix")
def stream_astropix(
    *,
    group: Annotated[str, typer.Option(help="Multicast group, or address of this host.")] = "239.1.1.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 5007,
    interface: Annotated[str | None, typer.Option(help="Network interface, by address or name.")] = None,
    camera: Annotated[str, typer.Option(help="Name of a camera, or the path of its TOML file.")] = "astropix",
    name: _Name = None,
    slice_s: Annotated[float | None, typer.Option("--slice", help="Seconds in one event file.")] = None,
    overflow: _Overflow = "spill",
    backlog_mib: _Backlog = None,
    workers: _Workers = None,
    no_prefect: _NoPrefect = False,
    log_level: _LogLevel = None,
    config: Config = None,
    root: Root = None,
) -> None:
    """Listen for AstroPix readouts: event files by slices of time, hit maps, spectra."""
    stream = named_stream(
        "astropix",
        [f"[{group}]:{port}" if ":" in group else f"{group}:{port}"],
        camera=camera,
        name=name,
        interface=interface,
        slice_s=slice_s,
        overflow=overflow,
        backlog_mib=backlog_mib,
    )
    _run(stream, workers=workers, no_prefect=no_prefect, log_level=log_level, config=config, root=root)


def named_stream(
    protocol: str, endpoints: list[str], *, camera: str, name: str | None, interface: str | None = None, **given: Any
) -> StreamSource:
    """Return the source that a command line describes; what is None keeps its default.

    Raises
    ------
    Misconfigured
        If an endpoint is none, or a value does not fit.
    """
    from nightglass.config import StreamSource, validate
    from nightglass.sensors.endpoints import SourceText, parse_endpoint
    from nightglass.sensors.receivers import make_source

    text = SourceText(protocol, tuple(map(parse_endpoint, endpoints)))
    values = make_source(text, camera=camera, interface=interface or "").model_dump()
    values |= {"name": name or protocol}
    values |= {key: value for key, value in given.items() if value is not None}
    return validate(StreamSource, values, where="the stream")


def _run(
    stream: StreamSource,
    *,
    workers: int | None,
    no_prefect: bool,
    log_level: str | None,
    config: Path | None,
    root: Path | None,
) -> None:
    from deployments.cli.run import RunRequest, run_command

    request = RunRequest(stream=stream, workers=workers, log_level=log_level, prefect=not no_prefect)
    raise typer.Exit(run_command(request, config=config, root=root))
