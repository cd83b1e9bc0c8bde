"""The commands and their options; the work is imported when a command runs, so that help comes at once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deployments.cli.apx import apx_app
from deployments.cli.emulate import emulate_app
from deployments.cli.options import Camera, CameraNeeded, Config, NightAsked, Root
from deployments.cli.pages import pages_app
from deployments.cli.recording import recording_app
from deployments.cli.stream import stream_app

__all__ = ["app"]

_NIGHT, _CUBES, _STREAMS = "A night", "Cubes", "Streams"
_LOOK, _CHANGE, _SITE = "Looking", "Changing", "The site"

app = typer.Typer(
    name="nightglass",
    help="Runs an observatory's night: exposures are reduced as they arrive, masters and reports come by themselves.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
ledger_app = typer.Typer(help="The record of all exposures.", no_args_is_help=True)
camera_app = typer.Typer(help="Camera files.", no_args_is_help=True)
notice_app = typer.Typer(help="Mail and other notices.", no_args_is_help=True)
app.add_typer(ledger_app, name="ledger", rich_help_panel=_LOOK)
app.add_typer(camera_app, name="camera", rich_help_panel=_SITE)
app.add_typer(notice_app, name="notice", rich_help_panel=_SITE)
app.add_typer(stream_app, name="stream", rich_help_panel=_STREAMS)
app.add_typer(apx_app, name="apx", rich_help_panel=_STREAMS)
app.add_typer(emulate_app, name="emulate", rich_help_panel=_STREAMS)
app.add_typer(recording_app)
app.add_typer(pages_app)


def _version(*, value: bool) -> None:
    if value:
        from nightglass import __version__

        typer.echo(f"nightglass {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=lambda value: _version(value=value), is_eager=True, help="Print the version and end."
        ),
    ] = False,
) -> None: ...


@app.command(rich_help_panel=_NIGHT)
def run(
    directory: Annotated[
        str | None,
        typer.Argument(help="Watched directory; may hold {camera} and {night}. Needless if the configuration has it."),
    ] = None,
    *,
    camera: Annotated[str | None, typer.Option(help="Name of a camera, or the path of its TOML file.")] = None,
    night: Annotated[str | None, typer.Option(help="Night, YYYYMMDD. (default: whatever night it is)")] = None,
    once: Annotated[bool, typer.Option("--once", help="Reduce what is there, run the final stage, end.")] = False,
    realtime: Annotated[str | None, typer.Option(help="Step lists for each exposure, separated by commas.")] = None,
    postprocess: Annotated[str | None, typer.Option(help="Step lists of midway and final.")] = None,
    midway: Annotated[str | None, typer.Option(help="16h after opening, 23:30 at the site, or sun.")] = None,
    final: Annotated[str | None, typer.Option(help="48h after opening, 09:00 at the site, or sun.")] = None,
    mail_to: Annotated[str | None, typer.Option(help="Addresses for the summaries, separated by commas.")] = None,
    mail_from: Annotated[str | None, typer.Option(help="Sender of the summaries.")] = None,
    polling: Annotated[bool, typer.Option("--polling", help="For network file systems without events.")] = False,
    workers: Annotated[int | None, typer.Option(help="Processes of the local Dask cluster.", min=1)] = None,
    no_prefect: Annotated[bool, typer.Option("--no-prefect", help="Without any Prefect server.")] = False,
    log_level: Annotated[str | None, typer.Option(help="DEBUG, INFO, WARNING or ERROR.")] = None,
    config: Config = None,
    root: Root = None,
) -> None:
    """Watch a directory and run its night.

    Every exposure is reduced as it arrives. Masters, midway and final
    post-processing and the summary come by themselves.

    Ctrl-C ends in order: what runs is finished, and what waits is taken up
    by the next start.
    """
    from deployments.cli.run import RunRequest, run_command

    request = RunRequest(
        directory=directory,
        camera=camera,
        night=night,
        realtime=realtime,
        postprocess=postprocess,
        midway=midway,
        final=final,
        mail_to=mail_to,
        mail_from=mail_from,
        polling=polling or None,
        workers=workers,
        log_level=log_level,
        once=once,
        prefect=not no_prefect,
    )
    raise typer.Exit(run_command(request, config=config, root=root))


@app.command(rich_help_panel=_NIGHT)
def reduce(
    files: Annotated[list[Path], typer.Argument(help="FITS files.", exists=True, dir_okay=False)],
    *,
    camera: CameraNeeded,
    steps: Annotated[str | None, typer.Option(help="Step lists, separated by commas. (default: realtime)")] = None,
    night: Annotated[str | None, typer.Option(help="Night, YYYYMMDD. (default: as the headers say)")] = None,
    config: Config = None,
    root: Root = None,
) -> None:
    """Reduce one exposure or a few, now."""
    from deployments.cli.reduce import reduce_command

    raise typer.Exit(reduce_command(files, camera=camera, steps=steps, night=night, config=config, root=root))


@app.command(rich_help_panel=_NIGHT)
def demo(
    *,
    directory: Annotated[
        Path | None, typer.Option(help="Where the demonstration is kept. (default: a new temporary directory)")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the simulated sky.")] = 1,
    workers: Annotated[int, typer.Option(help="Processes of the Dask cluster.", min=1)] = 2,
) -> None:
    """Simulate a short night and run it, with a Prefect server and a Dask cluster of its own."""
    from deployments.cli.demo import demo_command

    raise typer.Exit(demo_command(directory, seed=seed, workers=workers))


@app.command(rich_help_panel=_CUBES)
def cube(
    frames: Annotated[list[str] | None, typer.Argument(help="FITS files, patterns, or directories of them.")] = None,
    *,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The cube; with --extract a directory.")] = None,
    verify: Annotated[Path | None, typer.Option(help="Compare this cube with the frames instead.")] = None,
    extract: Annotated[Path | None, typer.Option(help="Take frames out of this cube instead.")] = None,
    compress: Annotated[str, typer.Option(help="rice or gzip. (default: not compressed)")] = "",
    role: Annotated[str, typer.Option(help="First word of the cube. (default: the camera's, or science)")] = "",
    camera: Annotated[str | None, typer.Option(help="Name of a camera, or the path of its TOML file.")] = None,
    extra: Annotated[list[str] | None, typer.Option(help="KEY=VALUE for the primary header; may be repeated.")] = None,
    no_cards: Annotated[bool, typer.Option("--no-cards", help="Do not store the frames' header cards.")] = False,
    gather: Annotated[bool, typer.Option("--gather", help="Workers do not see the cube: write it from here.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Replace files that are there.")] = False,
    only: Annotated[str, typer.Option("--frames", help="With --extract: 3:9 for frames 3 to 8, or 3 for one.")] = "",
    source: Annotated[list[str] | None, typer.Option(help="With --extract: only these sources; patterns fit.")] = None,
    time: Annotated[str, typer.Option(help="With --extract: frames that began in START..END, ISO times.")] = "",
    cluster: Annotated[str, typer.Option(help="Dask scheduler, tcp://host:8786. (default: a local cluster)")] = "",
    config: Config = None,
    root: Root = None,
) -> None:
    """Assemble frames to a data cube, verify one, or take frames out of one.

    nightglass cube FRAMES... -o CUBE.fits

    nightglass cube --verify CUBE.fits FRAMES...

    nightglass cube --extract CUBE.fits --frames 3:9 -o DIR
    """
    from deployments.cli.cube import CubeWish, cube_command

    wish = CubeWish(
        frames=tuple(frames or ()),
        out=out,
        verify=verify,
        extract=extract,
        compress=compress,
        role=role,
        camera=camera,
        extra=tuple(extra or ()),
        keep_cards=not no_cards,
        gather=gather,
        replace=replace,
        only=only,
        sources=tuple(source or ()),
        time=time,
        cluster=cluster,
    )
    raise typer.Exit(cube_command(wish, config=config, root=root))


@app.command(rich_help_panel=_CUBES)
def archive(
    exposures: Annotated[list[str] | None, typer.Argument(help="Exposure ids, or paths of their files.")] = None,
    *,
    night: Annotated[str | None, typer.Option(help="All exposures of a night, YYYYMMDD.")] = None,
    camera: Camera = None,
    reduced: Annotated[bool, typer.Option("--reduced", help="The reduced products instead of the raw frames.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Also where the cube is there and current.")] = False,
    purge: Annotated[
        bool, typer.Option("--purge", help="Delete raw frames that are archived, by the rules of the observatory file.")
    ] = False,
    config: Config = None,
    root: Root = None,
) -> None:
    """Archive exposures, or all of a night, as data cubes; what is archived already is left alone."""
    from deployments.cli.archive import ArchiveWish, archive_command

    wish = ArchiveWish(
        exposures=tuple(exposures or ()), night=night, camera=camera, reduced=reduced, again=again, purge=purge
    )
    raise typer.Exit(archive_command(wish, config=config, root=root))


@app.command(rich_help_panel=_LOOK)
def status(
    *,
    night: NightAsked = None,
    camera: Camera = None,
    json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    config: Config = None,
    root: Root = None,
) -> None:
    """Show counts by state, waiting reasons, lag, latency and disk."""
    from deployments.cli.status import status_as_json, status_command

    show = status_as_json if json else status_command
    show(night=night, camera=camera, config=config, root=root)


@app.command(rich_help_panel=_LOOK)
def calibrations(
    *,
    night: NightAsked = None,
    camera: Camera = None,
    config: Config = None,
    root: Root = None,
) -> None:
    """Show the masters in use, archival or tonight's, and what is still required."""
    from deployments.cli.calibrations import calibrations_command

    calibrations_command(night=night, camera=camera, config=config, root=root)


