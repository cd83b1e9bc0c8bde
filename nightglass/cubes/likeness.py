"""What the headers of many HDUs say of their images, found once for all that are alike."""

from __future__ import annotations

from collections.abc import Sequence

from nightglass.config import Limits
from nightglass.cubes.geometry import GEOMETRIC, Picture, find_picture
from nightglass.cubes.headers import HeaderStack
from nightglass.fitsio.cards import Scalar

__all__ = ["Pictures"]


class Pictures:
    """Images of HDUs, by their place in a sequence of headers."""

    def __init__(self, texts: Sequence[bytes], limits: Limits) -> None:
        stack = HeaderStack(texts)
        self._limits = limits
        self._names = [name for name in stack.keywords if GEOMETRIC.fullmatch(name)]
        columns = [stack.column(name) for name in self._names]
        self._rows: list[tuple[Scalar, ...]] = list(zip(*columns, strict=True)) or [()] * len(texts)
        self._found: dict[tuple[bool, tuple[Scalar, ...]], Picture | None] = {}

    def values(self, place: int) -> dict[str, Scalar]:
        """Return the keywords on which the image depends."""
        return dict(zip(self._names, self._rows[place], strict=True))

    def find(self, place: int, number: int) -> Picture | None:
        """Describe the image of a header; None if it has none.

        Parameters
        ----------
        number : int
            Which HDU of its file it belongs to.

        Raises
        ------
        Rejected
            As `find_picture`.
        """
        key = number == 0, self._rows[place]
        if key not in self._found:
            values = {name: value for name, value in self.values(place).items() if value is not None}
            self._found[key] = find_picture(values, number, self._limits)
        return self._found[key]
