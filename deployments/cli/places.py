"""Which directories a night comes from: those of the configuration, and those that runs were told."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from nightglass.config import Camera, Observatory, Source, load_camera
from nightglass.errors import Misconfigured
from nightglass.layout import Layout
from nightglass.model import Night

__all__ = ["camera_named", "known_sources", "product_files", "raw_files", "remember_sources"]

_PRODUCTS = ("reduced", "quicklook", "masters", "stacks")


def remember_sources(observatory: Observatory) -> None:
    """Write down the sources of a run, so that later commands find its directories and camera files."""
    path = _file(observatory)
    records = [source.model_dump(mode="json") for source in known_sources(observatory)]
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_text(json.dumps(records, indent=1))
    part.replace(path)


def known_sources(observatory: Observatory) -> tuple[Source, ...]:
    """Return the sources of the configuration, then those of earlier runs under the same root."""
    from nightglass.watch.sources import stream_directory

    layout = Layout(observatory.root)
    written = [stream_directory(stream, layout) for stream in observatory.streams]
    written += [stream_directory(builder, layout) for builder in observatory.builders]
    found = {(source.camera, source.directory): source for source in (*observatory.sources, *written)}
    # a file of another version is no reason to refuse a command: its sources are named again by the next run
    with contextlib.suppress(OSError, ValueError, TypeError):
        for record in json.loads(_file(observatory).read_text()):
            source = Source.model_validate(record)
            found.setdefault((source.camera, source.directory), source)
    return tuple(found.values())


def camera_named(name: str, observatory: Observatory) -> Camera:
    """Return the camera that the ledger calls by this name.

    Raises
    ------
    Misconfigured
        If no source has a camera of that name and no camera file is called so.
    """
    for source in known_sources(observatory):
        with contextlib.suppress(Misconfigured):  # a file that went away; another source may have the camera
            camera = load_camera(source.camera, directories=observatory.camera_directories)
            if camera.name == name:
                return camera
    return load_camera(name, directories=observatory.camera_directories)


def raw_files(observatory: Observatory, night: Night, camera: Camera) -> Iterator[Path]:
    """Yield the raw files that are on disk where a night's exposures come from; other nights may share the place."""
    from nightglass.watch.sources import directory_of

    for source in known_sources(observatory):
        if load_camera(source.camera, directories=observatory.camera_directories).name == camera.name:
            yield from _wanted(source, directory_of(source, camera, night))


def product_files(layout: Layout, night: Night, camera: str) -> Iterator[Path]:
    """Yield the products of a night that are on disk under their final names."""
    for name in _PRODUCTS:
        for path in (layout.night(camera, night) / name).rglob("*"):
            if path.is_file() and not path.name.endswith(".part"):
                yield path


def _wanted(source: Source, directory: Path) -> Iterable[Path]:
    from nightglass.sensors.names import NameFilter
    from nightglass.sensors.scanning import walk

    names = NameFilter(source.patterns, source.ignore)
    for listing in walk(str(directory), names, depth=None if source.recursive else 0):
        for name, _ in listing.files:
            yield Path(listing.directory, name)


def _file(observatory: Observatory) -> Path:
    return Layout(observatory.root).run / "sources.json"