@ledger_app.command("reconcile")
def reconcile(
    *,
    night: NightAsked = None,
    camera: Camera = None,
    config: Config = None,
    root: Root = None,
) -> None:
    """Compare ledger, directory and products of a night; every difference is named."""
    from deployments.cli.changes import reconcile_command

    raise typer.Exit(reconcile_command(night=night, camera=camera, config=config, root=root))


@app.command(rich_help_panel=_CHANGE)
def retry(
    exposures: Annotated[list[str], typer.Argument(help="Exposure ids or file paths.")],
    *,
    config: Config = None,
    root: Root = None,
) -> None:
    """Reduce exposures again: failed, rejected, waiting, skipped or reduced ones."""
    from deployments.cli.changes import retry_command

    retry_command(exposures, config=config, root=root)


@app.command(rich_help_panel=_CHANGE)
def skip(
    exposures: Annotated[list[str], typer.Argument(help="Exposure ids or file paths.")],
    *,
    config: Config = None,
    root: Root = None,
) -> None:
    """Leave exposures out, until they are retried."""
    from deployments.cli.changes import skip_command

    skip_command(exposures, config=config, root=root)


@app.command(rich_help_panel=_SITE)
def check(
    *,
    config: Config = None,
    root: Root = None,
) -> None:
    """Check the site before a night: configuration, directories, cluster, server, mail."""
    from deployments.cli.check import check_command

    raise typer.Exit(check_command(config=config, root=root))


