"""Making a worker ready: the first exposure shall not pay for imports, compilation and cold memory."""

from __future__ import annotations

import ctypes
import sys
from typing import Any

__all__ = ["dask_setup", "keep_memory", "warm_up"]

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
"""Parameters of mallopt, from glibc's malloc.h."""
_MMAP_BYTES = 32 << 20
"""The largest that glibc accepts."""
_TRIM_BYTES = 256 << 20


def dask_setup(worker: Any) -> None:
    """Make a Dask worker ready; Dask calls this by its name when the worker preloads this package."""
    del worker
    keep_memory()
    warm_up()


def keep_memory() -> None:
    """Let this process keep up to 256 MiB that it freed.

    Images of the same size come again and again. By default glibc gives each array back and the next one is
    taken from the kernel page by page, which costs a quarter of the time of a reduction. All threads share one
    arena, because those of further threads do not keep what they freed, and Dask runs calls in such a thread.
    Without glibc nothing is done.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _MMAP_BYTES)
        mallopt(_TRIM_THRESHOLD, _TRIM_BYTES)
        mallopt(_ARENA_MAX, 1)


def warm_up() -> None:
    """Reduce a small made-up star field with every step that needs no master, write it, and forget it."""
    import tempfile
    from datetime import UTC, datetime
    from pathlib import Path

    import numpy as np
    from astropy.io.fits import Header

    from nightglass.config import Camera, StepEntry
    from nightglass.fitsio import content_id, write_product
    from nightglass.image import AmplifierView, Image
    from nightglass.model import ExposureRef, Kind, Night
    from nightglass.quicklook import write_quicklook
    from nightglass.steps import StepContext, run_steps

    side = 128
    whole = (slice(0, side), slice(0, side))
    y, x = np.mgrid[:side, :side]
    data = np.random.default_rng(1).normal(100, 10, (side, side)).astype(np.float32)
    for row, column in ((30, 30), (30, 90), (64, 64), (90, 30), (90, 90)):
        data += (3000 * np.exp(-((x - column) ** 2 + (y - row) ** 2) / 8)).astype(np.float32)
    header = Header({"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CDELT1": -1e-4, "CDELT2": 1e-4})
    image = Image(
        data=data,
        variance=np.zeros_like(data),
        mask=np.zeros(data.shape, np.uint16),
        header=header,
        detector="",
        amplifiers=(AmplifierView(data=whole, place=whole, read_noise=5.0),),
        exposure_time_s=1.0,
    )
    ref = ExposureRef(
        exposure_id="warm/20000101/1",
        night=Night("20000101"),
        camera="warm",
        kind=Kind.SCIENCE,
        path=Path("warm.fits"),
        size=0,
        content_id="",
        started_at=datetime(2000, 1, 1, tzinfo=UTC),
    )
    names = ("overscan", "trim", "gain", "noise", "mask", "background", "sources", "seeing", "wcs", "quality")
    context = StepContext(camera=Camera.model_validate({"name": "warm", "steps": {}}), ref=ref)
    image = run_steps(image, [StepEntry(step=name) for name in names], context)
    with tempfile.TemporaryDirectory(prefix="nightglass-") as directory:
        product, look = Path(directory, "warm.fits"), Path(directory, "warm.png")
        write_product(product, [image], cards={}, history=())
        write_quicklook(look, [image], label="warm")
        content_id(product)
