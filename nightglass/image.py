"""Pixels in memory during reduction."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nightglass.model import StepRecord

if TYPE_CHECKING:
    from astropy.io.fits import Header
    from astropy.nddata import CCDData
    from astropy.table import Table

__all__ = ["AmplifierView", "Image", "Slices"]

Slices = tuple[slice, slice]
"""(rows, columns) of an array."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AmplifierView:
    """Where one amplifier lies in `Image.data`, and its constants.

    Attributes
    ----------
    data, overscan : Slices
        In the array as it is now; overscan is None once it is trimmed away or where there is none.
    place : Slices
        Where the data pixels go in the trimmed detector.
    gain : float
        Electrons per ADU.
    read_noise : float
        Electrons.
    saturation : float
        ADU in the raw frame.
    """

    data: Slices
    place: Slices
    overscan: Slices | None = None
    gain: float = 1.0
    read_noise: float = 0.0
    saturation: float = 65535.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """One detector of one exposure. Steps return a new one and leave their input alone.

    Attributes
    ----------
    data : ndarray of float32, (ny, nx)
        In ADU until the step ``gain``, then electrons; native byte order.
    variance : ndarray of float32, (ny, nx)
        Square of the 1-sigma error, in the square of data's unit.
    mask : ndarray of uint16, (ny, nx)
        Bits of `nightglass.model.DQ`.
    header : Header
        Of the raw HDU, with what steps measured.
    detector : str
        Name of the detector.
    unit : str
        ``adu`` or ``electron``.
    catalogue : Table or None
        Sources found, made by the step ``sources``.
    measured : dict of str to float
        What quality rules look at: seeing, background, noise, sources...
    history : tuple of StepRecord
        What was done so far.
    sky : ndarray of float32, (ny, nx), or None
        The sky that the step ``background`` measured and left in `data`.
    """

    data: NDArray[np.float32]
    variance: NDArray[np.float32]
    mask: NDArray[np.uint16]
    header: Header
    detector: str
    amplifiers: tuple[AmplifierView, ...]
    exposure_time_s: float = 0.0
    unit: str = "adu"
    catalogue: Table | None = None
    measured: dict[str, float] = field(default_factory=dict)
    history: tuple[StepRecord, ...] = ()
    sky: NDArray[np.float32] | None = None

    def with_(self, **changes: Any) -> Image:
        """Return a copy in which the given attributes are replaced."""
        return replace(self, **changes)

    def measuring(self, **values: float) -> Image:
        """Return a copy with more measured quantities."""
        return replace(self, measured=self.measured | values)

    def to_ccddata(self) -> CCDData:
        """Convert to `astropy.nddata.CCDData` (variance as VarianceUncertainty, mask as it is)."""
        from astropy.nddata import CCDData, VarianceUncertainty

        return CCDData(
            self.data, uncertainty=VarianceUncertainty(self.variance), mask=self.mask, meta=self.header, unit=self.unit
        )
