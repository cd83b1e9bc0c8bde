"""A simulated CCD: what a detector does to light, with every flaw that calibration has to take out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nightglass.simulate.stamps import window

__all__ = ["Chip", "Flaws", "Pixels", "make_chip"]

Pixels = NDArray[np.float32]

_OFFSET_ADU = 1000.0
_DARK_E_PER_S = 0.02
_HOT_FRACTION = 3e-4
_DEAD_FRACTION = 3e-5
_RAW_LIMIT = 65535


@dataclass(frozen=True, slots=True, kw_only=True)
class Flaws:
    """What differs from read-out to read-out.

    Attributes
    ----------
    offset_drift_adu : float
        Change of the bias level, which only the overscan knows.
    cosmic_rows, cosmic_columns : ndarray of intp
        Pixels of the data section that a cosmic ray hit.
    """

    offset_drift_adu: float
    cosmic_rows: NDArray[np.intp]
    cosmic_columns: NDArray[np.intp]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chip:
    """The constants of one detector.

    Attributes
    ----------
    shape : tuple of int
        Rows and columns of the data section.
    gain : float
        Electrons per ADU.
    read_noise : float
        Electrons.
    saturation : float
        ADU at which a pixel is full; nothing above it is recorded.
    overscan : int
        Columns to the right of the data section that see no light.
    bias_adu : ndarray of float32, (ny, nx)
        Structure of the bias above the offset, with a zero mean.
    dark_e_per_s : ndarray of float32, (ny, nx)
        Dark current; hot pixels stand out.
    response : ndarray of float32, (ny, nx)
        Relative response, vignetting, dust and pixel to pixel scatter together; mean about 1.
    bad : ndarray of bool, (ny, nx)
        Dead pixels and the bad column.
    """

    shape: tuple[int, int]
    gain: float
    read_noise: float
    saturation: float
    overscan: int
    bias_adu: Pixels
    dark_e_per_s: Pixels
    response: Pixels
    bad: NDArray[np.bool_]

    def read_out(
        self, light_e: Pixels | float, exposure_time_s: float, rng: np.random.Generator
    ) -> tuple[NDArray[np.uint16], Flaws]:
        """Expose the chip and read it.

        Parameters
        ----------
        light_e : ndarray of float32, (ny, nx), or float
            Electrons that an ideal chip (response 1) would collect.
        exposure_time_s : float
            Seconds, for dark current and cosmic rays.

        Returns
        -------
        tuple
            Raw frame in ADU, uint16, shape (ny, nx + overscan), and what was special in this read-out.

        Notes
        -----
        Shot and read noise are drawn together as one normal deviate; where there are few electrons, the read noise
        dominates, so that the difference from a Poisson deviate does not show.
        """
        drift = float(rng.normal(0.0, 3.0))
        electrons = self.response * light_e
        electrons += self.dark_e_per_s * np.float32(exposure_time_s)
        noise = rng.standard_normal(self.shape, dtype=np.float32)
        noise *= np.sqrt(electrons + np.float32(self.read_noise**2))
        electrons += noise
        rows, columns, charges = _cosmic_rays(self.shape, exposure_time_s, rng)
        np.add.at(electrons, (rows, columns), charges)
        electrons *= np.float32(1.0 / self.gain)
        np.minimum(electrons, np.float32(self.saturation), out=electrons)
        raw = np.empty((self.shape[0], self.shape[1] + self.overscan), np.float32)
        raw[:, : self.shape[1]] = electrons
        raw[:, : self.shape[1]] += self.bias_adu
        raw[:, self.shape[1] :] = rng.standard_normal((self.shape[0], self.overscan), dtype=np.float32)
        raw[:, self.shape[1] :] *= np.float32(self.read_noise / self.gain)
        raw += np.float32(_OFFSET_ADU + drift + 0.5)  # half an ADU, because the cast below cuts
        np.clip(raw, 0, _RAW_LIMIT, out=raw)
        return raw.astype(np.uint16), Flaws(offset_drift_adu=drift, cosmic_rows=rows, cosmic_columns=columns)


def make_chip(
    shape: tuple[int, int],
    *,
    seed: int,
    gain: float = 1.5,
    read_noise: float = 5.0,
    saturation: float = 60000.0,
    overscan: int = 32,
) -> Chip:
    """Make a chip; the same seed gives the same flaws.

    Parameters
    ----------
    shape : tuple of int
        Rows and columns of the data section, each at least 16.
    gain : float
        Electrons per ADU.
    read_noise : float
        Electrons.
    saturation : float
        ADU.
    overscan : int
        Columns.
    """
    rng = np.random.default_rng([seed, 1])
    bad = _bad_pixels(shape, rng)
    response = _vignetting(shape) * _dust(shape, rng)
    response *= 1 + np.float32(0.008) * rng.standard_normal(shape, dtype=np.float32)
    response /= response.mean()
    response[bad] *= np.float32(0.05)
    return Chip(
        shape=shape,
        gain=gain,
        read_noise=read_noise,
        saturation=saturation,
        overscan=overscan,
        bias_adu=_bias_structure(shape, rng),
        dark_e_per_s=_dark_current(shape, rng),
        response=response,
        bad=bad,
    )


def _bad_pixels(shape: tuple[int, int], rng: np.random.Generator) -> NDArray[np.bool_]:
    bad = rng.random(shape) < _DEAD_FRACTION
    column = int(rng.integers(shape[1] // 8, shape[1] - shape[1] // 8))
    bad[int(rng.integers(shape[0] // 2)) :, column] = True
    return bad


def _bias_structure(shape: tuple[int, int], rng: np.random.Generator) -> Pixels:
    """Column pattern, a slow wave of the electronics along the columns, and a glow at the read-out corner."""
    rows, columns = _grid(shape)
    columns_adu = rng.normal(0.0, 1.2, (1, shape[1])).astype(np.float32)
    wave = 1.5 * np.sin(2 * np.pi * rows * 3.0 + 0.7)
    glow = 8.0 * np.exp(-np.hypot(rows, columns) / 0.08)
    structure = columns_adu + wave + glow
    return np.asarray(structure - structure.mean(), np.float32)


def _dark_current(shape: tuple[int, int], rng: np.random.Generator) -> Pixels:
    """Uniform current with a glow at one edge; hot pixels have up to some tens of electrons per second."""
    rows, _ = _grid(shape)
    current = np.broadcast_to(_DARK_E_PER_S * (1 + 2 * np.exp(-(1 - rows) / 0.1)), shape).astype(np.float32)
    hot = rng.random(shape) < _HOT_FRACTION
    current[hot] += rng.lognormal(1.5, 1.0, int(hot.sum())).astype(np.float32)
    return current


def _vignetting(shape: tuple[int, int]) -> Pixels:
    rows, columns = _grid(shape)
    radius = (rows - 0.48) ** 2 + (columns - 0.53) ** 2
    return np.asarray(1.0 - 0.35 * radius, np.float32)


def _dust(shape: tuple[int, int], rng: np.random.Generator) -> Pixels:
    """Out-of-focus dust: rings with the shadow of the secondary mirror in the middle."""
    shade = np.ones(shape, np.float32)
    for _ in range(max(2, round(shape[0] * shape[1] / 1.5e5))):
        outer = rng.uniform(0.012, 0.035) * max(shape) + 4
        y0, x0 = rng.uniform(0, shape[0]), rng.uniform(0, shape[1])
        depth = rng.uniform(0.02, 0.08)
        box = window(shape, y0, x0, outer + 6)
        y, x = np.ogrid[box]
        distance = np.hypot(y - y0, x - x0)
        ring = _edge(outer - distance) * _edge(distance - 0.4 * outer)
        shade[box] *= (1 - depth * ring).astype(np.float32)
    return shade


def _edge(inside_px: NDArray[np.float64]) -> NDArray[np.float64]:
    """Go from 0 to 1 within some pixels."""
    return np.asarray(1 / (1 + np.exp(-np.clip(inside_px / 1.5, -20, 20))))


def _cosmic_rays(
    shape: tuple[int, int], exposure_time_s: float, rng: np.random.Generator
) -> tuple[NDArray[np.intp], NDArray[np.intp], Pixels]:
    """Straight tracks: most are a few pixels long, some graze the chip."""
    count = int(rng.poisson(3e-7 * exposure_time_s * shape[0] * shape[1]))
    rows: list[NDArray[np.intp]] = [np.empty(0, np.intp)]
    columns: list[NDArray[np.intp]] = [np.empty(0, np.intp)]
    charges: list[Pixels] = [np.empty(0, np.float32)]
    for _ in range(count):
        length = 1 + min(40.0, rng.exponential(4.0))
        angle = rng.uniform(0, 2 * np.pi)
        steps = np.arange(0, length, 0.5)
        y = np.rint(rng.uniform(0, shape[0]) + steps * np.sin(angle)).astype(np.intp)
        x = np.rint(rng.uniform(0, shape[1]) + steps * np.cos(angle)).astype(np.intp)
        inside = (y >= 0) & (y < shape[0]) & (x >= 0) & (x < shape[1])
        rows.append(y[inside])
        columns.append(x[inside])
        charges.append(rng.gamma(2.0, 700.0, int(inside.sum())).astype(np.float32))
    return np.concatenate(rows), np.concatenate(columns), np.concatenate(charges)


def _grid(shape: tuple[int, int]) -> tuple[Pixels, Pixels]:
    """Return row and column as fractions of the chip, of shapes (ny, 1) and (1, nx)."""
    rows, columns = (np.arange(size, dtype=np.float32) / np.float32(size) for size in shape)
    return rows[:, None], columns[None, :]
