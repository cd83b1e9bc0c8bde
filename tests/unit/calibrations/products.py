"""Reduced frames for tests, as the reduction would leave them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from astropy.io import fits
from numpy.typing import ArrayLike

from nightglass.fitsio import write_product
from nightglass.image import Image
from nightglass.model import ExposureRef, Kind, MasterRef, Night

NIGHT = Night("20260821")


def frame(
    path: Path,
    data: ArrayLike,
    *,
    mask: ArrayLike | None = None,
    variance: ArrayLike | float = 0.0,
    overscan: bool = True,
    detectors: tuple[str, ...] = ("ccd1",),
) -> Path:
    """Write a product; every detector gets the same pixels."""
    pixels = np.asarray(data, np.float32)
    header = fits.Header({"OSLEV1": 500.0} if overscan else {})
    images = [
        Image(
            data=pixels,
            variance=np.broadcast_to(np.asarray(variance, np.float32), pixels.shape),
            mask=np.zeros(pixels.shape, np.uint16) if mask is None else np.asarray(mask, np.uint16),
            header=header,
            detector=name,
            amplifiers=(),
            unit="electron",
        )
        for name in detectors
    ]
    write_product(path, images, cards={})
    return path


def ref(number: int, kind: Kind = Kind.BIAS, **changes: object) -> ExposureRef:
    """Return a reference; its content id is made of the number."""
    values: dict[str, object] = {
        "exposure_id": f"lynx/{NIGHT}/{number}",
        "night": NIGHT,
        "camera": "lynx",
        "kind": kind,
        "path": Path(f"/raw/{number}.fits"),
        "size": 1,
        "content_id": f"{number:032x}",
        "started_at": datetime(2026, 8, 21, 20, 0, number % 60, tzinfo=UTC),
        "detector": "ccd1",
    }
    return ExposureRef(**(values | changes))  # type: ignore[arg-type]


def master(kind: Kind = Kind.BIAS, master_id: str = "aa00", **changes: object) -> MasterRef:
    """Return a master of the night."""
    values: dict[str, object] = {
        "master_id": master_id,
        "kind": kind,
        "camera": "lynx",
        "night": NIGHT,
        "path": Path(f"/masters/{master_id}.fits"),
        "detector": "ccd1",
        "frames": 5,
    }
    return MasterRef(**(values | changes))  # type: ignore[arg-type]
