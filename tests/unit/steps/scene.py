"""A small made-up detector for the tests of steps: two amplifiers with overscan, a star field, and its masters."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from astropy.io.fits import Header
from numpy.typing import NDArray

from nightglass.config import Camera, StepEntry
from nightglass.image import AmplifierView, Image
from nightglass.model import ExposureRef, Kind, MasterRef, Night
from nightglass.steps import STEPS, LoadedMaster, Step, StepContext, run_steps

NY, NX, OVERSCAN = 200, 240, 16
GAINS, NOISES, LEVELS = (1.5, 2.0), (4.0, 6.0), (1000.0, 1100.0)
SATURATION = 50_000.0
SKY_E, FWHM = 400.0, 3.4
EXPOSURE_S, DARK_S = 30.0, 120.0
NIGHT = Night("20260821")

REF = ExposureRef(
    exposure_id="made/20260821/7",
    night=NIGHT,
    camera="made",
    kind=Kind.SCIENCE,
    path=Path("made-0007.fits"),
    size=1,
    content_id="c0ffee",
    started_at=datetime(2026, 8, 21, 22, 3, 4, 500_000, tzinfo=UTC),
    exposure_time_s=EXPOSURE_S,
    filter="r",
)
CAMERA = Camera.model_validate(
    {
        "name": "made",
        "pixel_scale": 0.5,
        "steps": {},
        "quality": [
            {"quantity": "seeing", "warning_above": 2.0, "bad_above": 4.0},
            {"quantity": "sources", "bad_below": 5},
        ],
    }
)


@dataclass(frozen=True)
class Scene:
    """An exposure and the truth about it."""

    raw: Image
    context: StepContext
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    flux: NDArray[np.float64]
    bad: NDArray[np.bool_]


def amplifiers() -> tuple[AmplifierView, ...]:
    """Left half: data, then overscan; right half: the same, further right."""
    half = NX // 2
    views = []
    for index in range(2):
        left = index * (half + OVERSCAN)
        views.append(
            AmplifierView(
                data=(slice(0, NY), slice(left, left + half)),
                overscan=(slice(0, NY), slice(left + half, left + half + OVERSCAN)),
                place=(slice(0, NY), slice(index * half, (index + 1) * half)),
                gain=GAINS[index],
                read_noise=NOISES[index],
                saturation=SATURATION,
            )
        )
    return tuple(views)


def plain(data: NDArray[np.floating], **changes: object) -> Image:
    """Make an image of one amplifier without overscan, in electrons."""
    whole = (slice(0, data.shape[0]), slice(0, data.shape[1]))
    image = Image(
        data=data.astype(np.float32),
        variance=np.zeros(data.shape, np.float32),
        mask=np.zeros(data.shape, np.uint16),
        header=Header(),
        detector="A",
        amplifiers=(AmplifierView(data=whole, place=whole, read_noise=5.0, saturation=SATURATION),),
        exposure_time_s=EXPOSURE_S,
        unit="electron",
    )
    return image.with_(**changes)


def stars(
    shape: tuple[int, int], x: NDArray[np.float64], y: NDArray[np.float64], flux: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Draw Gaussian stars of `FWHM`."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    sigma = FWHM / 2.3548
    light = np.zeros(shape)
    for column, row, electrons in zip(x, y, flux, strict=True):
        distance = (columns - column) ** 2 + (rows - row) ** 2
        light += electrons / (2 * np.pi * sigma**2) * np.exp(-distance / (2 * sigma**2))
    return light


def master(kind: Kind, data: NDArray[np.floating], *, variance: float, exposure_time_s: float = 0.0) -> LoadedMaster:
    image = plain(data, variance=np.full(data.shape, variance, np.float32), exposure_time_s=exposure_time_s)
    ref = MasterRef(
        master_id=f"{kind.value}0123456789abcdef",
        kind=kind,
        camera="made",
        night=NIGHT,
        path=Path(f"{kind.value}.fits"),
        detector="A",
        exposure_time_s=exposure_time_s,
    )
    return LoadedMaster(ref=ref, images=(image,))


def make_scene(seed: int = 5) -> Scene:
    """Expose and read out."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:NY, :NX]
    bias = 3.0 * np.sin(columns / 9.0)  # electrons
    dark = np.full((NY, NX), 0.5)  # electrons per second
    flat = 1.0 - 0.3 * ((rows / NY - 0.5) ** 2 + (columns / NX - 0.5) ** 2)
    flat /= flat.mean()
    bad = np.zeros((NY, NX), bool)
    bad[:, 37] = True
    # on a jittered grid, so that none blends with another
    grid_y, grid_x = (item.ravel().astype(float) for item in np.mgrid[20 : NY - 10 : 32, 20 : NX - 10 : 32])
    x, y = grid_x + rng.uniform(-4, 4, grid_x.size), grid_y + rng.uniform(-4, 4, grid_y.size)
    flux = rng.uniform(4_000, 60_000, x.size)
    light = rng.poisson((SKY_E + stars((NY, NX), x, y, flux)) * flat + dark * EXPOSURE_S) + bias
    raw = np.empty((NY, NX + 2 * OVERSCAN))
    for index, view in enumerate(amplifiers()):
        drift = 10 * np.sin(np.arange(NY) / 60.0)[:, None]
        raw[view.data] = light[view.place] / GAINS[index]
        raw[view.overscan] = 0.0
        for part in (view.data, view.overscan):
            section = raw[part]
            section += LEVELS[index] + drift + rng.normal(0, NOISES[index] / GAINS[index], section.shape)
    raw = np.rint(raw)
    raw[100, 50] = SATURATION + 100
    header = Header()
    header["CTYPE1"], header["CTYPE2"] = "RA---TAN", "DEC--TAN"
    header["CRVAL1"], header["CRVAL2"] = 150.0, 2.0
    header["CRPIX1"], header["CRPIX2"] = 120.0, 100.0
    header["CDELT1"], header["CDELT2"] = -0.5 / 3600, 0.5 / 3600
    image = Image(
        data=raw.astype(np.float32),
        variance=np.zeros(raw.shape, np.float32),
        mask=np.zeros(raw.shape, np.uint16),
        header=header,
        detector="A",
        amplifiers=amplifiers(),
        exposure_time_s=EXPOSURE_S,
    )
    masters = {
        Kind.BIAS: master(Kind.BIAS, bias, variance=0.5),
        Kind.DARK: master(Kind.DARK, dark * DARK_S, variance=1.0, exposure_time_s=DARK_S),
        Kind.FLAT: master(Kind.FLAT, flat, variance=1e-6),
    }
    context = StepContext(camera=CAMERA, ref=REF, masters=masters, bad_pixels={"A": bad})
    return Scene(image, context, x, y, flux, bad)


def run(scene: Scene, *names: str) -> Image:
    """Run steps with default settings."""
    return run_steps(scene.raw, [StepEntry(step=name) for name in names], scene.context)


def before(scene: Scene, step: Step) -> Image:
    """Return the image as it comes to a step in the order of the registry."""
    names = list(STEPS)
    return run(scene, *names[: names.index(step.name)])
