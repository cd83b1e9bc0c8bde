"""``nightglass cube``: any frames as one cube, a cube compared with its frames, frames taken out of a cube."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from deployments.cli.bars import mebibytes, progress_bar, rate
from deployments.cli.screen import add_row, duration, output, table
from deployments.cli.session import Session, open_session
from nightglass.config import load_camera
from nightglass.errors import Misconfigured

if TYPE_CHECKING:
    from nightglass.cubes import CubeSummary
    from nightglass.pool import Pool

__all__ = ["CubeWish", "cube_command"]

_MUCH = 1 << 30
"""Bytes above which it pays to start workers; compressing takes several times as long as copying."""
_MUCH_TO_COMPRESS = 1 << 28
_MOST_NAMED = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class CubeWish:
    """The options of ``nightglass cube`` as they were written."""

    frames: tuple[str, ...] = ()
    out: Path | None = None
    verify: Path | None = None
    extract: Path | None = None
    compress: str = ""
    role: str = ""
    camera: str | None = None
    extra: tuple[str, ...] = ()
    keep_cards: bool = True
    gather: bool = False
    replace: bool = False
    only: str = ""
    sources: tuple[str, ...] = ()
    time: str = ""
    cluster: str = ""


def cube_command(wish: CubeWish, *, config: Path | None, root: Path | None) -> int:
    """Do what was asked for; return 1 if frames were left out or differ.

    Raises
    ------
    Misconfigured
        If the options do not go together.
    """
    session = open_session(config, root, {"cluster": {"address": wish.cluster or None}})
    if wish.verify is not None and wish.extract is not None:
        message = "--verify and --extract are two commands"
        raise Misconfigured(message, remedy="give one of them")
    if wish.extract is None and (wish.only or wish.sources or wish.time):
        message = "--frames, --source and --time choose what is taken out of a cube"
        raise Misconfigured(message, remedy="give --extract CUBE.fits with them")
    if wish.verify is not None:
        return _verify(wish, wish.verify, session)
    if wish.extract is not None:
        return _extract(wish, wish.extract, session)
    return _assemble(wish, session)


def _assemble(wish: CubeWish, session: Session) -> int:
    from nightglass.archive.requests import cube_request
    from nightglass.cubes import assemble_cube

    if wish.out is None:
        message = "where should the cube go?"
        raise Misconfigured(message, remedy="name it: -o CUBE.fits")
    directories = session.observatory.camera_directories
    camera = load_camera(wish.camera, directories=directories) if wish.camera else None
    request = cube_request(
        wish.frames,
        wish.out.expanduser().absolute(),
        camera=camera,
        role=wish.role,
        compress=wish.compress,
        extra=wish.extra,
        keep_cards=wish.keep_cards,
        mode="gather" if wish.gather else "shared",
        overwrite=wish.replace,
    )
    console = output()
    much = _MUCH_TO_COMPRESS if request.compression else _MUCH
    with _pool(session, request.paths, much) as pool, progress_bar(console, request.out.name) as progress:
        cube = assemble_cube(request, pool=pool, limits=session.observatory.limits, camera=camera, progress=progress)
    _show(cube, console)
    return 1 if cube.problems else 0


def _show(cube: CubeSummary, console: Console) -> None:
    made = table("source", ">frames", ">size", ">type", ">stored", "note")
    for source in cube.sources:
        shape = f"{source.shape[1]}x{source.shape[0]}"
        stored = mebibytes(source.stored_bytes)
        add_row(made, source.name, str(source.frames), shape, _type(source.bitpix), stored, source.note)
    console.print(made)
    seconds = sum(cube.seconds.values())
    stages = ", ".join(f"{name} {duration(spent)}" for name, spent in cube.seconds.items())
    frames = "1 frame" if cube.frames == 1 else f"{cube.frames} frames"
    speed = rate(cube.pixel_bytes, seconds)
    summary = f"{frames}, {mebibytes(cube.size)} in {duration(seconds)}, {speed} ({stages})"
    console.print(Text.assemble((str(cube.path), "bold"), "  ", summary), soft_wrap=True)
    _name_all([f"left out: {problem.path}: {problem.reason}" for problem in cube.problems], console, "yellow")


def _type(bitpix: int) -> str:
    return f"int{bitpix}" if bitpix > 0 else f"float{-bitpix}"


def _verify(wish: CubeWish, cube: Path, session: Session) -> int:
    from nightglass.archive.requests import find_frames
    from nightglass.cubes import verify_cube

    frames, console = find_frames(wish.frames), output()
    with _pool(session, (cube, *frames), _MUCH) as pool, progress_bar(console, f"verify {cube.name}") as progress:
        found = verify_cube(cube, frames, pool=pool, limits=session.observatory.limits, progress=progress)
    verdict = ("agrees with its frames", "bold green") if found.ok else ("DIFFERS from its frames", "bold red")
    size = sum(path.stat().st_size for path in (cube, *frames))
    planes = f": {found.planes} planes in {duration(found.seconds)}, {rate(size, found.seconds)} read"
    console.print(Text.assemble((str(cube), "bold"), " ", verdict, planes), soft_wrap=True)
    _name_all(found.differences, console, "red")
    _name_all([f"not in the cube, as it says itself: {path}" for path in found.left_out], console, "yellow")
    return 0 if found.ok else 1


def _extract(wish: CubeWish, cube: Path, session: Session) -> int:
    from nightglass.archive.requests import frame_range, time_range
    from nightglass.cubes.extracting import extract_frames

    if wish.out is None:
        message = "where should the frames go?"
        raise Misconfigured(message, remedy="name a directory: -o DIR")
    if wish.frames:
        message = f"{wish.frames[0]}: frames come out of the cube here"
        raise Misconfigured(message, remedy="choose them by --frames, --source or --time")
    console = output()
    with _pool(session, (cube,), _MUCH) as pool, progress_bar(console, f"extract {cube.name}") as progress:
        files = extract_frames(
            cube,
            wish.out,
            frames=frame_range(wish.only),
            sources=wish.sources,
            times=time_range(wish.time),
            overwrite=wish.replace,
            pool=pool,
            limits=session.observatory.limits,
            progress=progress,
        )
    size = mebibytes(sum(path.stat().st_size for path in files))
    count = "1 file" if len(files) == 1 else f"{len(files)} files"
    console.print(Text.assemble((str(wish.out), "bold"), f"  {count}, {size}"), soft_wrap=True)
    return 0


def _pool(session: Session, paths: Iterable[Path], much: int) -> Pool:
    """Return workers that are there already, new ones where it pays, or this thread."""
    from nightglass.cluster import connect
    from nightglass.cluster.starting import published_address
    from nightglass.pool import SerialPool

    settings = session.observatory.cluster
    size = sum(path.stat().st_size for path in paths if path.exists())
    there = settings.address or settings.factory or published_address(session.layout)
    return connect(settings, layout=session.layout) if there or size > much else SerialPool()


def _name_all(lines: Iterable[str], console: Console, style: str) -> None:
    named = list(lines)
    for line in named[:_MOST_NAMED]:
        console.print(Text(f"  {line}", style), soft_wrap=True)
    if len(named) > _MOST_NAMED:
        console.print(Text(f"  and {len(named) - _MOST_NAMED} more", style))
