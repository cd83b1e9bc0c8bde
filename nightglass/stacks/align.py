"""How the pixels of one image lie on those of another: by their WCS, by their stars, or not at all.

A first guess comes from the WCS of both headers where both are believable, and is refined by the stars of both
catalogues. Without a WCS, or where its stars do not meet, astroalign's triangles are tried (Beroiz, Cabral & Sanchez
2020, A&C 32, 100384). Its random search only gives the guess: the result is the least-squares fit to all stars that
meet, which does not depend on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nightglass.steps.wcs import celestial_wcs

if TYPE_CHECKING:
    from astropy.io.fits import Header
    from astropy.table import Table
    from astropy.wcs import WCS

__all__ = ["Affine", "Alignment", "NoMatch", "Sketch", "align"]

_LEAST_STARS = 4
_BRIGHTEST = 60
_TRIANGLE_STARS = 40
_MEET_PIXELS = 3.0
_LEAST_FRACTION = 0.3
"""Of the stars that could meet, those that must."""
_MOST_RMS = 1.0
_MOST_SCALE = 0.05
_ROUNDS = 20

Points = NDArray[np.float64]
"""(x, y) of stars, counted from 0, brightest first; shape (n, 2)."""


class NoMatch(Exception):
    """A member cannot be aligned; the text says why."""


@dataclass(frozen=True, slots=True)
class Affine:
    """Takes (row, column) of the reference to (row, column) of a member."""

    matrix: NDArray[np.float64]
    offset: NDArray[np.float64]

    @property
    def is_identity(self) -> bool:
        """Whether nothing moves by more than a thousandth of a pixel in any image that is likely."""
        return bool(np.allclose(self.matrix, np.eye(2), atol=1e-7) and np.allclose(self.offset, 0, atol=1e-3))


@dataclass(frozen=True, slots=True)
class Alignment:
    """An affine map and where it comes from: ``stars``, ``wcs`` or ``identity``.

    Attributes
    ----------
    stars : int
        How many stars met.
    rms : float
        Their distances, pixels.
    """

    affine: Affine
    method: str
    stars: int = 0
    rms: float = 0.0

    def __str__(self) -> str:
        return f"{self.method}, {self.stars} stars, {self.rms:.2f} pixels rms" if self.stars else self.method


@dataclass(frozen=True, slots=True, kw_only=True)
class Sketch:
    """What alignment needs to know of an image.

    Attributes
    ----------
    shape : tuple of int
        (ny, nx)
    stars : ndarray, (n, 2)
        x, y from 0, brightest first.
    """

    shape: tuple[int, int]
    header: Header
    stars: Points

    @classmethod
    def of(cls, shape: tuple[int, int], header: Header, catalogue: Table | None) -> Sketch:
        """Make a sketch of a product's header and catalogue (columns X and Y counted from 1, and FLUX)."""
        if catalogue is None or len(catalogue) == 0:
            return cls(shape=shape, header=header, stars=np.empty((0, 2)))
        x, y, flux = (np.asarray(catalogue[name], np.float64) for name in ("X", "Y", "FLUX"))
        order = np.lexsort((x, y, -flux))
        order = order[np.isfinite(x + y + flux)[order]][:_BRIGHTEST]
        return cls(shape=shape, header=header, stars=np.column_stack([x[order], y[order]]) - 1.0)


def align(reference: Sketch, member: Sketch) -> Alignment:
    """Find how a member lies on the reference.

    Raises
    ------
    NoMatch
        If neither WCS nor stars tell.
    """
    if member is reference:
        return Alignment(Affine(np.eye(2), np.zeros(2)), "identity")
    if member.shape != reference.shape:
        message = f"its shape is {_size(member.shape)}, the first has {_size(reference.shape)}"
        raise NoMatch(message)
    guess = _by_wcs(reference, member)
    refined = _refined(guess, reference, member) if guess is not None else None
    if refined is not None:
        return _checked(refined)
    problem = ""
    try:
        refined = _refined(_by_triangles(reference.stars, member.stars), reference, member)
    except NoMatch as error:
        problem = str(error)
    if refined is not None:
        return _checked(refined)
    if guess is not None and min(len(reference.stars), len(member.stars)) < _LEAST_STARS:
        return _checked(Alignment(_swapped(guess), "wcs"))  # nothing contradicts it
    raise NoMatch(problem or "its stars do not meet those of the first")


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(str(side) for side in reversed(shape))