@app.command(rich_help_panel=_SITE)
def deploy(
    *,
    config: Config = None,
    root: Root = None,
) -> None:
    """Make the work pool and the deployments of all flows on the Prefect server; twice is once."""
    from deployments.cli.deploy import deploy_command

    deploy_command(config=config, root=root)


@camera_app.command("test")
def camera_test(
    file: Annotated[Path, typer.Argument(help="A FITS file of that camera.", exists=True, dir_okay=False)],
    *,
    camera: Annotated[str, typer.Option(help="Name of a camera, or the path of its TOML file.")] = "generic",
    config: Config = None,
) -> None:
    """Show what a camera file makes of a header: each field, its value, and where it came from."""
    from deployments.cli.camera import camera_test_command

    raise typer.Exit(camera_test_command(file, camera=camera, config=config))


@camera_app.command("list")
def camera_list(*, config: Config = None) -> None:
    """List the cameras that can be named."""
    from deployments.cli.camera import camera_list_command

    camera_list_command(config=config)


@notice_app.command("test")
def notice_test(
    *,
    config: Config = None,
    root: Root = None,
) -> None:
    """Send a notice over every configured channel, and say how it went."""
    from deployments.cli.notice import notice_test_command

    raise typer.Exit(notice_test_command(config=config, root=root))
