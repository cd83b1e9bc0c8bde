"""The reduction steps and their registry: one step a file, one line here.

`STEPS` holds them by name; a camera file lists the names in the order in which they run. Other distributions
add theirs through entry points of the group ``nightglass.steps``, each of which names a `Step`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from importlib.metadata import entry_points
from time import perf_counter

from nightglass.config.camera import StepEntry
from nightglass.config.section import Section, choose, validate
from nightglass.errors import Misconfigured
from nightglass.image import Image
from nightglass.steps import (
    background,
    bias,
    cosmics,
    dark,
    flat,
    gain,
    mask,
    noise,
    overscan,
    quality,
    seeing,
    sources,
    trim,
    wcs,
)
from nightglass.steps.step import LoadedMaster, Step, StepContext, applied

__all__ = ["STEPS", "LoadedMaster", "Step", "StepContext", "applied", "load_steps", "run_steps"]

STEPS: dict[str, Step] = {
    step.name: step
    for step in (
        overscan.STEP,
        trim.STEP,
        gain.STEP,
        bias.STEP,
        noise.STEP,
        dark.STEP,
        flat.STEP,
        mask.STEP,
        cosmics.STEP,
        background.STEP,
        sources.STEP,
        seeing.STEP,
        wcs.STEP,
        quality.STEP,
    )
}
"""Name -> step, in the order in which a camera would usually list them."""


@cache
def load_steps() -> dict[str, Step]:
    """Add the steps of other distributions to `STEPS`, and return it.

    Raises
    ------
    Misconfigured
        If an entry point cannot be loaded, is no `Step`, or takes a name that is taken.
    """
    for point in entry_points(group="nightglass.steps"):
        try:
            step = point.load()
        except (ImportError, AttributeError) as error:
            message = f"step {point.name!r} ({point.value}) cannot be loaded: {error}"
            raise Misconfigured(message, remedy="repair or remove the distribution that declares it") from error
        if not isinstance(step, Step) or step.name in STEPS:
            problem = "takes a name that is taken" if isinstance(step, Step) else "is no Step"
            message = f"entry point {point.name!r} ({point.value}) {problem}"
            raise Misconfigured(message, remedy="repair or remove the distribution that declares it")
        STEPS[step.name] = step
    return STEPS


def run_steps(
    image: Image,
    entries: Sequence[StepEntry],
    context: StepContext,
    *,
    on_step: Callable[[str, float], None] | None = None,
) -> Image:
    """Run a step list over the image of one detector.

    Parameters
    ----------
    on_step : callable, optional
        Told the name and the seconds of each step that ended.

    Raises
    ------
    Misconfigured
        If a step is unknown or its parameters do not fit.
    Rejected
        If a step cannot work on this image.
    """
    chosen = [_resolve(entry) for entry in entries]
    if not any(record.step in STEPS for record in image.history):  # raw; reading may have left a note
        for step, settings in chosen:
            if step.prepare is not None:
                image = step.prepare(image, context, settings)
    for step, settings in chosen:
        started = perf_counter()
        image = step.apply(image, context, settings)
        if on_step is not None:
            on_step(step.name, perf_counter() - started)
    return image


def _resolve(entry: StepEntry) -> tuple[Step, Section]:
    steps = load_steps()
    step = steps[choose(entry.step, steps, what="step")]
    return step, validate(step.settings, entry.parameters, where=f"step {entry.step}")
