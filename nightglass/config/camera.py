"""The camera file: everything Nightglass knows about one instrument, in one TOML file."""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from nightglass.config.archive import ArchiveKeywords
from nightglass.config.section import Section, choose
from nightglass.model import Kind, Quality

__all__ = [
    "Amplifier",
    "CalibrationRule",
    "Camera",
    "Detector",
    "Dialect",
    "GroupRule",
    "KindRule",
    "LightCurveRule",
    "MissingCalibration",
    "QualityRule",
    "StepEntry",
    "TimeRule",
]

SectionText = Annotated[str, Field(pattern=r"^\[\d+:\d+,\d+:\d+\]$")]
"""A FITS section ``[x1:x2,y1:y2]``, 1-based, both ends included."""

Keywords = tuple[str, ...]
"""Header keywords in the order in which they are tried."""


class TimeRule(Section):
    """How the start of an exposure is read; rules are tried in order."""

    keywords: Keywords
    """One keyword, or several whose texts are joined by ``T`` (date first, then time)."""
    format: Literal["iso", "mjd", "jd", "unix"] = "iso"
    """An ISO text may carry an offset, as ``2017-12-19T18:33:43-0700``."""
    utc_offset_hours: float = Field(0.0, ge=-14, le=14)
    """Offset of the clock from UTC, for texts that carry none."""
    shift_s: float = 0.0
    """Seconds added afterwards, for cameras that stamp another moment than the start."""
    minus_exposure: float = Field(0.0, ge=0, le=1)
    """Fraction of the exposure time that is taken off: 1 where the end is stamped, 0.5 for the middle."""


class KindRule(Section):
    """One rule that names the kind of an exposure; the first that fits wins."""

    kind: Kind
    where: dict[str, str] = Field(default_factory=dict)
    """Keyword -> regular expression, searched in the trimmed value without regard to case; all must fit.

    An absent keyword fits ``^$``."""
    min_exposure_s: float | None = None
    max_exposure_s: float | None = None


class Dialect(Section):
    """Which header keywords hold what, each with fallbacks."""

    number: Keywords = ()
    """Exposure number; without one the id is made of file name and content."""
    number_from_name: str = ""
    """Regular expression with one group that finds the number in the file name, used when no keyword has it."""
    frame: Keywords = ()
    """Number of a file among the frames of its exposure, for cameras that write each frame to a file of its own."""
    frame_from_name: str = ""
    """Regular expression with one group that finds that number in the file name, used when no keyword has it."""
    target: Keywords = ("OBJECT", "TARGET")
    filter: Keywords = ("FILTER", "FILTER1", "FILTERID", "FILTNAM")
    exposure_time: Keywords = ("EXPTIME", "EXPOSURE", "EXP_TIME", "ITIME")
    exposure_time_unit_s: float = Field(1.0, gt=0)
    """Seconds in one unit of the exposure-time keyword: 0.001 for milliseconds."""
    detector: Keywords = ("DETECTOR", "CCDNUM", "DETID")
    binning: Keywords = ("XBINNING", "YBINNING", "CCDSUM")
    """Two keywords for x and y, or one that holds both (``2 2``, ``2x2``)."""
    readout: Keywords = ("READMODE", "READ-SPD")
    gain: Keywords = ("GAIN", "EGAIN")
    read_noise: Keywords = ("RDNOISE", "READNOIS", "RON")
    saturation: Keywords = ("SATURATE", "SATLEVEL", "MAXLIN")
    group_number: Keywords = ("DITHNUM", "DITHERNO")
    group_count: Keywords = ("NUMDITHS", "NDITHERS")
    required: Keywords = ()
    """Keywords without which an exposure is rejected."""
    times: tuple[TimeRule, ...] = (
        TimeRule(keywords=("DATE-OBS",)),
        TimeRule(keywords=("DATE-OBS", "UT")),
        TimeRule(keywords=("DATE-OBS", "TIME-OBS")),
        TimeRule(keywords=("DATE-BEG",)),
        TimeRule(keywords=("MJD-OBS",), format="mjd"),
        TimeRule(keywords=("JD",), format="jd"),
    )
    kinds: tuple[KindRule, ...] = ()
    """Rules for the kind; `default_kind` when none fits."""
    default_kind: Kind = Kind.SCIENCE


