"""Configuration: defaults that work, precedence, and one clear line for each mistake."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from nightglass.config import (
    Camera,
    Observatory,
    QualityRule,
    choose,
    load_camera,
    load_observatory,
    load_toml,
    validate,
)
from nightglass.errors import Misconfigured
from nightglass.model import Kind, Quality

FILE = """
root = "/data/archive"
log_level = "DEBUG"

[site]
latitude = -24.6
longitude = -70.4
timezone = "America/Santiago"

[[sources]]
camera = "lynx"
directory = "/data/{camera}/{night}/raw"

[night]
midway = "sun"
final = "09:00"

[notices]
mail_from = "night@example.org"
mail_to = ["observer@example.org"]
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    place = tmp_path / "observatory.toml"
    place.write_text(FILE)
    return place


def test_the_defaults_need_no_set_up() -> None:
    observatory = load_observatory(environment={})
    assert observatory.root == Path("~/nightglass").expanduser()
    assert (observatory.night.midway, observatory.night.final) == ("16h", "48h")
    assert observatory.site.zone.key == "UTC"
    assert observatory.cluster.address == ""


def test_the_command_line_goes_before_the_environment_and_that_before_the_file(path: Path) -> None:
    environment = {
        "NIGHTGLASS_CONFIG": str(path),
        "NIGHTGLASS_ROOT": "/data/elsewhere",
        "NIGHTGLASS_MAIL_TO": "a@example.org, b@example.org,",
        "NIGHTGLASS_SMTP_PASSWORD": "secret",
    }
    observatory = load_observatory(
        environment=environment,
        overrides={"night": {"final": "48h"}, "site": {"name": None}, "limits": {"hdus": None}, "log_level": None},
    )
    assert observatory.root == Path("/data/elsewhere")
    assert observatory.night.final == "48h"
    assert observatory.night.midway == "sun"
    assert observatory.log_level == "DEBUG"
    assert observatory.notices.mail_to == ("a@example.org", "b@example.org")
    assert observatory.notices.smtp.password.get_secret_value() == "secret"
    assert "secret" not in repr(observatory)
    assert observatory.sources[0].camera == "lynx"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rooot": "/x"}, r"unknown key 'rooot', did you mean 'root'\?"),
        ({"night": {"midwy": "16h"}}, r"unknown key 'night.midwy', did you mean 'midway'\?"),
        ({"sources": [{"camera": "lynx", "directory": "x", "pole": True}]}, "unknown key 'sources.0.pole'"),
        ({"notices": {"smtp": {"hots": "x"}}}, r"unknown key 'notices.smtp.hots', did you mean 'host'\?"),
        ({"night": {"midway": "noon"}}, "16h"),
        ({"site": {"timezone": "Mars/Olympus"}}, "no time zone 'Mars/Olympus'"),
        ({"site": {"latitude": 95}}, "site.latitude: .*got 95"),
        ({"notices": {"mail_from": "a@b"}}, "sender and recipients"),
        ({"notices": {"mail_to": ["a@b"]}}, "sender and recipients"),
        ({"cluster": {"workers": 0}}, "cluster.workers"),
        ({"log_level": "LOUD"}, "log_level"),
    ],
)
def test_a_mistake_is_named_with_its_place(values: Mapping[str, Any], message: str) -> None:
    with pytest.raises(Misconfigured, match=message) as caught:
        validate(Observatory, values, where="x.toml")
    assert caught.value.message.startswith("x.toml: ")
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"root = ", "cannot be read"), (b"root = \xff\xfe", "cannot be read"), (None, "does not exist")],
)
def test_a_file_that_is_missing_or_no_toml_is_named(tmp_path: Path, content: bytes | None, message: str) -> None:
    place = tmp_path / "o.toml"
    if content is not None:
        place.write_bytes(content)
    with pytest.raises(Misconfigured, match=message):
        load_toml(place)
    with pytest.raises(Misconfigured, match=str(place)):
        load_observatory(place, environment={})


def test_a_choice_names_its_choices() -> None:
    with pytest.raises(Misconfigured, match=r"no camera 'lynz' \(did you mean 'lynx'\? choices: kast, lynx\)"):
        choose("lynz", ["lynx", "kast"], what="camera")
    with pytest.raises(Misconfigured, match=r"\(did you mean 'lynx'\?\)"):  # too many to be read
        choose("lynz", ["lynx", *map(str, range(20))], what="camera")
    with pytest.raises(Misconfigured, match="choices: none"):
        choose("x", [], what="thing")


