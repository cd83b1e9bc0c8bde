"""What holds for every step, those of other distributions included."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from nightglass.config import Section
from nightglass.image import Image
from nightglass.model import StepRecord
from nightglass.steps import Step, load_steps
from tests.unit.steps.scene import Scene, before, plain

STEPS = load_steps()
CHANGES_SHAPE = {"trim"}


@pytest.fixture(params=STEPS.values(), ids=STEPS.keys())
def step(request: pytest.FixtureRequest) -> Step:
    return request.param


def frozen(image: Image) -> Image:
    for array in (image.data, image.variance, image.mask):
        array.setflags(write=False)
    return image


def test_keeps_the_promises_of_a_step(step: Step, scene: Scene) -> None:
    image = frozen(before(scene, step))
    before_bytes = [array.tobytes() for array in (image.data, image.variance, image.mask)]
    header, measured, history = repr(image.header), dict(image.measured), image.history
    result = step.apply(image, scene.context, step.settings())
    assert [array.tobytes() for array in (image.data, image.variance, image.mask)] == before_bytes
    assert (repr(image.header), image.measured, image.history) == (header, measured, history)
    assert result.history[:-1] == history
    assert len(result.history) == len(history) + 1
    assert result.data.shape == result.variance.shape == result.mask.shape
    assert (result.data.dtype, result.variance.dtype, result.mask.dtype) == (np.float32, np.float32, np.uint16)
    assert all(array.flags.c_contiguous for array in (result.data, result.variance, result.mask))
    assert float(result.variance.min()) >= 0
    assert set(measured) <= set(result.measured)
    if step.name not in CHANGES_SHAPE:
        assert result.data.shape == image.data.shape
        assert np.array_equal(result.mask & image.mask, image.mask), "the mask only grows"
    sections = [view.data for view in result.amplifiers]
    assert all(rows.stop <= result.data.shape[0] and columns.stop <= result.data.shape[1] for rows, columns in sections)


def test_records_what_it_did(step: Step, scene: Scene) -> None:
    record = step.apply(before(scene, step), scene.context, step.settings()).history[-1]
    assert (record.step, record.version) == (step.name, step.version)
    assert record.parameters == step.settings().model_dump(mode="json")
    assert StepRecord.from_json(record.to_json()) == record


def test_gives_the_same_twice(step: Step, scene: Scene) -> None:
    image = before(scene, step)
    first, second = (step.apply(image, scene.context, step.settings()) for _ in range(2))
    assert first.data.tobytes() == second.data.tobytes()
    assert first.variance.tobytes() == second.variance.tobytes()
    assert first.history == second.history
    assert repr(first.header) == repr(second.header)


def test_survives_an_image_of_nothing_but_bad_pixels(step: Step, scene: Scene) -> None:
    image = before(scene, step)
    spoilt = image.with_(mask=np.ones_like(image.mask), data=np.zeros_like(image.data))
    result = step.apply(spoilt, scene.context, step.settings())
    assert np.isfinite(result.data).all()
    assert np.all(result.mask[result.mask != 16] & 1)


def test_is_described(step: Step) -> None:
    assert issubclass(step.settings, Section)
    assert step.doc.endswith(".")
    assert all(field.description for field in step.settings.model_fields.values()), "each setting has its doc"
    assert pickle.loads(pickle.dumps(step)) == step
    with pytest.raises(ValidationError):
        step.settings.model_validate({"no_such_setting": 1})


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (3, 400), (65, 64)], ids=str)
@pytest.mark.parametrize("fill", ["noise", "zero", "huge", "negative", "infinite"])
def test_odd_shapes_and_values_crash_nothing(shape: tuple[int, int], fill: str, scene: Scene) -> None:
    """astroscrappy overwrote memory, and sep took for ever, before they were kept from such images."""
    noise = np.random.default_rng(0).random(shape)
    values = {"noise": 100 + noise, "zero": 0 * noise, "huge": 1e30 * noise, "negative": -1e5 * noise}
    image = plain(values.get(fill, np.full(shape, np.inf)), unit="adu")
    context = replace(scene.context, masters={}, bad_pixels={})
    for step in STEPS.values():
        image = step.apply(image, context, step.settings())
    assert image.data.shape == shape
    assert image.history[-1].step == list(STEPS)[-1]
