"""One detector of a product, and its rows on the pixels of another."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nightglass.calibrations.noise import sampled_rows
from nightglass.fitsio import ProductReader
from nightglass.fitsio.headers import card_value
from nightglass.fitsio.reading import image_header
from nightglass.model import DQ
from nightglass.stacks.align import Affine, Sketch

if TYPE_CHECKING:
    from astropy.io.fits import Header

__all__ = ["Plane", "resample"]

_SAMPLED_ROWS = 128
_EDGE = 1e-3
"""A pixel of which more than this part comes from bad pixels is hidden."""
_MARGIN = 2
_NOT_BAD = DQ.UNCALIBRATED
"""What is uncalibrated is shown all the same: it is so in all members alike."""


@dataclass(frozen=True, slots=True)
class Plane:
    """One detector of an open product.

    Attributes
    ----------
    sky : float
        Median of its good pixels.
    """

    reader: ProductReader
    ver: int
    name: str
    shape: tuple[int, int]
    header: Header
    exposure_time_s: float
    unit: str
    sky: float

    @classmethod
    def of(cls, reader: ProductReader, name: str) -> Plane:
        """Look at a detector by its name."""
        ver = reader.detectors.index(name) + 1
        info = reader.find("SCI", ver)
        height, width = info.shape[-2:]
        samples = []
        for row in sampled_rows(height, _SAMPLED_ROWS):
            bad = (reader.read("DQ", ver, slice(row, row + 1)) & ~np.uint16(_NOT_BAD)) != 0
            samples.append(reader.read("SCI", ver, slice(row, row + 1))[~bad])
        pixels = np.concatenate(samples)
        seconds = card_value(info.header, "XPOSURE")
        return cls(
            reader=reader,
            ver=ver,
            name=name,
            shape=(height, width),
            header=image_header(info, reader.headers[0]),
            exposure_time_s=float(seconds) if isinstance(seconds, (int, float)) else 0.0,
            unit=str(card_value(info.header, "BUNIT") or "adu"),
            sky=float(np.median(pixels)) if pixels.size else 0.0,
        )

    def sketch(self) -> Sketch:
        """Return what alignment needs."""
        named = {(info.name, info.ver) for info in self.reader.headers}
        catalogue = self.reader.table("CAT", self.ver) if ("CAT", self.ver) in named else None
        return Sketch.of(self.shape, self.header, catalogue)

    def read(self, rows: slice) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
        """Return value less sky, variance, and whether it is bad; all 0 where it is."""
        bad = (self.reader.read("DQ", self.ver, rows) & ~np.uint16(_NOT_BAD)) != 0
        values = self.reader.read("SCI", self.ver, rows) - np.float32(self.sky)
        variance = np.square(self.reader.read("ERR", self.ver, rows))
        values[bad] = 0
        variance[bad] = 0
        return values, variance, bad


def resample(
    plane: Plane, affine: Affine, rows: slice, *, scale: float = 1.0
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
    """Bring a detector to some rows of the reference, by linear interpolation.

    Returns
    -------
    values, variance : ndarray of float32, (rows, nx)
        Times `scale`, and its square.
    hidden : ndarray of bool, (rows, nx)
        Where it has no good pixel.
    """
    from scipy.ndimage import affine_transform

    shape = (rows.stop - rows.start, plane.shape[1])
    if affine.is_identity:
        values, variance, hidden = plane.read(rows)
    else:
        first, last = _needed(affine, rows, plane.shape)
        if first >= last:
            return np.zeros(shape, np.float32), np.zeros(shape, np.float32), np.ones(shape, np.bool_)
        offset = affine.matrix @ np.array([rows.start, 0.0]) + affine.offset - np.array([first, 0.0])
        values, variance, bad = plane.read(slice(first, last))
        values, variance, weight = (
            affine_transform(array, affine.matrix, offset, shape, order=1, cval=0.0)
            for array in (values, variance, (~bad).astype(np.float32))
        )
        hidden = weight < 1 - _EDGE
    return values * np.float32(scale), variance * np.float32(scale * scale), hidden


def _needed(affine: Affine, rows: slice, shape: tuple[int, int]) -> tuple[int, int]:
    """Return the first row and the one after the last that some rows of the reference need."""
    corners = np.array([(row, column) for row in (rows.start, rows.stop - 1) for column in (0, shape[1] - 1)], float)
    reached = (corners @ affine.matrix.T + affine.offset)[:, 0]
    first, last = math.floor(reached.min()) - _MARGIN, math.ceil(reached.max()) + _MARGIN + 1
    return max(0, min(first, shape[0])), max(0, min(last, shape[0]))
