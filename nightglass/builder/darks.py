"""Frames handed out with their dark subtracted, by the masters that reduction would take."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from astropy.io import fits
from numpy.typing import NDArray

from nightglass.builder.writing import write_arrays
from nightglass.config import Camera, Limits, Site, StepEntry
from nightglass.dialects import describe
from nightglass.errors import Waiting
from nightglass.fitsio import content_id, read_raw, scan_headers
from nightglass.image import Image
from nightglass.model import ExposureRef, Kind, MasterRef, Night

__all__ = ["FindMasters", "subtract_darks"]

FindMasters = Callable[[ExposureRef], Mapping[Kind, MasterRef]]
"""Gives the best masters for an exposure, as `nightglass.calibrations.choose.choose_masters` does."""

_STEPS: Final = ("overscan", "trim", "gain", "bias", "dark")
_NEEDED: Final = ("gain", "dark")


def subtract_darks(
    frame: Path, out: Path, *, camera: Camera, masters: FindMasters, site: Site, night: Night, limits: Limits
) -> Path:
    """Write a frame with its dark subtracted: float32, in electrons, overscan removed where the camera has one.

    The steps and their settings are those of the camera's real-time list, as far as they lead to the dark; HISTORY
    says which ran and with which master.

    Parameters
    ----------
    frame : Path
        A multi-extension file, as `write_frame` makes it, uncompressed or not.

    Raises
    ------
    Waiting
        If there is no master dark.
    Rejected
        If the camera knows no detector in the frame, or the master does not fit.
    """
    from nightglass.reduction.inputs import load_master
    from nightglass.steps import run_steps
    from nightglass.steps.step import StepContext

    headers = scan_headers(frame, limits)
    status = frame.stat()
    ref = describe(
        frame,
        headers,
        camera,
        site=site,
        night=night,
        content_id=content_id(frame),
        size=status.st_size,
        mtime=status.st_mtime,
    )
    found = masters(ref)
    if Kind.DARK not in found:
        message = f"there is no master dark for {ref.exposure_id}"
        raise Waiting(message, remedy="take darks of this exposure time and binning, and make masters of them")
    context = StepContext(
        camera=camera,
        ref=ref,
        masters={kind: load_master(found[kind]) for kind in (Kind.BIAS, Kind.DARK) if kind in found},
    )
    entries = _entries(camera, ref.kind, Kind.BIAS in found)
    images = (run_steps(image, entries, context) for image in read_raw(frame, camera, limits))
    primary = headers[0].header.copy()
    for keyword in ("CHECKSUM", "DATASUM"):
        primary.remove(keyword, ignore_missing=True)
    primary.add_history(f"dark subtracted: master {found[Kind.DARK].master_id}")
    return write_arrays(_arrays(images), primary, out, overwrite=True)


def _entries(camera: Camera, kind: Kind, with_bias: bool) -> tuple[StepEntry, ...]:  # noqa: FBT001 - a fact
    listed = {entry.step: entry for entry in camera.step_list("realtime", kind) if entry.step in _STEPS}
    wanted = [name for name in _STEPS if name in listed or name in _NEEDED or (name == "bias" and with_bias)]
    return tuple(listed.get(name) or StepEntry(step=name) for name in wanted)


def _arrays(images: Iterator[Image]) -> Iterator[tuple[str, NDArray[Any], fits.Header]]:
    for image in images:
        header = image.header.copy()
        for keyword in ("BSCALE", "BZERO", "BLANK"):
            header.remove(keyword, ignore_missing=True)
        header["BUNIT"] = image.unit
        for record in image.history:
            masters = f" {', '.join(record.calibrations)}" if record.calibrations else ""
            header.add_history(f"{record.step}{masters}{': ' if record.note else ''}{record.note}")
        yield image.detector.upper(), image.data, header
