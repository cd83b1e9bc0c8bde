"""What emulated senders send: radio skies in sub-bands, readouts of a pixel chip, from real files or made up."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nightglass.errors import Rejected
from nightglass.streams.aartfaac import encode_window, make_header
from nightglass.streams.astropix import ApxReader, encode_readout, make_hits

__all__ = ["FREQUENCIES_HZ", "SkyBands", "read_plane", "run_readouts", "synthetic_readouts", "synthetic_sky"]

FREQUENCIES_HZ = (6.0e6, 6.5e6, 7.0e6, 7.5e6, 8.0e6, 8.5e6)
"""Those of the telescope's own emulator."""
_KEPT = ("CTYPE", "CRVAL", "CRPIX", "CDELT", "CUNIT")
_KEPT_ONCE = ("BUNIT", "BMAJ", "BMIN", "BPA", "EQUINOX", "RADESYS", "LONPOLE", "LATPOLE", "OBJECT", "TELESCOP")
_BEAM_PX = 2.0
_STAMP = 13
_NOISE = 0.05
_SWING = 0.6
_SWING_STEPS = 12
_ROWS, _COLUMNS = 13, 16


class SkyBands:
    """The same sky in several sub-bands, one window for each step; to be called with band and step.

    Parameters
    ----------
    pixels : ndarray of float32, (NAXIS2, NAXIS1)
    cards : dict
        More keywords of the header.
    began : datetime
        Time of step 0.
    period_s : float
        From step to step.
    seed : int, optional
        With one, noise that changes from step to step is added, and a source in the middle that swings.
    """

    def __init__(
        self,
        pixels: NDArray[np.float32],
        *,
        cards: dict[str, str | float] | None = None,
        frequencies_hz: Sequence[float] = FREQUENCIES_HZ,
        began: datetime | None = None,
        period_s: float = 1.0,
        seed: int | None = None,
    ) -> None:
        self._pixels = np.ascontiguousarray(pixels, np.float32)
        self._cards = dict(cards or {})
        self._frequencies = tuple(frequencies_hz)
        self._began = began or datetime.now(UTC).replace(microsecond=0)
        self._period_s = period_s
        self._seed = seed
        if seed is not None:
            self._noise = np.random.default_rng(seed).normal(0, _NOISE, pixels.shape).astype(np.float32)
            self._middle = _spots(pixels.shape, [(pixels.shape[0] // 2, pixels.shape[1] // 2, 1.0)])

    def __call__(self, band: int, step: int) -> bytes:
        """Return the window of a sub-band and step, as it stands on the wire."""
        moment = self._began + timedelta(seconds=step * self._period_s)
        header = make_header(
            self._pixels.shape, timestamp=moment, frequency_hz=self._frequencies[band], cards=dict(self._cards)
        )
        return encode_window(header, self.plane(band, step))

    def plane(self, band: int, step: int) -> NDArray[np.float32]:
        """Return the pixels of a window."""
        if self._seed is None:
            return self._pixels
        shifts = np.random.default_rng((self._seed, band, step)).integers(0, 4096, 2)
        flux = 1 + _SWING * np.sin(2 * np.pi * step / _SWING_STEPS)
        shown = self._pixels + np.roll(self._noise, shifts.tolist(), (0, 1)) + np.float32(flux) * self._middle
        return np.asarray(shown, np.float32)


def synthetic_sky(shape: tuple[int, int] = (1024, 1024), *, sources: int = 30, seed: int = 1) -> NDArray[np.float32]:
    """Return a sky of point sources, peaks 10 to 200 times the noise that `SkyBands` adds; the middle is left free."""
    rng = np.random.default_rng(seed)
    margin = _STAMP
    places = rng.uniform((margin, margin), (shape[0] - margin, shape[1] - margin), (sources, 2))
    far = np.hypot(*(places - np.array(shape) / 2).T) > 2 * _STAMP
    fluxes = rng.uniform(0.5, 10, sources)
    return _spots(shape, [(y, x, flux) for (y, x), flux, keep in zip(places, fluxes, far, strict=True) if keep])


def read_plane(path: Path) -> tuple[NDArray[np.float32], dict[str, str | float]]:
    """Return the first image of a FITS file that has two axes of more than one pixel, and what places it in the sky.

    Raises
    ------
    Rejected
        If there is none.
    """
    from astropy.io import fits

    with fits.open(path, memmap=False) as hdus:
        for hdu in hdus:
            plane = None if hdu.data is None or not hdu.is_image else np.squeeze(hdu.data)
            if plane is not None and plane.ndim == 2:
                names = [f"{name}{axis}" for name in _KEPT for axis in (1, 2)] + list(_KEPT_ONCE)
                cards = {name: hdu.header[name] for name in names if name in hdu.header}
                return np.ascontiguousarray(plane, np.float32), cards
    message = f"{path} holds no plane"
    raise Rejected(message, remedy="name a FITS file with a two-dimensional image")


def run_readouts(path: Path, *, loops: int = 1) -> Iterator[bytes]:
    """Yield the packets of an ``.apx`` file as they are, over and over; 0 loops: without end.

    Raises
    ------
    Rejected
        If it is no such file.
    Retryable
        If it cannot be read.
    """
    for _ in range(loops) if loops else itertools.count():
        with ApxReader(path) as reader:
            for readout in reader:
                yield readout.to_bytes()


def synthetic_readouts(*, count: int = 0, rate_hz: float = 100.0, hits: float = 3.0, seed: int = 1) -> Iterator[bytes]:
    """Yield packets of a chip that is lit evenly, time over threshold about 20 to 120 us; 0: without end.

    Parameters
    ----------
    rate_hz : float
        Readouts a second, by their time stamps.
    hits : float
        Mean number in a readout.
    """
    rng = np.random.default_rng(seed)
    began_ns = time.time_ns()
    for number in range(count) if count else itertools.count():
        drawn = int(rng.poisson(hits))
        made = make_hits(
            row=rng.integers(0, _ROWS, drawn),
            column=rng.integers(0, _COLUMNS, drawn),
            begin=rng.integers(0, 1 << 17, drawn),
            cycles=np.clip(rng.normal(1400, 400, drawn), 20, 10_000).astype(np.int64),
        )
        stamp = began_ns + int(number * 1e9 / rate_hz)
        yield encode_readout(made, readout_id=number, timestamp_ns=stamp).to_bytes()


def _spots(shape: tuple[int, ...], spots: Sequence[tuple[float, float, float]]) -> NDArray[np.float32]:
    plane = np.zeros(shape, np.float32)
    half = _STAMP // 2
    for y, x, flux in spots:
        top, left = max(round(y) - half, 0), max(round(x) - half, 0)
        rows, columns = np.ogrid[top : min(top + _STAMP, shape[0]), left : min(left + _STAMP, shape[1])]
        spot = flux * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * _BEAM_PX**2))
        plane[top : top + _STAMP, left : left + _STAMP] += spot.astype(np.float32)
    return plane
