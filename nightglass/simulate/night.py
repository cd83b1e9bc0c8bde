"""A simulated night of the camera ``lynx``: biases, darks, flats and dithered fields, frame by frame."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from nightglass.errors import Misconfigured
from nightglass.model import Kind, Night
from nightglass.simulate.chip import Chip, Flaws, make_chip
from nightglass.simulate.sky import Field, Pointing, Scene, make_field, render

__all__ = [
    "NightPlan",
    "PlannedExposure",
    "Progress",
    "SimulatedExposure",
    "SimulatedNight",
    "Studio",
    "plan_exposures",
    "write_night",
]

Progress = Callable[[Path, int, int], None]
"""Called after each file with its path, the number of files written, and the number planned."""

_READ_OUT_S = 8.0
_MJD_EPOCH = datetime(1858, 11, 17, tzinfo=UTC)
_DEFAULT_NIGHT = Night("20260821")
_FLAT_LEVEL_E = 36000.0
_FIELD_PLACES = ((184.7403, 47.3040), (202.4696, 47.1952), (210.8023, 54.3490), (148.8882, 69.0653))
"""Degrees: around M 106, M 51, M 101 and M 81."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NightPlan:
    """What is exposed in a night.

    Attributes
    ----------
    biases, darks : int
        Frames; darks for each of `dark_exposures_s`.
    flats, science : int
        Frames per filter; science per field too.
    dithers : int
        Size of a dither set; `science` need not be a multiple of it, the last set then stays incomplete.
        1: no dithers and no keywords for them.
    fields : int
        Targets, at most four.
    shape : tuple of int
        Rows and columns of the data section.
    started_at : datetime or None
        Of the first exposure, aware; None: 18:30 UTC on the evening of the night.
    first_number : int
        Exposure number of the first frame.
    science_exposure_s, flat_exposure_s, dark_exposures_s
        Seconds, in the headers and the pixels only: nothing waits for them.

    Raises
    ------
    Misconfigured
        If there are too many fields.
    """

    night: Night = _DEFAULT_NIGHT
    biases: int = 5
    darks: int = 5
    flats: int = 5
    science: int = 8
    dithers: int = 4
    filters: tuple[str, ...] = ("g", "r")
    fields: int = 1
    shape: tuple[int, int] = (1024, 1024)
    started_at: datetime | None = None
    first_number: int = 1
    science_exposure_s: float = 60.0
    flat_exposure_s: float = 5.0
    dark_exposures_s: tuple[float, ...] = (60.0,)

    def __post_init__(self) -> None:
        if not 1 <= self.fields <= len(_FIELD_PLACES):
            message = f"a simulated night cannot have {self.fields} fields"
            raise Misconfigured(message, remedy=f"choose 1 to {len(_FIELD_PLACES)}")

    @property
    def opening(self) -> datetime:
        """Start of the first exposure, UTC."""
        if self.started_at is not None:
            return self.started_at.astimezone(UTC)
        evening = self.night.date
        return datetime(evening.year, evening.month, evening.day, 18, 30, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedExposure:
    """One line of the plan, before any pixel exists.

    Attributes
    ----------
    number : int
        EXPNUM, from the plan's first number on.
    field : int
        Index of the target; -1 for calibrations.
    dither, dithers : int
        Position in the dither set from 1, and its size; 0 where there is none.
    """

    number: int
    kind: Kind
    started_at: datetime
    exposure_time_s: float
    filter: str = ""
    field: int = -1
    dither: int = 0
    dithers: int = 0

    @property
    def file_name(self) -> str:
        """``lynx-00000042.fits``."""
        return f"lynx-{self.number:08d}.fits"


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedExposure:
    """A raw frame with its header, and the truth behind it.

    Attributes
    ----------
    raw_adu : ndarray of uint16, (ny, nx + overscan)
        As the camera delivers it.
    scene : Scene or None
        What was in the sky; None for calibrations.
    """

    planned: PlannedExposure
    header: fits.Header
    raw_adu: NDArray[np.uint16]
    flaws: Flaws
    scene: Scene | None

    def to_bytes(self) -> bytes:
        """Return the exposure as a FITS file: 16 bits with BZERO 32768, in the primary HDU."""
        stream = io.BytesIO()
        fits.PrimaryHDU(self.raw_adu, self.header).writeto(stream, output_verify="exception")
        return stream.getvalue()


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedNight:
    """What `write_night` wrote: the paths in the order of arrival, beside their plan."""

    plan: NightPlan
    seed: int
    exposures: tuple[PlannedExposure, ...]
    paths: tuple[Path, ...]


class Studio:
    """Makes the exposures of a plan, one at a time and in any order.

    Parameters
    ----------
    plan : NightPlan
        What to expose.
    seed : int
        Sky, chip and noise; the same seed gives the same bytes.
    """

    def __init__(self, plan: NightPlan, *, seed: int) -> None:
        self.plan = plan
        self.seed = seed
        self.chip: Chip = make_chip(plan.shape, seed=seed)
        self._fields: dict[int, Field] = {}

    def expose(self, planned: PlannedExposure) -> SimulatedExposure:
        """Make one exposure; it depends on plan, seed and number alone."""
        rng = np.random.default_rng([self.seed, 3, planned.number])
        scene: Scene | None = None
        light: NDArray[np.float32] | float = 0.0
        if planned.kind is Kind.SCIENCE:
            scene = render(self._field(planned.field), self._pointing(planned, rng), planned.exposure_time_s)
            light = scene.light_e
        elif planned.kind is Kind.FLAT:
            light = _FLAT_LEVEL_E * float(rng.uniform(0.85, 1.15))
        raw, flaws = self.chip.read_out(light, planned.exposure_time_s, rng)
        header = self._header(planned, scene)
        return SimulatedExposure(planned=planned, header=header, raw_adu=raw, flaws=flaws, scene=scene)

    def _field(self, index: int) -> Field:
        if index not in self._fields:
            ra, dec = _FIELD_PLACES[index]
            half_diagonal_deg = (
                np.hypot(*self.plan.shape) / 2 * Pointing(shape=(1, 1), filter="").pixel_scale_arcsec / 3600
            )
            self._fields[index] = make_field(
                f"Field {index + 1}",
                ra_deg=ra,
                dec_deg=dec,
                radius_deg=half_diagonal_deg + 0.02,
                seed=self.seed + index,
            )
        return self._fields[index]

    def _pointing(self, planned: PlannedExposure, rng: np.random.Generator) -> Pointing:
        steps = max(planned.dithers, 1)
        angle = 2 * np.pi * (planned.dither - 1) / steps
        radius_arcsec = 12.0 if planned.dithers > 1 else 0.0
        return Pointing(
            shape=self.plan.shape,
            filter=planned.filter,
            offset_arcsec=(
                radius_arcsec * np.cos(angle) + rng.normal(0, 0.5),
                radius_arcsec * np.sin(angle) + rng.normal(0, 0.5),
            ),
            fwhm_px=float(np.clip(rng.normal(3.2, 0.2), 2.4, 4.5)),
            transparency=float(rng.uniform(0.9, 1.0)),
        )

    def _header(self, planned: PlannedExposure, scene: Scene | None) -> fits.Header:
        ny, nx = self.plan.shape
        overscan = self.chip.overscan
        cards: list[tuple[str, Any, str]] = [
            ("TELESCOP", "Nightglass simulator", "a telescope that does not exist"),
            ("INSTRUME", "lynx", "camera"),
            ("EXPNUM", planned.number, "exposure number"),
            ("IMAGETYP", planned.kind.value, "bias, dark, flat or science"),
            ("OBJECT", self._target(planned), "target"),
            ("FILTER", planned.filter or "none", "filter"),
            ("EXPTIME", planned.exposure_time_s, "[s] exposure time"),
            ("DATE-OBS", planned.started_at.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3], "UTC start of the exposure"),
            (
                "MJD-OBS",
                (planned.started_at - _MJD_EPOCH) / timedelta(days=1),
                "[d] the same as a modified Julian date",
            ),
            ("TIMESYS", "UTC", "time scale"),
            ("GAIN", self.chip.gain, "[electron/adu] conversion gain"),
            ("RDNOISE", self.chip.read_noise, "[electron] read noise"),
            ("SATURATE", self.chip.saturation, "[adu] saturation level"),
            ("DATASEC", f"[1:{nx},1:{ny}]", "pixels that see light"),
            ("BIASSEC", f"[{nx + 1}:{nx + overscan},1:{ny}]", "overscan"),
            ("XBINNING", 1, "binning along x"),
            ("YBINNING", 1, "binning along y"),
            ("CCD-TEMP", -80.0, "[deg C] temperature of the detector"),
        ]
        if planned.dithers:
            cards.append(("DITHNUM", planned.dither, "position in the dither set"))
            cards.append(("NUMDITHS", planned.dithers, "exposures in the dither set"))
        header = fits.Header(cards)
        if scene is not None:
            header["AIRMASS"] = (1.2, "airmass at the start")
            header.extend(scene.wcs, end=True)
        return header

    def _target(self, planned: PlannedExposure) -> str:
        return self._field(planned.field).name if planned.kind is Kind.SCIENCE else planned.kind.value


