"""The commands that show things live: their options; the work is imported when one runs."""

from __future__ import annotations

from typing import Annotated

import typer

from deployments.cli.options import Camera, Config, Root

__all__ = ["pages_app"]

pages_app = typer.Typer()

_Host = Annotated[
    str, typer.Option(help="Address to listen at; one that other machines reach needs NIGHTGLASS_TOKEN to be set.")
]


@pages_app.command(rich_help_panel="Streams")
def monitor(
    source: Annotated[
        str,
        typer.Argument(
            help="Name in the observatory file, aartfaac://HOST:PORT,..., astropix://GROUP:PORT, a recording, FILE.apx."
        ),
    ],
    *,
    text: Annotated[bool, typer.Option("--text", help="On the terminal instead of a page.")] = False,
    kind: Annotated[str, typer.Option("--with", help="A monitor of your own: module:Class, or FILE.py:Class.")] = "",
    interface: Annotated[str, typer.Option(help="Network interface for multicast.")] = "",
    refresh: Annotated[float, typer.Option(help="Seconds between pictures.", min=0.05)] = 0.5,
    host: _Host = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(help="Of the page. (default: the first that is free from 8151)", min=0, max=65535)
    ] = None,
    config: Config = None,
    root: Root = None,
) -> None:
    """Show a stream as a live picture, in the browser or on the terminal."""
    from deployments.cli.monitor import MonitorWish, monitor_command

    wish = MonitorWish(
        source=source, kind=kind, interface=interface, host=host, port=port, refresh_s=refresh, text=text
    )
    raise typer.Exit(monitor_command(wish, config=config, root=root))


@pages_app.command(rich_help_panel="Looking")
def serve(
    *,
    monitors: Annotated[
        list[str] | None, typer.Option("--monitor", help="Also show this stream live; may be repeated.")
    ] = None,
    camera: Camera = None,
    host: _Host = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Of the page of the night.", min=0, max=65535)] = 8150,
    config: Config = None,
    root: Root = None,
) -> None:
    """Serve the page of the night, the live monitors, and the image builders unless a watch has them.

    Image builders have a port of their own, 8140, with a page, the interface and its description: see the
    section web of the observatory file.
    """
    from deployments.cli.serve import serve_command

    raise typer.Exit(serve_command(monitors or [], host=host, port=port, camera=camera, config=config, root=root))
