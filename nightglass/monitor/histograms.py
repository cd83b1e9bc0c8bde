"""Weighted histograms of one and two dimensions, which can be merged, compared and kept as JSON."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nightglass.errors import Rejected

__all__ = ["Histogram", "Histogram1d", "Histogram2d"]

_MOST_CELLS = 1 << 24


class Histogram:
    """Counts in cells between fixed edges; what lies outside is counted beside them.

    A value on an edge belongs to the cell above it, on the last edge to the last cell, as `numpy.histogram` has it.
    Memory is that of the cells, however much is filled in.

    Parameters
    ----------
    edges : array_like
        One for each dimension, growing.
    labels : str
        What each axis shows, with its unit.

    Raises
    ------
    Rejected
        If edges do not grow, or there are more than 2^24 cells.
    """

    def __init__(self, *edges: ArrayLike, labels: tuple[str, ...] = ()) -> None:
        self.edges = tuple(np.array(axis, np.float64) for axis in edges)
        self.labels = labels or ("",) * len(self.edges)
        for axis in self.edges:
            if axis.ndim != 1 or axis.size < 2 or not np.isfinite(axis).all() or not (np.diff(axis) > 0).all():
                message = f"edges {axis!r} do not grow"
                raise Rejected(message, remedy="give at least two finite edges, each above the one before")
        self._shape = tuple(axis.size + 1 for axis in self.edges)
        if np.prod([float(size) for size in self._shape]) > _MOST_CELLS or len(self.labels) != len(self.edges):
            message = f"{self._shape} cells with {len(self.labels)} labels make no histogram"
            raise Rejected(message, remedy="use at most 2^24 cells, and one label for each axis")
        self.reset()

    def reset(self) -> None:
        """Empty all cells."""
        self._sums = np.zeros(self._shape)
        self._squares = np.zeros(self._shape)
        self.entries = 0
        self.invalid = 0

    def fill(self, *values: ArrayLike, weights: ArrayLike | None = None) -> None:
        """Count values, one array for each axis; those with a NaN are invalid, and in no cell.

        Parameters
        ----------
        values : array_like
            All of one shape.
        weights : array_like, optional
            Of the same shape; 1 each without.

        Raises
        ------
        Rejected
            If there are not as many arrays as axes, or they differ in shape.
        """
        columns = [np.asarray(column, np.float64).ravel() for column in values]
        heavy = None if weights is None else np.asarray(weights, np.float64).ravel()
        sizes = {column.size for column in (*columns, *(() if heavy is None else (heavy,)))}
        if len(columns) != len(self.edges) or len(sizes) != 1:
            message = f"{len(columns)} arrays of {sorted(sizes)} values for {len(self.edges)} axes"
            raise Rejected(message, remedy="give one array for each axis, and weights, all of one shape")
        good = ~np.isnan(columns).any(axis=0) if heavy is None else ~np.isnan([*columns, heavy]).any(axis=0)
        kept = int(good.sum())
        self.entries += kept
        self.invalid += good.size - kept
        if kept != good.size:
            columns = [column[good] for column in columns]
            heavy = None if heavy is None else heavy[good]
        cells = np.zeros(kept, np.intp)
        for axis, column in zip(self.edges, columns, strict=True):
            cells = cells * (axis.size + 1) + _places(axis, column)
        self._add(cells, heavy)

    def _add(self, cells: NDArray[np.intp], weights: NDArray[np.float64] | None) -> None:
        size = self._sums.size
        counts = np.bincount(cells, weights, size).reshape(self._shape)
        self._sums += counts
        self._squares += counts if weights is None else np.bincount(cells, weights**2, size).reshape(self._shape)

    @property
    def contents(self) -> NDArray[np.float64]:
        """Sum of weights in each cell, one dimension for each axis."""
        return self._sums[(slice(1, -1),) * len(self.edges)]

    @property
    def errors(self) -> NDArray[np.float64]:
        """Square root of the sum of squared weights: the Poisson error where weights are 1."""
        return np.sqrt(self._squares[(slice(1, -1),) * len(self.edges)])

    @property
    def total(self) -> float:
        """Sum of weights within the edges."""
        return float(self.contents.sum())

    @property
    def outside(self) -> float:
        """Sum of weights beyond the edges, on any side."""
        return float(self._sums.sum() - self.contents.sum())

    def set_cells(self, sums: ArrayLike, squares: ArrayLike, entries: int, invalid: int) -> None:
        """Replace everything that was counted.

        Parameters
        ----------
        sums, squares : array_like
            Sums of weights and of their squares, in all cells, those beyond the edges included.

        Raises
        ------
        ValueError
            If there are not as many as cells.
        """
        # copies: a histogram shares its cells with nobody
        self._sums = np.array(sums, np.float64).reshape(self._shape)
        self._squares = np.array(squares, np.float64).reshape(self._shape)
        self.entries, self.invalid = entries, invalid

    def scale(self, factor: float) -> Self:
        """Return the histogram with all weights multiplied."""
        return self._like(self._sums * factor, self._squares * factor**2, self.entries, self.invalid)

    def __add__(self, other: Self) -> Self:
        self._demand_alike(other)
        counts = self.entries + other.entries, self.invalid + other.invalid
        return self._like(self._sums + other._sums, self._squares + other._squares, *counts)

    def __sub__(self, other: Self) -> Self:
        """Return the difference of the contents; errors add up in squares, as do the entries."""
        self._demand_alike(other)
        counts = self.entries + other.entries, self.invalid + other.invalid
        return self._like(self._sums - other._sums, self._squares + other._squares, *counts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Histogram) and self.as_json() == other.as_json()

    __hash__ = None  # type: ignore[assignment]

    def as_json(self) -> dict[str, Any]:
        """Return everything as plain values; `from_json` makes the same histogram of them."""
        return {
            "edges": [axis.tolist() for axis in self.edges],
            "labels": list(self.labels),
            "sums": self._sums.ravel().tolist(),
            "squares": self._squares.ravel().tolist(),
            "entries": self.entries,
            "invalid": self.invalid,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Return the histogram that `as_json` described.

        Raises
        ------
        Rejected
            If the values describe none.
        """
        made = cls.__new__(cls)
        try:
            Histogram.__init__(made, *values["edges"], labels=tuple(str(label) for label in values["labels"]))
            made.set_cells(values["sums"], values["squares"], int(values["entries"]), int(values["invalid"]))
        except (KeyError, TypeError, ValueError) as error:
            message = f"no histogram in what was given: {error!r}"
            raise Rejected(message, remedy="give what as_json returned") from error
        return made

    def _like(self, sums: NDArray[np.float64], squares: NDArray[np.float64], entries: int, invalid: int) -> Self:
        made = copy.copy(self)
        made.set_cells(sums, squares, entries, invalid)
        return made

    def _demand_alike(self, other: Histogram) -> None:
        mine, theirs = self.edges, other.edges
        if len(mine) != len(theirs) or not all(map(np.array_equal, mine, theirs)):
            message = "histograms with different edges cannot be put together"
            raise Rejected(message, remedy="make both with the same edges")


class Histogram1d(Histogram):
    """Counts along one axis.

    Parameters
    ----------
    edges : array_like
        Growing; ``numpy.linspace(0, 500, 100)`` makes 99 cells.
    label : str
        What the axis shows, with its unit.
    """

    def __init__(self, edges: ArrayLike, *, label: str = "") -> None:
        super().__init__(edges, labels=(label,))

    @property
    def underflow(self) -> float:
        """Sum of weights below the first edge."""
        return float(self._sums[0])

    @property
    def overflow(self) -> float:
        """Sum of weights above the last edge."""
        return float(self._sums[-1])


class Histogram2d(Histogram):
    """Counts over two axes; `contents` has the shape (cells of x, cells of y)."""

    def __init__(self, x_edges: ArrayLike, y_edges: ArrayLike, *, x_label: str = "", y_label: str = "") -> None:
        super().__init__(x_edges, y_edges, labels=(x_label, y_label))


def _places(edges: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return the cell of each value: 0 below the first edge, and one more than there are cells above the last."""
    places = np.searchsorted(edges, values, side="right")
    places[values == edges[-1]] = edges.size - 1
    return places
