"""What ``nightglass run`` was asked for, and the night that follows from it; nothing is touched here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from deployments.cli.session import Session, names_in, open_session
from nightglass.config import Camera, Observatory, StreamSource, load_camera
from nightglass.errors import Misconfigured
from nightglass.model import Kind, Night
from nightglass.nights import night_of
from nightglass.notices import channels

__all__ = ["Plan", "RunRequest", "make_plan"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """The options of ``nightglass run`` as they were written; None: not given."""

    directory: str | None = None
    camera: str | None = None
    night: str | None = None
    realtime: str | None = None
    postprocess: str | None = None
    midway: str | None = None
    final: str | None = None
    mail_to: str | None = None
    mail_from: str | None = None
    polling: bool | None = None
    workers: int | None = None
    log_level: str | None = None
    once: bool = False
    prefect: bool = True
    stream: StreamSource | None = None
    """Received instead of whatever the configuration has."""

    def overrides(self) -> dict[str, Any]:
        """Return the options as values of the observatory file.

        Raises
        ------
        Misconfigured
            If a directory is given without a camera, or the reverse.
        """
        values: dict[str, Any] = {
            "night": {"midway": self.midway, "final": self.final},
            "reduction": {"realtime": names_in(self.realtime), "postprocess": names_in(self.postprocess)},
            "notices": {"mail_to": names_in(self.mail_to), "mail_from": self.mail_from},
            "cluster": {"workers": self.workers},
            "log_level": self.log_level.upper() if self.log_level else None,
        }
        if self.directory is not None and self.camera is not None:
            values["sources"] = [_source(self.directory, self.camera, polling=bool(self.polling))]
        elif self.directory is not None:
            message = f"which camera writes to {self.directory}?"
            raise Misconfigured(message, remedy="name it: --camera NAME, or --camera FILE.toml")
        return values


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A night that can be run.

    Attributes
    ----------
    cameras : mapping of str to Camera
        By the name that sources use, and by their own.
    nights : tuple of Night
        Named on the command line; empty: whatever night it is.
    """

    session: Session
    cameras: Mapping[str, Camera]
    nights: tuple[Night, ...]
    request: RunRequest

    @property
    def observatory(self) -> Observatory:
        """The configuration."""
        return self.session.observatory

    @property
    def camera_names(self) -> tuple[str, ...]:
        """The cameras' own names."""
        return tuple(sorted({camera.name for camera in self.cameras.values()}))


def make_plan(request: RunRequest, *, config: Path | None, root: Path | None) -> Plan:
    """Check everything that can be wrong about a run before anything is touched.

    Raises
    ------
    Misconfigured
        Naming what does not fit: a key, a camera, a step list, a night, a directory, an address.
    """
    session = open_session(config, root, request.overrides())
    observatory = session.observatory
    if request.stream is not None:
        streams = (request.stream.model_copy(update={"camera": _camera_text(request.stream.camera)}),)
        observatory = observatory.model_copy(update={"sources": (), "streams": streams, "builders": ()})
        session = Session(observatory, session.configuration)
    elif request.directory is None:
        session = _of_configured_sources(session, request)
        observatory = session.observatory
    nights = (Night(request.night),) if request.night else ()
    cameras = _load_cameras(observatory)
    for camera in cameras.values():
        _check_lists(camera, observatory, postprocess_asked=request.postprocess is not None)
    channels(observatory.notices)
    if request.once:
        _check_directories(observatory, cameras, nights)
    return Plan(session=session, cameras=cameras, nights=nights, request=request)


def _of_configured_sources(session: Session, request: RunRequest) -> Session:
    """Return the session with the sources of the file, or of the camera that was asked for."""
    observatory = session.observatory
    kept, streams, builders = observatory.sources, observatory.streams, observatory.builders
    if request.camera is not None:
        kept = tuple(source for source in kept if source.camera == request.camera)
        streams = tuple(stream for stream in streams if stream.camera == request.camera)
        builders = tuple(builder for builder in builders if builder.camera == request.camera)
    if not kept and (request.once or not (streams or builders)):
        message = "there is no directory to watch"
        if request.camera is not None:
            message += f" for camera {request.camera}"
        raise Misconfigured(
            message, remedy="name one: nightglass run DIR --camera NAME; or add [[sources]] to the file"
        )
    if request.polling:
        kept = tuple(source.model_copy(update={"polling": True}) for source in kept)
    return Session(
        observatory.model_copy(update={"sources": kept, "streams": streams, "builders": builders}),
        session.configuration,
    )


def _source(directory: str, camera: str, *, polling: bool) -> dict[str, Any]:
    directory = str(Path(directory).expanduser().absolute())
    return {"camera": _camera_text(camera), "directory": directory, "polling": polling}


def _camera_text(camera: str) -> str:
    if camera.endswith(".toml") or "/" in camera:
        # children and later runs have other working directories
        return str(Path(camera).expanduser().absolute())
    return camera


def _load_cameras(observatory: Observatory) -> dict[str, Camera]:
    found: dict[str, Camera] = {}
    for text in observatory.camera_texts:
        camera = load_camera(text, directories=observatory.camera_directories)
        if found.setdefault(camera.name, camera) != camera:
            message = f"two camera files are called {camera.name!r}"
            raise Misconfigured(message, remedy="their products would mix; rename one")
        found[text] = camera
    return found


def _check_lists(camera: Camera, observatory: Observatory, *, postprocess_asked: bool) -> None:
    """Ask for each step list, so that a wrong name is refused at start and not at the end of the night."""
    for name in observatory.reduction.realtime:
        camera.step_list(name, Kind.SCIENCE)
    for name in observatory.reduction.postprocess:
        if postprocess_asked or name not in _DEFAULT_POSTPROCESS:
            camera.step_list(name, Kind.SCIENCE)


_DEFAULT_POSTPROCESS = Observatory.model_fields["reduction"].default.postprocess
"""A camera need not have the list that nobody asked for."""


def _check_directories(observatory: Observatory, cameras: Mapping[str, Camera], nights: tuple[Night, ...]) -> None:
    from nightglass.watch.sources import camera_of, directory_of

    night = nights[0] if nights else night_of(datetime.now(UTC), observatory.site)
    for source in observatory.sources:
        directory = directory_of(source, camera_of(source, cameras), night)
        if not directory.is_dir():
            message = f"{directory} is not a directory"
            raise Misconfigured(message, remedy="with --once it must be there; without, it is made and watched")
