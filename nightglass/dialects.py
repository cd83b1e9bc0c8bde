"""What a raw header says, in our words: one `ExposureRef` for a file, by the rules of its camera."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from nightglass.config import Camera, KindRule, Limits, Site
from nightglass.errors import Misconfigured, NightglassError, Rejected
from nightglass.fitsio.amplifiers import lay_out
from nightglass.fitsio.cards import Scalar
from nightglass.fitsio.detectors import DetectorPlan, find_value, plan_detectors
from nightglass.fitsio.headers import HduInfo, scan_headers
from nightglass.image import Slices
from nightglass.model import ExposureRef, Kind, Night, sanitize
from nightglass.nights import night_of
from nightglass.startimes import Start, find_start

__all__ = ["NAME_KEYWORD", "describe", "tour"]

NAME_KEYWORD = "@name"
"""Stands for the name of the file where a kind rule names a keyword."""

_SUFFIX = re.compile(r"(?:\.(?:fits?|fts|fz|gz))+$", re.IGNORECASE)
_NUMBERS = re.compile(r"\d+")
_MAX_NUMBER = 10**12
_HASH_LENGTH = 8


@dataclass(frozen=True, slots=True)
class _Found:
    """A value, and the keyword or rule that gave it."""

    text: str
    source: str


class _Reader:
    """The fields of one file."""

    def __init__(self, path: Path, headers: Sequence[HduInfo], camera: Camera) -> None:
        self.path = path
        self.headers = headers
        self.camera = camera
        self.rules = camera.header

    def lookup(self, keyword: str) -> Scalar:
        return self.path.name if keyword == NAME_KEYWORD else find_value(self.headers, keyword)

    def require(self) -> str:
        missing = [keyword for keyword in self.rules.required if self.lookup(keyword) is None]
        if missing:
            message = f"{self.path}: the header has no {', '.join(missing)}"
            raise Rejected(message, remedy=f"camera {self.camera.name} requires it, see header.required")
        return "all there"

    def detectors(self) -> tuple[DetectorPlan, ...]:
        plans = plan_detectors(self.path, self.headers, self.camera)
        for plan in plans:  # sections that do not fit are known now, without pixels
            lay_out(self.path, plan, self.headers[0], self.camera)
        return plans

    def text(self, keywords: Sequence[str]) -> _Found:
        for keyword in keywords:
            value = self.lookup(keyword)
            if value is not None:
                return _Found(" ".join(_as_text(value).split()), keyword)
        return _Found("", "")

    def exposure_time(self) -> tuple[float, str]:
        """Return seconds and keyword; 0 where no keyword is there."""
        wrong = []
        for keyword in self.rules.exposure_time:
            value = self.lookup(keyword)
            if value is None:
                continue
            try:
                seconds = float(value) * self.rules.exposure_time_unit_s
            except ValueError:
                seconds = math.nan
            if math.isfinite(seconds) and seconds >= 0:
                return seconds, keyword
            wrong.append(f"{keyword} = {value!r}")
        if wrong:
            message = f"{self.path}: {', '.join(wrong)} is no exposure time"
            raise Rejected(message, remedy="correct header.exposure_time in the camera file, or the header")
        return 0.0, ""

    def kind(self, seconds: float) -> tuple[Kind, str]:
        for number, rule in enumerate(self.rules.kinds, start=1):
            if self._fits(rule, seconds):
                asked = ", ".join(f"{key} ~ {pattern}" for key, pattern in rule.where.items())
                return rule.kind, f"kind rule {number}: {asked or 'exposure time'}"
        return self.rules.default_kind, "default_kind"

    def _fits(self, rule: KindRule, seconds: float) -> bool:
        if rule.min_exposure_s is not None and seconds < rule.min_exposure_s:
            return False
        if rule.max_exposure_s is not None and seconds > rule.max_exposure_s:
            return False
        return all(
            _pattern(pattern).search(_as_text(self.lookup(keyword)).strip()) for keyword, pattern in rule.where.items()
        )

    def start(self, seconds: float) -> Start | None:
        return find_start(self.rules.times, self.lookup, exposure_time_s=seconds, where=str(self.path))

    def number(self) -> tuple[int | None, str]:
        return self._numbered(self.rules.number, self.rules.number_from_name)

    def frame(self) -> tuple[int | None, str]:
        return self._numbered(self.rules.frame, self.rules.frame_from_name)

    def _numbered(self, keywords: Sequence[str], from_name: str) -> tuple[int | None, str]:
        for keyword in keywords:
            number = _integer(self.lookup(keyword))
            if number is not None and 0 <= number < _MAX_NUMBER:
                return number, keyword
        if from_name:
            found = _pattern(from_name).search(self.path.name)
            if found and found.groups() and found[1].isdecimal() and len(found[1]) <= len(str(_MAX_NUMBER)) - 1:
                return int(found[1]), "file name"
        return None, ""

    def group(self) -> tuple[int, int]:
        """Return position and size of the dither set, zeros where the header gives none that make sense."""
        number, count = (
            next((found for key in keys if (found := _integer(self.lookup(key))) is not None), 0)
            for keys in (self.rules.group_number, self.rules.group_count)
        )
        return (number, count) if 1 <= number <= count else (0, 0)

    def binning(self) -> _Found:
        factors: list[int] = []
        used = []
        for keyword in self.rules.binning:
            numbers = [int(item) for item in _NUMBERS.findall(_as_text(self.lookup(keyword)).split(".")[0])]
            numbers = [item for item in numbers if 0 < item < 1000]
            if len(numbers) == 2:
                return _Found(f"{numbers[0]}x{numbers[1]}", keyword)
            if len(numbers) == 1:
                factors += numbers
                used.append(keyword)
            if len(factors) == 2:
                break
        if not factors:
            return _Found("1x1", "")
        return _Found(f"{factors[0]}x{factors[-1]}", " ".join(used))


def describe(
    path: Path,
    headers: Sequence[HduInfo],
    camera: Camera,
    *,
    site: Site,
    night: Night | None,
    content_id: str,
    size: int,
    mtime: float,
) -> ExposureRef:
    """Make the reference to the exposure that a file holds; several detectors in one file are one exposure.

    Parameters
    ----------
    headers : sequence of HduInfo
        As `nightglass.fitsio.inspect` or `scan_headers` gives them.
    night : Night or None
        The night that it belongs to whatever its time says; None: by its time.
    mtime : float
        Time of the file's last change, seconds since 1970; the start where no keyword tells it.

    Raises
    ------
    Rejected
        If the file holds no detector of the camera, lacks a required keyword, or a value makes no sense.
    Misconfigured
        If a rule of the camera file is no regular expression.
    """
    reader = _Reader(path, headers, camera)
    reader.require()
    plans = reader.detectors()
    seconds, _ = reader.exposure_time()
    start = reader.start(seconds)
    moment = start.moment if start else datetime.fromtimestamp(mtime, UTC)
    night = night or night_of(moment, site)
    detector = plans[0].name if len(plans) == 1 else ""
    position, count = reader.group()
    whole, part, frame = _names(reader, f"{camera.name}/{night}", detector, content_id)
    return ExposureRef(
        exposure_id=f"{whole}{part}",
        night=night,
        camera=camera.name,
        kind=reader.kind(seconds)[0],
        path=path,
        size=size,
        content_id=content_id,
        started_at=moment,
        exposure_time_s=seconds,
        filter=reader.text(camera.header.filter).text,
        target=reader.text(camera.header.target).text,
        detector=detector,
        binning=reader.binning().text,
        readout=reader.text(camera.header.readout).text,
        group_number=position,
        group_count=count,
        parent=whole if part else "",
        frame=frame,
    )


def _names(reader: _Reader, place: str, detector: str, content_id: str) -> tuple[str, str, int | None]:
    """Return the id of the exposure, what is added to it for a file that is a part of it, and its frame."""
    number, _ = reader.number()
    if number is None:
        return f"{place}/{sanitize(_SUFFIX.sub('', reader.path.name))}-{content_id[:_HASH_LENGTH]}", "", None
    # detectors of one read-out, and frames of one exposure, that come as files of their own share its number
    apart = detector and any(rule.members == "detectors" for rule in reader.camera.groups)
    frame, _ = reader.frame()
    part = f"-{sanitize(detector)}" if apart else ""
    return f"{place}/{number}", part if frame is None else f"{part}-f{frame:04d}", frame


def tour(path: Path, camera: Camera, limits: Limits | None = None) -> list[tuple[str, str, str]]:
    """Try a camera file on a raw file: field, value, and the keyword or rule that gave it.

    What cannot be read shows its error in place of the value.

    Raises
    ------
    Rejected, Retryable
        If it is not a whole FITS file.
    """
    reader = _Reader(path, scan_headers(path, limits or Limits.model_validate({})), camera)
    rules = camera.header
    rows = [_row("exposure time", lambda: _pair(*reader.exposure_time(), unit=" s"))]
    try:
        seconds = reader.exposure_time()[0]
    except Rejected:
        seconds = 0.0  # shown above; the other fields are of interest all the same
    rows += [
        _row("required", lambda: _pair(reader.require(), ", ".join(rules.required))),
        _row("kind", lambda: _pair(*reader.kind(seconds))),
        _row("start", lambda: _start_row(reader.start(seconds))),
        _row("number", lambda: _pair(*reader.number())),
        _row("frame", lambda: _pair(*reader.frame())),
        _row("target", lambda: reader.text(rules.target)),
        _row("filter", lambda: reader.text(rules.filter)),
        _row("binning", reader.binning),
        _row("readout", lambda: reader.text(rules.readout)),
        _row("dither", lambda: _pair("{} of {}".format(*reader.group()), "")),
    ]
    try:
        rows += [row for plan in reader.detectors() for row in _detector_rows(reader, plan)]
    except NightglassError as error:
        rows.append(("detectors", str(error), type(error).__name__))
    return rows


def _row(field: str, read: Callable[[], _Found]) -> tuple[str, str, str]:
    try:
        found = read()
    except NightglassError as error:
        return field, str(error), type(error).__name__
    return field, found.text, found.source


def _pair(value: object, source: str, *, unit: str = "") -> _Found:
    return _Found("" if value is None else f"{value}{unit}", source)


def _start_row(start: Start | None) -> _Found:
    if start is None:
        return _Found("", "time of the file")
    return _Found(start.moment.isoformat(), start.source)


def _detector_rows(reader: _Reader, plan: DetectorPlan) -> list[tuple[str, str, str]]:
    canvas = lay_out(reader.path, plan, reader.headers[0], reader.camera)
    hdus = ", ".join(info.name or str(info.index) for info in plan.hdus)
    size = f"{canvas.shape[1]}x{canvas.shape[0]} pixels"
    rows = [(f"detector {plan.name}", "; ".join((size, *canvas.notes)), f"HDU {hdus}")]
    for number, view in enumerate(canvas.amplifiers, start=1):
        overscan = f", overscan {_section(view.overscan)}" if view.overscan else ""
        constants = f"gain {view.gain:g}, read noise {view.read_noise:g} e-, saturation {view.saturation:g} ADU"
        rows.append((f"amplifier {number}", f"data {_section(view.data)}{overscan}", constants))
    return rows


def _section(section: Slices) -> str:
    rows, columns = section
    return f"[{columns.start + 1}:{columns.stop},{rows.start + 1}:{rows.stop}]"


def _as_text(value: Scalar) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "T" if value else "F"
    return str(value)


def _integer(value: Scalar) -> int | None:
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, str):
        return int(value) if value.isdecimal() and len(value) < 20 else None
    return int(value) if math.isfinite(value) and value == int(value) else None


@cache
def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text, re.IGNORECASE)
    except re.error as error:
        message = f"{text!r} in the camera file is no regular expression: {error}"
        raise Misconfigured(
            message, remedy="correct header.kinds, header.number_from_name or header.frame_from_name"
        ) from None
