"""Frames for tests of the survey, and what it finds in them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from nightglass.config import Camera, Limits
from nightglass.cubes.records import CubeRequest, Survey
from nightglass.cubes.survey import survey_frames

LIMITS = Limits.model_validate({})
__all__ = ["LIMITS", "image", "pixels", "seen", "sources", "survey", "write"]


def pixels(rows: int = 4, columns: int = 6, kind: Any = np.int16, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 100, (rows, columns)).astype(kind)


def write(path: Path, *hdus: Any, **cards: Any) -> Path:
    """Write HDUs, or one primary image with some cards."""
    made = fits.HDUList([*hdus]) if hdus else fits.HDUList([fits.PrimaryHDU(pixels())])
    for keyword, value in cards.items():
        made[0].header[keyword.replace("_", "-")] = value
    made.writeto(path)
    return path


def image(name: str = "", version: Any = None, data: Any = None, **cards: Any) -> fits.ImageHDU:
    hdu = fits.ImageHDU(pixels() if data is None else data)
    if name:
        hdu.header["EXTNAME"] = name
    if version is not None:
        hdu.header["EXTVER"] = version
    hdu.header.update(cards)
    return hdu


def survey(paths: Sequence[Path], *, camera: Camera | None = None, **changes: Any) -> Survey:
    return survey_frames(CubeRequest(paths=tuple(paths), out=Path("o.fits"), **changes), LIMITS, camera=camera)


def seen(found: Survey) -> list[tuple[str, int, str, int, int]]:
    return [
        (plane.source, plane.frame, found.files[plane.file].stamp.path.stem, plane.hdu, plane.number)
        for plane in found.planes
    ]


def sources(found: Survey) -> dict[str, list[int]]:
    result: dict[str, list[int]] = {}
    for plane in found.planes:
        result.setdefault(plane.source, []).append(plane.frame)
    return result
