"""Which night and which cameras a run is for, where its form leaves them open."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from prefect.runtime import flow_run

from nightglass.config import Observatory
from nightglass.errors import Misconfigured
from nightglass.model import Night
from nightglass.nights import night_of
from tasks.bench import Cameras

__all__ = ["named_after", "the_cameras", "the_night"]


def named_after(what: str) -> Callable[[], str]:
    """Return a function that names runs by their night: ``20260821-final``."""

    def name() -> str:
        return f"{flow_run.parameters.get('night') or 'tonight'}-{what}"

    return name


def the_night(night: str, observatory: Observatory) -> Night:
    """Return the night of that label; empty: tonight at the site.

    Raises
    ------
    Misconfigured
        If the label is not a date.
    """
    return Night(night) if night else night_of(datetime.now(UTC), observatory.site)


def the_cameras(camera: str, observatory: Observatory) -> tuple[str, ...]:
    """Return the names of the asked cameras, comma separated; empty: those of all configured sources and streams.

    Raises
    ------
    Misconfigured
        If a camera does not exist, or none is configured and none was asked for.
    """
    cameras = Cameras(observatory)
    asked = [name.strip() for name in camera.split(",") if name.strip()]
    names = asked or observatory.camera_texts
    if not names:
        message = "no camera was asked for, and the observatory file has no source and no stream"
        raise Misconfigured(message, remedy="name a camera, or write [[sources]] or [[streams]] into the file")
    return tuple(dict.fromkeys(cameras[name].name for name in names))
