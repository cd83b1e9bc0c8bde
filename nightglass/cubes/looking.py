"""A picture of a cube: the first plane of each source."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from astropy.io import fits

from nightglass.errors import Rejected
from nightglass.image import Image
from nightglass.quicklook import write_quicklook

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["draw_cube"]

_MOST = 12
"""Sources in one picture."""


def draw_cube(cube: Path, picture: Path, *, label: str) -> None:
    """Draw the first plane of each source of a cube side by side, as a PNG.

    Only these planes are read, of a compressed cube only their tiles.

    Parameters
    ----------
    label : str
        Goes below.

    Raises
    ------
    Rejected
        If the cube cannot be read, or holds no image.
    Retryable
        If the picture cannot be written.
    """
    try:
        with fits.open(cube, memmap=False) as hdus:
            images = [_image(plane, name) for name, plane in _first_planes(hdus)]
    except (OSError, ValueError, TypeError) as error:
        message = f"{cube} cannot be drawn: {error}"
        raise Rejected(message, remedy="see whether it is there, and verify it: nightglass cube --verify") from error
    if not images:
        message = f"{cube} holds no image"
        raise Rejected(message, remedy="archive an exposure that has pixels")
    write_quicklook(picture, images, label=label)


def _first_planes(hdus: fits.HDUList) -> Iterator[tuple[str, NDArray[np.float32]]]:
    found = 0
    for hdu in hdus:
        shape = getattr(hdu, "shape", ())
        if not isinstance(hdu, (fits.ImageHDU, fits.CompImageHDU)) or len(shape) not in (2, 3) or not all(shape):
            continue
        if (found := found + 1) > _MOST:
            return
        plane = hdu.section[0] if len(shape) == 3 else hdu.section[:]
        yield hdu.name, np.asarray(plane, np.float32)


def _image(plane: NDArray[np.float32], name: str) -> Image:
    nothing = np.zeros((), np.float32)
    return Image(
        data=plane,
        variance=np.broadcast_to(nothing, plane.shape),
        mask=np.zeros(plane.shape, np.uint16),
        header=fits.Header(),
        detector=name,
        amplifiers=(),
    )