class Amplifier(Section):
    """One amplifier of a detector, in the pixels of its HDU."""

    hdu: int | str | None = None
    """HDU of this amplifier, by number or EXTNAME, where each amplifier has its own."""
    data: SectionText | None = None
    """Pixels that saw light; None: the header's DATASEC, or else the whole HDU."""
    overscan: SectionText | None = None
    """Pixels that measure the bias level; None: the header's BIASSEC, or else none."""
    place: SectionText | None = None
    """Where the data pixels go in the assembled detector; None: where they are, less the overscan."""
    gain: float | None = Field(None, gt=0)
    """Electrons per ADU; None: from the header."""
    read_noise: float | None = Field(None, ge=0)
    """Electrons; None: from the header."""
    saturation: float | None = Field(None, gt=0)
    """ADU; None: from the header."""


class Detector(Section):
    """One detector of the camera."""

    name: str
    hdu: int | str = 0
    """HDU of the detector, by number or EXTNAME, unless its amplifiers name theirs."""
    amplifiers: tuple[Amplifier, ...] = (Amplifier(),)
    bad_pixels: str = ""
    """FITS image of the shape of the trimmed detector, not zero where a pixel is bad; relative to the camera file."""


class MissingCalibration(enum.StrEnum):
    """What happens to an exposure whose master does not exist, tonight's or archived."""

    WAIT = "wait"
    PROCEED = "proceed"


class CalibrationRule(Section):
    """How masters of one kind are combined, chosen and missed."""

    match: tuple[Literal["detector", "binning", "filter", "exposure", "readout"], ...] = ("detector", "binning")
    """What must be equal between a frame and its master."""
    min_frames: int = Field(3, ge=1)
    """Frames needed before a master is made."""
    max_frames: int = Field(100, ge=1)
    sigma: float = Field(5.0, gt=0)
    """Clipping limit, in robust standard deviations."""
    max_age_days: int = Field(30, ge=0)
    """Oldest archived master that may serve; 0: only tonight's."""
    missing: MissingCalibration = MissingCalibration.PROCEED
    min_level: float | None = None
    """Frames whose median (electrons, after overscan) is below are rejected as calibrations."""
    max_level: float | None = None
    max_deviation: float = Field(10.0, gt=0)
    """Frames whose level, noise or structure is this many robust deviations from their set are rejected."""
    min_response: float = Field(0.2, ge=0)
    """Flats only: pixels below this fraction of the mean response are marked LOW_FLAT."""
    exposure_scaling: bool = True
    """Darks only: scale by exposure time when no dark of equal time exists."""


class GroupRule(Section):
    """Which exposures are processed together."""

    name: str
    kinds: tuple[Kind, ...] = (Kind.SCIENCE,)
    by: tuple[Literal["target", "filter", "detector", "binning", "number", "readout"], ...] = (
        "target",
        "filter",
        "detector",
    )
    """What members have in common."""
    members: Literal["numbered", "detectors"] = "numbered"
    """``numbered``: by group_number of group_count; ``detectors``: one member for each of `expected`."""
    expected: tuple[str, ...] = ()
    timeout_s: float = Field(60.0, ge=0)
    """Time allowed after the last member, in addition to `timeout_exposures` exposure times."""
    timeout_exposures: float = Field(3.0, ge=0)
    stack: bool = True
    """Combine the reduced members into one stack."""

    @model_validator(mode="after")
    def _detectors_are_named(self) -> GroupRule:
        if self.members == "detectors" and not self.expected:
            message = f"group {self.name!r} counts detectors, so `expected` must name them"
            raise ValueError(message)
        return self


class QualityRule(Section):
    """Thresholds of one measured quantity; a verdict is the worst of all rules."""

    quantity: Literal["seeing", "background", "noise", "sources", "saturated", "masked", "elongation"]
    warning_above: float | None = None
    warning_below: float | None = None
    bad_above: float | None = None
    bad_below: float | None = None

    def verdict(self, value: float) -> Quality:
        """Judge one value; NaN gives a warning."""
        if math.isnan(value):
            return Quality.WARNING
        if _outside(value, self.bad_below, self.bad_above):
            return Quality.BAD
        return Quality.WARNING if _outside(value, self.warning_below, self.warning_above) else Quality.OK


