"""The light curves of a field: one row for each source, band and time step."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nightglass.errors import NightglassError
from nightglass.lightcurves.associating import SourceList
from nightglass.lightcurves.history import NoiseHistory
from nightglass.lightcurves.variability import RunningFluxes

if TYPE_CHECKING:
    from nightglass.config import LightCurveRule
    from nightglass.lightcurves.frames import Frame

__all__ = ["CURVE_DTYPE", "IMAGE_DTYPE", "SUMMARY_DTYPE", "Additions", "LightCurves"]

_log = logging.getLogger(__name__)

CURVE_DTYPE = np.dtype(
    [
        ("source", "i4"),
        ("band", "U32"),
        ("frequency", "f8"),
        ("step", "i4"),
        ("mjd", "f8"),
        ("ra", "f8"),
        ("dec", "f8"),
        ("position_error", "f8"),
        ("flux", "f8"),
        ("flux_error", "f8"),
        ("detected", "?"),
        ("v", "f8"),
        ("eta", "f8"),
    ]
)
"""A measurement: where the source was found or looked for, in degrees, its flux in a circle, in the unit of the image,
and how much it varied up to now."""

IMAGE_DTYPE = np.dtype(
    [
        ("step", "i4"),
        ("exposure", "U160"),
        ("band", "U32"),
        ("frequency", "f8"),
        ("mjd", "f8"),
        ("noise", "f8"),
        ("sources", "i4"),
        ("rows", "i8"),
        ("trouble", "U100"),
    ]
)
"""An image: sources found, measurements up to and with it, and why it was left out, if it was."""

SUMMARY_DTYPE = np.dtype(
    [
        ("source", "i4"),
        ("band", "U32"),
        ("ra", "f8"),
        ("dec", "f8"),
        ("position_error", "f8"),
        ("measurements", "i4"),
        ("detections", "i4"),
        ("mean_flux", "f8"),
        ("weighted_flux", "f8"),
        ("v", "f8"),
        ("eta", "f8"),
    ]
)
"""A source in a band; positions in degrees."""

_LONGEST_BAND = CURVE_DTYPE["band"].itemsize // 4
_DAY_S = 86400.0
_MJD_UNIX = 40587.0


@dataclass(frozen=True, slots=True, eq=False)
class Additions:
    """What a time step adds.

    Attributes
    ----------
    images : ndarray of IMAGE_DTYPE
    curves : ndarray of CURVE_DTYPE
    outliers : tuple of str
        Images whose noise is not that of those before them, and by how much.
    """

    images: NDArray[np.void]
    curves: NDArray[np.void]
    outliers: tuple[str, ...] = ()


class LightCurves:
    """Grows by one time step after the other; the same image again changes nothing.

    All bands share one list of sources. What is known and not found in an image is measured at its place; what is new
    has no measurements before it was found. Rows are given out and not kept: memory grows with sources, and by some
    bytes with time steps.

    Attributes
    ----------
    left_out : int
        Images that say nothing about sources.
    """

    def __init__(self, rule: LightCurveRule) -> None:
        self._rule = rule
        self._sources = SourceList(de_ruiter=rule.de_ruiter, search_deg=rule.search_arcsec / 3600.0)
        self._fluxes: dict[str, RunningFluxes] = {}
        self._history = NoiseHistory(rule)
        self._steps: dict[str, int] = {}
        self._bands: dict[str, int] = {}
        self._known: list[int] = []
        self._rows = 0
        self.left_out = 0

    @property
    def steps(self) -> tuple[str, ...]:
        """Ids of the time steps that are in, in order."""
        return tuple(self._steps)

    def __contains__(self, key: str) -> bool:
        """Tell whether a time step is in, or some images of it."""
        return key in self._steps

    @property
    def summary(self) -> NDArray[np.void]:
        """Each source in each band: SUMMARY_DTYPE, by source."""
        positions, errors = self._sources.positions, self._sources.errors_deg
        tables = []
        for band, fluxes in sorted(self._fluxes.items()):
            numbers = np.flatnonzero((fluxes.count > 0) | (fluxes.detections > 0))
            table = np.zeros(len(numbers), SUMMARY_DTYPE)
            table["source"], table["band"] = numbers, band
            table["ra"], table["dec"] = positions[numbers].T
            table["position_error"] = errors[numbers]
            table["measurements"], table["detections"] = fluxes.count[numbers], fluxes.detections[numbers]
            table["mean_flux"], table["weighted_flux"] = fluxes.mean(numbers), fluxes.weighted_mean(numbers)
            table["v"], table["eta"] = fluxes.variation(numbers), fluxes.significance(numbers)
            tables.append(table)
        joined = np.concatenate([np.zeros(0, SUMMARY_DTYPE), *tables])
        return joined[np.lexsort((joined["band"], joined["source"]))]

    def add(self, key: str, started_at: datetime, frames: Iterable[Frame]) -> Additions:
        """Take in the images of a time step that are not in yet.

        Parameters
        ----------
        key : str
            Id of the exposure.
        frames : iterable of Frame
            In the order of frequency. One that cannot be read, has no coordinates, is bad, or whose noise is an
            outlier, is noted with the reason, and says nothing about sources.
        """
        step = self._steps.setdefault(key, len(self._steps))
        mjd = _MJD_UNIX + started_at.timestamp() / _DAY_S
        images, curves, outliers = [], [np.zeros(0, CURVE_DTYPE)], []
        for frame in frames:
            if self._is_known(step, frame.band):
                continue
            unusual = self._history.judge(frame.band, frame.noise)
            if unusual:
                outliers.append(f"{frame.band}: {unusual}")
            trouble, rows = frame.trouble or unusual, np.zeros(0, CURVE_DTYPE)
            if len(frame.band) > _LONGEST_BAND:  # cut off, it could be that of another one after a restart
                trouble = f"its name has more than {_LONGEST_BAND} characters"
            if not trouble:
                try:
                    rows = self._measured(frame, step, mjd)
                except NightglassError as error:
                    _log.warning("%s, %s is not in the light curves: %s", key, frame.band, error)
                    trouble = " ".join(str(error).split())
            self._history.note(frame.band, frame.noise)
            self._count(step, frame.band, len(rows), trouble)
            found = np.count_nonzero(rows["detected"])
            images.append((step, key, frame.band, frame.frequency, mjd, frame.noise, found, self._rows, trouble))
            curves.append(rows)
        return Additions(np.array(images, IMAGE_DTYPE), np.concatenate(curves), tuple(outliers))

    def replay(self, images: NDArray[np.void], curves: NDArray[np.void]) -> None:
        """Take in what was added before, in the same order: what comes next is as if nothing had happened between."""
        done = self._rows
        for image in images:
            step, band = int(image["step"]), str(image["band"])
            rows = curves[self._rows - done : int(image["rows"]) - done]
            self._steps.setdefault(str(image["exposure"]), step)
            self._history.note(band, float(image["noise"]))
            if not image["trouble"]:
                seen = rows[rows["detected"]]
                self._sources.put(
                    seen["source"].astype(np.intp), np.column_stack([seen["ra"], seen["dec"]]), seen["position_error"]
                )
                self._count_fluxes(band, rows)
            self._count(step, band, len(rows), str(image["trouble"]))

    def _is_known(self, step: int, band: str) -> bool:
        """Tell whether an image is in: a night has too many of them for a set."""
        return step < len(self._known) and band in self._bands and bool(self._known[step] >> self._bands[band] & 1)

    def _count(self, step: int, band: str, rows: int, trouble: str) -> None:
        self._known += [0] * (step + 1 - len(self._known))
        self._known[step] |= 1 << self._bands.setdefault(band, len(self._bands))
        self._rows += rows
        self.left_out += bool(trouble)

    def _count_fluxes(self, band: str, rows: NDArray[np.void]) -> RunningFluxes:
        fluxes = self._fluxes.setdefault(band, RunningFluxes())
        fluxes.add(rows["source"].astype(np.intp), rows["flux"], rows["flux_error"], detected=rows["detected"])
        return fluxes

    def _measured(self, frame: Frame, step: int, mjd: float) -> NDArray[np.void]:
        """Return the rows of an image; nothing is changed before all of it was read."""
        found = frame.detections(self._rule)
        numbers = self._sources.find(found.sky, found.errors_deg)
        unseen = np.setdiff1d(np.arange(len(self._sources)), numbers)
        places = self._sources.positions[unseen]
        flux, error = frame.measure(places)
        shown = np.flatnonzero(np.isfinite(flux))
        new = np.flatnonzero(numbers < 0)
        numbers[new] = len(self._sources) + np.arange(len(new))
        self._sources.put(numbers, found.sky, found.errors_deg)

        rows = np.zeros(len(numbers) + len(shown), CURVE_DTYPE)
        rows["source"] = np.concatenate([numbers, unseen[shown]])
        rows["band"], rows["frequency"], rows["step"], rows["mjd"] = frame.band, frame.frequency, step, mjd
        rows["ra"], rows["dec"] = np.concatenate([found.sky, places[shown]]).T
        rows["position_error"] = np.concatenate([found.errors_deg, self._sources.errors_deg[unseen[shown]]])
        rows["flux"] = np.concatenate([found.flux, flux[shown]])
        rows["flux_error"] = np.concatenate([found.flux_error, error[shown]])
        rows["detected"][: len(numbers)] = True
        fluxes = self._count_fluxes(frame.band, rows)
        sources = rows["source"].astype(np.intp)
        rows["v"], rows["eta"] = fluxes.variation(sources), fluxes.significance(sources)
        return rows
