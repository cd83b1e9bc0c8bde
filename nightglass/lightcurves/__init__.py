"""Light curves: sources of a field over time, found again in every image, measured where they are not seen."""

from nightglass.lightcurves.associating import SourceList
from nightglass.lightcurves.curves import Additions, LightCurves
from nightglass.lightcurves.files import drop_live, light_curve_path, live_paths, make_light_curves
from nightglass.lightcurves.frames import Frame, open_frames
from nightglass.lightcurves.history import NoiseHistory
from nightglass.lightcurves.journal import CurveJournal
from nightglass.lightcurves.remarking import OUTLIER, remark_outliers
from nightglass.lightcurves.variability import RunningFluxes

__all__ = [
    "OUTLIER",
    "Additions",
    "CurveJournal",
    "Frame",
    "LightCurves",
    "NoiseHistory",
    "RunningFluxes",
    "SourceList",
    "drop_live",
    "light_curve_path",
    "live_paths",
    "make_light_curves",
    "open_frames",
    "remark_outliers",
]
