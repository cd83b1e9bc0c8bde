"""Keywords of every HDU of every file of a survey, by column, and the starts of planes that they tell."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final

from nightglass.config import Camera
from nightglass.config.camera import Dialect, TimeRule
from nightglass.cubes.headers import HeaderStack
from nightglass.cubes.records import FrameFile, Plane, Survey
from nightglass.errors import Rejected
from nightglass.fitsio.cards import Scalar
from nightglass.startimes import find_start

__all__ = ["FileHeaders", "StartReader", "plane_starts"]

_USUAL: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{3}|\.\d{6})?")
"""What most cameras write, and what the standard library reads forty times as fast as the rules do."""
_PLAUSIBLE: Final = (datetime(1900, 1, 2, tzinfo=UTC), datetime(2199, 12, 31, tzinfo=UTC))


class FileHeaders:
    """The headers of all HDUs of some files.

    Attributes
    ----------
    stack : HeaderStack
        Of all of them, file by file.
    """

    def __init__(self, files: Sequence[FrameFile]) -> None:
        self.stack = HeaderStack([hdu.text for file in files for hdu in file.hdus])
        self._first: list[int] = []
        self._columns: dict[str, list[Scalar]] = {}
        count = 0
        for file in files:
            self._first.append(count)
            count += len(file.hdus)

    def place(self, file: int, hdu: int = 0) -> int:
        """Return where an HDU stands in the columns."""
        return self._first[file] + hdu

    def column(self, keyword: str) -> list[Scalar]:
        """Return the value of a keyword in each HDU; texts without blanks around, empty ones as None."""
        found = self._columns.get(keyword)
        if found is None:
            raw = self.stack.column(keyword)
            if self.stack.constant(keyword):
                found = [_stripped(value) for value in raw[:1]] * len(raw)
            else:
                found = [_stripped(value) for value in raw]
            self._columns[keyword] = found
        return found

    def columns(self, keywords: Sequence[str]) -> dict[str, list[Scalar]]:
        """Return the columns of those keywords that any HDU has."""
        there = set(self.stack.keywords)
        return {keyword: self.column(keyword) for keyword in dict.fromkeys(keywords) if keyword in there}


def _stripped(value: Scalar) -> Scalar:
    return (value.strip() or None) if isinstance(value, str) else value


class StartReader:
    """Starts of exposures by the rules of a camera, or by those that most cameras follow."""

    def __init__(self, camera: Camera | None) -> None:
        rules: Dialect = camera.header if camera else Dialect.model_validate({})
        self._rules = rules.times
        self._exposure = rules.exposure_time
        self._unit_s = rules.exposure_time_unit_s
        self._usual_first = _is_usual(rules.times)
        self._known: dict[tuple[Scalar, ...], datetime | None] = {}
        self.timing: tuple[str, ...] = tuple(dict.fromkeys(name for rule in rules.times for name in rule.keywords))
        """Keywords that tell a time."""
        self.keywords: tuple[str, ...] = tuple(dict.fromkeys((*self.timing, *rules.exposure_time)))
        """Keywords on which `start` depends, in the order of its argument."""

    def start(self, values: tuple[Scalar, ...]) -> datetime | None:
        """Return the start that the values of `keywords` tell, None if they tell none that can be read."""
        if self._usual_first and isinstance(values[0], str) and _USUAL.fullmatch(values[0]):
            try:
                moment = datetime.fromisoformat(values[0]).replace(tzinfo=UTC)
            except ValueError:
                moment = _PLAUSIBLE[0]
            if _PLAUSIBLE[0] < moment < _PLAUSIBLE[1]:
                return moment
        if values not in self._known:
            self._known[values] = self._by_rules(dict(zip(self.keywords, values, strict=True)).get)
        return self._known[values]

    def _by_rules(self, lookup: Callable[[str], Scalar]) -> datetime | None:
        try:
            found = find_start(self._rules, lookup, exposure_time_s=self._seconds(lookup), where="")
        except (Rejected, OverflowError):
            return None
        return found.moment if found else None

    def _seconds(self, lookup: Callable[[str], Scalar]) -> float:
        for keyword in self._exposure:
            value = lookup(keyword)
            try:
                seconds = float(value) * self._unit_s if value is not None else math.nan
            except ValueError:
                continue
            if 0 <= seconds < 1e9:
                return seconds
        return 0.0


def _is_usual(rules: Sequence[TimeRule]) -> bool:
    """Tell whether a text in the first keyword is the start, in UTC, whatever else there is."""
    return bool(rules) and rules[0] == TimeRule(keywords=rules[0].keywords) and len(rules[0].keywords) == 1


def plane_starts(survey: Survey, camera: Camera | None = None) -> tuple[datetime | None, ...]:
    """Return the start of each plane of a survey (aware, UTC); None where its headers do not tell it.

    The header of the plane's own HDU counts first, then the primary header. That speaks for one plane only: where a
    file holds several of one source, those after the first have a start only if their own header says something.
    """
    headers = FileHeaders(survey.files)
    reader = StartReader(camera)
    columns = headers.columns(reader.keywords)
    empty: list[Scalar] = [None] * len(headers.stack)
    wanted = [columns.get(keyword, empty) for keyword in reader.keywords]
    timing = len(reader.timing)
    seen: set[tuple[int, str]] = set()
    starts: list[datetime | None] = []
    for plane in survey.planes:
        first = (plane.file, plane.source) not in seen
        seen.add((plane.file, plane.source))
        starts.append(_start(plane, headers, reader, wanted, timing, first=first))
    return tuple(starts)


def _start(
    plane: Plane, headers: FileHeaders, reader: StartReader, wanted: list[list[Scalar]], timing: int, *, first: bool
) -> datetime | None:
    if plane.number:  # the header tells when the first of its planes began
        return None
    own = headers.place(plane.file, plane.hdu)
    values = tuple([column[own] for column in wanted])
    found = reader.start(values)
    if found is not None or plane.hdu == 0:
        return found
    if not first and all(value is None for value in values[:timing]):
        return None
    primary = headers.place(plane.file)
    return reader.start(tuple([column[own] if column[own] is not None else column[primary] for column in wanted]))
