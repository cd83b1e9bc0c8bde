"""A sky, nights and writers that do not exist, for tests, benchmarks and the demonstration."""

from nightglass.simulate.chip import Chip, Flaws, make_chip
from nightglass.simulate.night import (
    NightPlan,
    PlannedExposure,
    SimulatedExposure,
    SimulatedNight,
    Studio,
    plan_exposures,
    write_night,
)
from nightglass.simulate.sky import Field, Pointing, Scene, make_field, render

__all__ = [
    "Chip",
    "Field",
    "Flaws",
    "NightPlan",
    "PlannedExposure",
    "Pointing",
    "Scene",
    "SimulatedExposure",
    "SimulatedNight",
    "Studio",
    "make_chip",
    "make_field",
    "plan_exposures",
    "render",
    "write_night",
]
