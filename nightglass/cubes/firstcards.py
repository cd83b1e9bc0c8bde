"""Cards for the headers of a cube, each from the first of its frames that has it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from fnmatch import translate

from nightglass.cubes.axes import is_any_axis, is_coordinate
from nightglass.cubes.headers import HeaderStack, find_cards, read_header
from nightglass.cubes.records import Survey
from nightglass.fitsio.cards import Scalar, repair_cards

__all__ = ["FirstCards"]


class FirstCards:
    """Cards of keywords, each from the first plane whose headers have it: those of its own HDU, then the primary."""

    def __init__(self, survey: Survey) -> None:
        self._survey = survey

    def value(self, index: int, keyword: str) -> Scalar:
        """Return the value of a keyword for one plane, None if there is none."""
        found = (read_header(text).get(keyword) for text in self._texts(index))
        return next((value for value in found if value is not None), None)

    def cards(self, indices: Sequence[int], patterns: Sequence[str], *, coordinates: bool) -> list[str]:
        """Return the cards of keywords that fit a shell pattern, made to conform.

        Parameters
        ----------
        indices : sequence of int
            Planes, in the order in which they are asked.
        coordinates : bool
            Whether the coordinates of the first plane come along: those of the first of its headers that has some, for
            they belong together. Coordinates are never taken by pattern.
        """
        found: dict[str, bytes] = {}
        if coordinates:
            for text in self._texts(indices[0]):
                mine = {keyword: cards for keyword, cards in find_cards(text).items() if is_coordinate(keyword)}
                if any(keyword.startswith(("CTYPE", "CRVAL")) for keyword in mine):
                    found.update(mine)
                    break
        if patterns:
            wanted = re.compile("|".join(translate(pattern.upper()) for pattern in patterns))
            for text in self._distinct(indices):
                for keyword, cards in find_cards(text).items():
                    if keyword not in found and wanted.match(keyword) and not is_any_axis(keyword):
                        found[keyword] = cards
        return repair_cards(b"".join(found.values()))[0]

    def _texts(self, index: int) -> Iterator[bytes]:
        plane = self._survey.planes[index]
        hdus = self._survey.files[plane.file].hdus
        yield hdus[plane.hdu].text
        if plane.hdu:
            yield hdus[0].text

    def _distinct(self, indices: Sequence[int]) -> Iterator[bytes]:
        """Return the headers that bring keywords which none before had, each image's own before its file's primary."""
        texts = [text for index in indices for text in self._texts(index)]
        yield from (texts[row] for row in HeaderStack(texts).firsts)