CAMERA = """
name = "owl"
[steps.realtime]
default = ["overscan", "trim", "gain"]
science = ["overscan", "trim", "gain", {step = "background", box = 64}]
bias = []
[[detectors]]
name = "A"
bad_pixels = "owl-bad.fits"
[calibrations.dark]
match = ["detector", "exposure"]
"""


def test_a_camera_is_found_by_path_by_directory_and_by_packaged_name(tmp_path: Path) -> None:
    (tmp_path / "owl.toml").write_text(CAMERA)
    camera = load_camera("owl", directories=[tmp_path])
    assert camera == load_camera(str(tmp_path / "owl.toml"))
    assert camera.detectors[0].bad_pixels == str(tmp_path / "owl-bad.fits")
    assert [entry.step for entry in camera.step_list("realtime", Kind.SCIENCE)][-1] == "background"
    assert camera.step_list("realtime", Kind.SCIENCE)[-1].parameters == {"box": 64}
    assert camera.step_list("realtime", Kind.BIAS) == ()
    assert len(camera.step_list("realtime", Kind.FLAT)) == 3
    assert load_camera("generic").name == "generic"


def test_a_camera_has_a_rule_for_every_kind_of_master(tmp_path: Path) -> None:
    (tmp_path / "owl.toml").write_text(CAMERA)
    camera = load_camera("owl", directories=[tmp_path])
    assert set(camera.calibrations) == {Kind.BIAS, Kind.DARK, Kind.FLAT}
    assert camera.calibrations[Kind.DARK].match == ("detector", "exposure")
    assert camera.calibrations[Kind.FLAT].match == ("detector", "binning", "filter")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"trim"', '"trimm"', "no step .*'trimm'.*did you mean 'trim'"),
        ("box = 64", "bocks = 64", "unknown key 'bocks'"),
        ("calibrations.dark", "calibrations.arc", "not of arc"),
        ("calibrations.dark", "calibrations.drak", "calibrations"),
        ('name = "owl"', 'name = "../owl"', "name"),
        ("[steps.realtime]", '[[groups]]\nname = "set"\nmembers = "detectors"\n[steps.realtime]', "must name them"),
        ("[steps.realtime]", "[steps]", "steps.default"),
        ("bias = []", "bias = 3", "steps.realtime.bias"),
    ],
)
def test_a_mistake_in_a_camera_file_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    (tmp_path / "owl.toml").write_text(CAMERA.replace(old, new))
    with pytest.raises(Misconfigured, match=message) as caught:
        load_camera("owl", directories=[tmp_path])
    assert "owl.toml" in str(caught.value)


def test_an_unknown_camera_or_list_names_the_choices(tmp_path: Path) -> None:
    (tmp_path / "owl.toml").write_text(CAMERA)
    with pytest.raises(Misconfigured, match=r"no camera 'owls'.*did you mean 'owl'\?.*generic"):
        load_camera("owls", directories=[tmp_path])
    with pytest.raises(Misconfigured, match=r"no step list of camera owl 'realtme'.*did you mean 'realtime'"):
        load_camera("owl", directories=[tmp_path]).step_list("realtme", Kind.SCIENCE)


def test_a_rule_judges_by_its_worst_threshold() -> None:
    rule = QualityRule(quantity="seeing", warning_above=2.0, bad_above=4.0, bad_below=0.1)
    verdicts = [rule.verdict(value) for value in (1.0, 2.0, 2.1, 4.1, 0.05, float("nan"))]
    assert verdicts == [Quality.OK, Quality.OK, Quality.WARNING, Quality.BAD, Quality.BAD, Quality.WARNING]


def test_a_configuration_does_not_change() -> None:
    camera = validate(Camera, {"name": "owl", "steps": {}}, where="x")
    with pytest.raises(Exception, match="frozen"):
        camera.gain = 2.0  # type: ignore[misc]


def test_a_wrong_archive_section_is_told_with_choices_and_a_suggestion() -> None:
    with pytest.raises(Misconfigured, match=r"archive\.compress: .*'rice'.*got 'rise'"):
        validate(Observatory, {"archive": {"compress": "rise"}}, where="file")
    with pytest.raises(Misconfigured, match=r"archive\.purge\.age_day.*did you mean 'age_days'"):
        validate(Observatory, {"archive": {"purge": {"age_day": 3}}}, where="file")
    with pytest.raises(Misconfigured, match=r"archive\.metdata.*did you mean 'metadata'"):
        validate(Camera, {"name": "x", "steps": {}, "archive": {"metdata": ["A"]}}, where="file")


def test_nothing_is_purged_unless_asked_for() -> None:
    archive = Observatory().archive
    assert (archive.when, archive.what, archive.purge.active) == ("final", "raw", False)
    assert Observatory.model_validate({"archive": {"purge": {"age_days": 30}}}).archive.purge.active
