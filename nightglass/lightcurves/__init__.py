"""Light curves: sources of a field over time, found again in every image, measured where they are not seen."""

from nightglass.lightcurves.associating import SourceList
from nightglass.lightcurves.curves import LightCurves
from nightglass.lightcurves.files import light_curve_path, make_light_curves
from nightglass.lightcurves.variability import RunningFlux

__all__ = ["LightCurves", "RunningFlux", "SourceList", "light_curve_path", "make_light_curves"]