def _by_wcs(reference: Sketch, member: Sketch) -> NDArray[np.float64] | None:
    """Fit an affine map (2 x 3, x y to x y) through a grid of points that both solutions place on the sky."""
    first, second = (_believable(item.header) for item in (reference, member))
    if first is None or second is None:
        return None
    ny, nx = reference.shape
    x, y = (grid.ravel() for grid in np.meshgrid(np.linspace(0, nx - 1, 9), np.linspace(0, ny - 1, 9)))
    u, v = second.world_to_pixel(first.pixel_to_world(x, y))
    if not np.isfinite(np.asarray(u) + np.asarray(v)).all():
        return None
    solution, *_ = np.linalg.lstsq(np.column_stack([x, y, np.ones(x.size)]), np.column_stack([u, v]), rcond=None)
    return np.asarray(solution.T, np.float64)


def _believable(header: Header) -> WCS | None:
    return celestial_wcs(header) if header.get("WCSOK", True) else None


def _by_triangles(first: Points, second: Points) -> NDArray[np.float64]:
    import astroalign

    if min(len(first), len(second)) < _LEAST_STARS:
        message = f"it has {len(second)} stars and the first {len(first)}, {_LEAST_STARS} are needed to align by"
        raise NoMatch(message)
    try:
        found, _ = astroalign.find_transform(first[:_TRIANGLE_STARS], second[:_TRIANGLE_STARS])
    except (astroalign.MaxIterError, ValueError, TypeError, IndexError) as error:
        message = f"its stars do not match those of the first: {error}"
        raise NoMatch(message) from error
    return np.asarray(found.params, np.float64)[:2]


def _refined(guess: NDArray[np.float64], reference: Sketch, member: Sketch) -> Alignment | None:
    """Fit to the stars that meet under the guess, until the same ones meet again; None if too few do."""
    import scipy.spatial

    current, pairs = guess, np.empty((0, 2), np.int64)
    if not (len(reference.stars) and len(member.stars)):
        return None
    tree = scipy.spatial.KDTree(member.stars)
    for _ in range(_ROUNDS):
        former, pairs = pairs, _meeting(tree, _apply(current, reference.stars))
        if len(pairs) < _LEAST_STARS:
            return None
        if np.array_equal(former, pairs):
            break
        current = _similarity(reference.stars[pairs[:, 0]], member.stars[pairs[:, 1]])
    residuals = _apply(current, reference.stars[pairs[:, 0]]) - member.stars[pairs[:, 1]]
    rms = float(np.sqrt(np.mean(np.sum(residuals**2, axis=1))))
    if len(pairs) < _LEAST_FRACTION * _common(current, reference, member) or rms > _MOST_RMS:
        return None
    return Alignment(_swapped(current), "stars", len(pairs), rms)


def _meeting(tree: object, places: Points) -> NDArray[np.int64]:
    """Return pairs of stars that are each other's nearest, within some pixels; those far off the rest are left out."""
    distances, nearest = tree.query(places, distance_upper_bound=_MEET_PIXELS)  # type: ignore[attr-defined]
    best: dict[int, tuple[float, int]] = {}
    for index in np.flatnonzero(np.isfinite(distances)):
        target = int(nearest[index])
        if target not in best or (distances[index], index) < best[target]:
            best[target] = (float(distances[index]), int(index))
    limit = 3 * float(np.median([distance for distance, _ in best.values()])) + 0.1 if best else 0.0
    pairs = sorted((index, target) for target, (distance, index) in best.items() if distance <= limit)
    return np.array(pairs, np.int64).reshape(-1, 2)


def _similarity(first: Points, second: Points) -> NDArray[np.float64]:
    """Fit u = a x - b y + c, v = b x + a y + d."""
    x, y = first.T
    ones, zeros = np.ones_like(x), np.zeros_like(x)
    design = np.concatenate([np.column_stack([x, -y, ones, zeros]), np.column_stack([y, x, zeros, ones])])
    a, b, c, d = np.linalg.lstsq(design, np.concatenate([second[:, 0], second[:, 1]]), rcond=None)[0]
    return np.array([[a, -b, c], [b, a, d]])


def _apply(affine: NDArray[np.float64], points: Points) -> Points:
    return points @ affine[:, :2].T + affine[:, 2]


def _common(affine: NDArray[np.float64], reference: Sketch, member: Sketch) -> int:
    """Return how many stars of the reference fall on the member, at most as many as the member has."""
    places = _apply(affine, reference.stars)
    ny, nx = member.shape
    inside = np.all((places >= 0) & (places <= [nx - 1, ny - 1]), axis=1)
    return min(int(inside.sum()), len(member.stars))


def _swapped(affine: NDArray[np.float64]) -> Affine:
    """Turn a map of (x, y) into one of (row, column)."""
    return Affine(affine[::-1, [1, 0]].copy(), affine[::-1, 2].copy())


def _checked(found: Alignment) -> Alignment:
    scale = float(np.sqrt(abs(np.linalg.det(found.affine.matrix))))
    if abs(scale - 1) > _MOST_SCALE:
        message = f"its scale differs by a factor {scale:.3f}"
        raise NoMatch(message)
    return found
