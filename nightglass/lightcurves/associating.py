"""Which source of an image is which of those that are known: by the de Ruiter radius, as TraP does it.

The de Ruiter radius is the distance of two positions in units of their errors: de Ruiter, Willis & Arp 1977, A&AS 28,
211; its use for association: Swinbank et al. 2015, Astronomy and Computing 11, 25. Where several could be one
another, the closest pair is taken first, and each source is used once.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["SourceList"]

Floats = NDArray[np.float64]

_PAIRS = 1 << 18
"""Distances computed at a time: some 20 MiB of memory."""


class SourceList:
    """The sources of a field, with positions that get better with each measurement.

    Parameters
    ----------
    de_ruiter : float
        Largest distance in units of errors; 5.68 leaves out one true pair in 10 million.
    search_deg : float
        Largest distance on the sky, in degrees, however large the errors are.
    """

    def __init__(self, *, de_ruiter: float = 5.68, search_deg: float = 0.5) -> None:
        self._de_ruiter = de_ruiter
        self._search_deg = search_deg
        self._sums = np.zeros((0, 3))
        self._weights = np.zeros(0)

    def __len__(self) -> int:
        """Return the number of sources."""
        return len(self._weights)

    @property
    def positions(self) -> Floats:
        """Longitudes and latitudes in degrees, (sources, 2): means weighted by the inverse squares of errors."""
        x, y, z = self._sums.T
        return np.column_stack([np.degrees(np.arctan2(y, x)) % 360.0, np.degrees(np.arctan2(z, np.hypot(x, y)))])

    @property
    def errors_deg(self) -> Floats:
        """1-sigma errors of the positions in degrees, (sources,)."""
        return self._weights**-0.5

    def put(self, numbers: NDArray[np.intp], positions: Floats, errors_deg: Floats) -> None:
        """Add positions to those of sources, each of which is named once; larger numbers than there are make new ones.

        Parameters
        ----------
        positions : ndarray, (n, 2)
            Longitudes and latitudes in degrees.
        errors_deg : ndarray, (n,)
            1 sigma, greater than 0.
        """
        more = max(int(numbers.max(initial=-1)) + 1 - len(self), 0)
        self._sums = np.concatenate([self._sums, np.zeros((more, 3))])
        self._weights = np.concatenate([self._weights, np.zeros(more)])
        weights = errors_deg**-2.0
        self._sums[numbers] += _vectors(positions) * weights[:, None]
        self._weights[numbers] += weights

    def find(self, positions: Floats, errors_deg: Floats) -> NDArray[np.intp]:
        """Return which known source each of an image is, -1 for none; parameters as those of `put`."""
        numbers = np.full(len(positions), -1, np.intp)
        if not len(positions) or not len(self):
            return numbers
        known, squares = _vectors(self.positions), self.errors_deg**2
        pairs = []
        step = max(_PAIRS // len(self), 1)
        for start in range(0, len(positions), step):
            part = slice(start, start + step)
            # the chord is the arc for such distances, and has no trouble at poles and where longitudes begin anew
            chords = np.linalg.norm(_vectors(positions[part])[:, None] - known, axis=2)
            apart = np.degrees(2.0 * np.arcsin(np.minimum(chords / 2.0, 1.0)))
            radii = apart / np.sqrt(errors_deg[part, None] ** 2 + squares)
            here, there = np.nonzero((radii < self._de_ruiter) & (apart < self._search_deg))
            pairs.append(np.column_stack([radii[here, there], here + start, there]))
        found = np.concatenate(pairs)
        used = np.zeros(len(self), np.bool_)
        for _, here, there in found[np.lexsort((found[:, 2], found[:, 1], found[:, 0]))]:
            place, number = int(here), int(there)
            if numbers[place] < 0 and not used[number]:
                numbers[place], used[number] = number, True
        return numbers


def _vectors(positions: Floats) -> Floats:
    longitude, latitude = np.radians(positions).T
    cosine = np.cos(latitude)
    return np.column_stack([cosine * np.cos(longitude), cosine * np.sin(longitude), np.sin(latitude)])