def _outside(value: float, below: float | None, above: float | None) -> bool:
    return (below is not None and value < below) or (above is not None and value > above)


class LightCurveRule(Section):
    """How sources are followed over a night."""

    de_ruiter: float = Field(5.68, gt=0)
    """Largest distance between two measurements of one source, in units of their errors; TraP's default."""
    search_arcsec: float = Field(1800.0, gt=0)
    """The same on the sky."""
    position_error_pixels: float = Field(0.2, gt=0)
    """What remains uncertain about the position of a bright source."""
    most_sources: int = Field(2000, ge=1)
    """Of one image, brightest first."""
    rms_history: int = Field(100, ge=2)
    """Images of a band by whose noise the next one is judged, once there are as many; TraP's rms_est_history."""
    rms_sigma: float = Field(3.0, gt=0)
    """An image is left out if its noise is further from theirs than this many standard deviations; rms_rej_sigma."""


class StepEntry(Section):
    """One line of a step list: a name, or a table with `step` and parameters."""

    step: str
    parameters: dict[str, Any] = Field(default_factory=dict)


StepList = tuple[StepEntry, ...]


class Camera(Section):
    """One camera file."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")
    description: str = ""
    role: str = Field("science", pattern=r"^[a-z][a-z0-9]*$")
    pixel_scale: float | None = Field(None, gt=0)
    """Arcseconds per pixel, for seeing where there is no WCS."""
    gain: float = Field(1.0, gt=0)
    """Electrons per ADU where neither amplifier nor header says."""
    read_noise: float = Field(0.0, ge=0)
    """Electrons, as above."""
    saturation: float = Field(65535.0, gt=0)
    """ADU, as above."""
    files: tuple[str, ...] = ("*",)
    """Glob patterns of file names that belong to this camera."""
    header: Dialect = Dialect()
    detectors: tuple[Detector, ...] = ()
    """Empty: every HDU with a two-dimensional image is a detector."""
    calibrations: dict[Kind, CalibrationRule] = Field(default_factory=dict)
    groups: tuple[GroupRule, ...] = ()
    quality: tuple[QualityRule, ...] = ()
    lightcurves: LightCurveRule | None = None
    """Light curves grow with each exposure that is reduced, and are made anew at midway and final, if this is there."""
    archive: ArchiveKeywords = ArchiveKeywords()
    steps: dict[str, dict[str, StepList]]
    """List name -> kind (or ``default``) -> steps."""

    @field_validator("steps", mode="before")
    @classmethod
    def _short_entries(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        # what is of another form is left as it is, and named by the field's own check
        return {
            name: {
                kind: [_entry(item) for item in steps] if isinstance(steps, list | tuple) else steps
                for kind, steps in by_kind.items()
            }
            if isinstance(by_kind, Mapping)
            else by_kind
            for name, by_kind in value.items()
        }

    @field_validator("calibrations")
    @classmethod
    def _every_kind_has_a_rule(cls, value: dict[Kind, CalibrationRule]) -> dict[Kind, CalibrationRule]:
        defaults = {
            Kind.BIAS: CalibrationRule(),
            Kind.DARK: CalibrationRule(),
            Kind.FLAT: CalibrationRule(match=("detector", "binning", "filter")),
        }
        unknown = set(value) - set(defaults)
        if unknown:
            message = f"masters are made of bias, dark and flat, not of {', '.join(sorted(unknown))}"
            raise ValueError(message)
        return defaults | value

    def step_list(self, name: str, kind: Kind) -> StepList:
        """Return the steps of a named list for a kind of exposure.

        Raises
        ------
        Misconfigured
            If the camera has no list of that name; the message names those it has.
        """
        by_kind = self.steps[choose(name, self.steps, what=f"step list of camera {self.name}")]
        return by_kind.get(kind.value, by_kind.get("default", ()))


def _entry(item: Any) -> Any:
    if isinstance(item, str):
        return {"step": item}
    if isinstance(item, Mapping) and "parameters" not in item:
        return {"step": item.get("step", ""), "parameters": {k: v for k, v in item.items() if k != "step"}}
    return item