def plan_exposures(plan: NightPlan) -> tuple[PlannedExposure, ...]:
    """Lay out a plan in time: biases, darks, twilight flats, then dither sets that change the filter set by set."""
    exposures: list[PlannedExposure] = []
    moment = plan.opening
    for number, item in enumerate(_items(plan), start=plan.first_number):
        exposures.append(PlannedExposure(number=number, started_at=moment, **item))
        moment += timedelta(seconds=item["exposure_time_s"] + _READ_OUT_S)
    return tuple(exposures)


def write_night(
    directory: Path,
    plan: NightPlan,
    *,
    seed: int,
    pace_s: float = 0.0,
    progress: Progress | None = None,
    write: Callable[[Path, bytes], object] = Path.write_bytes,
) -> SimulatedNight:
    """Write the exposures of a plan into a directory, in the order in which they were taken.

    Parameters
    ----------
    directory : Path
        Made if it is missing.
    seed : int
        The same plan and seed give the same files, byte for byte.
    pace_s : float
        Seconds between the starts of two files; 0: as fast as they can be made.
    progress : callable, optional
        Told about every file.
    write : callable
        Puts the bytes there; one of `nightglass.simulate.hostile` makes it difficult for the reader.

    Raises
    ------
    OSError
        If a file cannot be written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    studio = Studio(plan, seed=seed)
    exposures = plan_exposures(plan)
    paths = []
    begin = time.monotonic()
    for index, planned in enumerate(exposures):
        path = directory / planned.file_name
        content = studio.expose(planned).to_bytes()
        time.sleep(max(0.0, begin + index * pace_s - time.monotonic()))
        write(path, content)
        paths.append(path)
        if progress is not None:
            progress(path, index + 1, len(exposures))
    return SimulatedNight(plan=plan, seed=seed, exposures=exposures, paths=tuple(paths))


def _items(plan: NightPlan) -> Iterator[dict[str, Any]]:
    for _ in range(plan.biases):
        yield {"kind": Kind.BIAS, "exposure_time_s": 0.0}
    for seconds in plan.dark_exposures_s:
        for _ in range(plan.darks):
            yield {"kind": Kind.DARK, "exposure_time_s": seconds}
    for name in plan.filters:
        for _ in range(plan.flats):
            yield {"kind": Kind.FLAT, "exposure_time_s": plan.flat_exposure_s, "filter": name}
    dithers = plan.dithers if plan.dithers > 1 else 0
    size = max(plan.dithers, 1)
    for first in range(0, plan.science, size):
        for field in range(plan.fields):
            for name in plan.filters:
                for position in range(min(size, plan.science - first)):
                    yield {
                        "kind": Kind.SCIENCE,
                        "exposure_time_s": plan.science_exposure_s,
                        "filter": name,
                        "field": field,
                        "dither": position + 1 if dithers else 0,
                        "dithers": dithers,
                    }
