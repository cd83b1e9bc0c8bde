from __future__ import annotations

import sys
from pathlib import Path

import pytest

from nightglass.config import StepEntry
from nightglass.errors import Misconfigured
from nightglass.steps import STEPS, load_steps, run_steps
from tests.unit.steps.scene import Scene

PLUGIN = """
from nightglass.config import Section
from nightglass.steps import Step, applied
class Settings(Section):
    pass
def polish(image, context, settings):
    return applied(image, "polish", "1", settings)
STEP = Step(name={name!r}, version="1", settings=Settings, apply=polish, doc="Polish.")
NUMBER = 3
"""


def install(directory: Path, target: str, *, name: str = "polish") -> None:
    (directory / "polisher.py").write_text(PLUGIN.format(name=name))
    info = directory / "polisher-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: polisher\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[nightglass.steps]\npolish = {target}\n")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "polisher", raising=False)
    known = dict(STEPS)
    load_steps.cache_clear()
    monkeypatch.setattr("nightglass.steps.STEPS", known)
    yield tmp_path
    load_steps.cache_clear()


def test_other_distributions_add_steps(place: Path, scene: Scene) -> None:
    install(place, "polisher:STEP")
    assert load_steps()["polish"].doc == "Polish."
    assert run_steps(scene.raw, [StepEntry(step="polish")], scene.context).history[-1].step == "polish"


@pytest.mark.parametrize(
    ("target", "name", "problem"),
    [
        ("polisher:NUMBER", "polish", "is no Step"),
        ("polisher:MISSING", "polish", "cannot be loaded"),
        ("no_such_module:STEP", "polish", "cannot be loaded"),
        ("polisher:STEP", "bias", "is taken"),
    ],
)
def test_a_broken_entry_point_is_named(place: Path, target: str, name: str, problem: str) -> None:
    install(place, target, name=name)
    with pytest.raises(Misconfigured, match=problem):
        load_steps()


def test_unknown_steps_and_settings_name_the_choices(scene: Scene) -> None:
    with pytest.raises(Misconfigured, match="did you mean 'flat'"):
        run_steps(scene.raw, [StepEntry(step="flatt")], scene.context)
    with pytest.raises(Misconfigured, match="did you mean 'sigclip'"):
        run_steps(scene.raw, [StepEntry(step="cosmics", parameters={"sigclp": 4})], scene.context)


def test_each_step_is_timed(scene: Scene) -> None:
    seconds: dict[str, float] = {}
    run_steps(
        scene.raw, [StepEntry(step="overscan"), StepEntry(step="trim")], scene.context, on_step=seconds.__setitem__
    )
    assert list(seconds) == ["overscan", "trim"]
    assert all(value >= 0 for value in seconds.values())
