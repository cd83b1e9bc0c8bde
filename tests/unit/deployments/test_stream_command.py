"""What ``nightglass stream`` and the observatory file make of a stream."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from deployments.cli.places import camera_named, known_sources
from deployments.cli.request import RunRequest, make_plan
from deployments.cli.stream import named_stream
from nightglass.config import Overflow
from nightglass.errors import Misconfigured
from tasks.listening import camera_of_stream

FILE = """
[[streams]]
name = "sky"
camera = "aartfaac"
protocol = "aartfaac"
endpoints = ["127.0.0.1:6666"]

[[streams]]
name = "hits"
camera = "astropix"
protocol = "astropix"
endpoints = ["239.1.1.1:5007"]
"""


@pytest.fixture
def configuration(tmp_path: Path) -> Path:
    path = tmp_path / "observatory.toml"
    path.write_text(FILE)
    return path


def test_what_is_not_given_keeps_its_default() -> None:
    stream = named_stream("aartfaac", ["127.0.0.1:6666", "[::1]:6667"], camera="aartfaac", name=None, wait_s=None)
    assert (stream.name, stream.endpoints, stream.wait_s) == ("aartfaac", ("127.0.0.1:6666", "[::1]:6667"), 2.0)
    given = named_stream("aartfaac", ["127.0.0.1:1"], camera="c", name="dawn", overflow="block", members=6)
    assert (given.name, given.overflow, given.members) == ("dawn", Overflow.BLOCK, 6)


@pytest.mark.parametrize(
    ("endpoint", "given"), [("nowhere", {}), ("a:1", {"overflow": "burn"}), ("a:1", {"wait_s": 0})]
)
def test_what_does_not_fit_is_refused(endpoint: str, given: dict[str, Any]) -> None:
    with pytest.raises(Misconfigured):
        named_stream("aartfaac", [endpoint], camera="aartfaac", name=None, **given)


def test_a_stream_on_the_command_line_stands_alone(configuration: Path, tmp_path: Path) -> None:
    stream = named_stream("astropix", ["239.1.1.1:5007"], camera="astropix", name="lab")
    plan = make_plan(RunRequest(stream=stream), config=configuration, root=tmp_path)
    assert [item.name for item in plan.observatory.streams] == ["lab"]
    assert plan.camera_names == ("astropix",)


def test_a_run_receives_the_streams_of_the_file(configuration: Path, tmp_path: Path) -> None:
    plan = make_plan(RunRequest(), config=configuration, root=tmp_path)
    assert plan.camera_names == ("aartfaac", "astropix")
    chosen = make_plan(RunRequest(camera="astropix"), config=configuration, root=tmp_path)
    assert [stream.name for stream in chosen.observatory.streams] == ["hits"]
    with pytest.raises(Misconfigured, match="no directory"):
        make_plan(RunRequest(once=True), config=configuration, root=tmp_path)
    assert camera_named("astropix", plan.observatory).role == "hits"
    assert {Path(source.directory).name for source in known_sources(plan.observatory)} == {"sky", "hits"}
    assert camera_of_stream("hits", plan.observatory) == "astropix"
    with pytest.raises(Misconfigured, match="there are: sky, hits"):
        camera_of_stream("noon", plan.observatory)


@pytest.mark.parametrize("twice", ['name = "sky"', 'camera = "aartfaac"'])
def test_streams_share_neither_name_nor_camera(configuration: Path, tmp_path: Path, twice: str) -> None:
    other = {'name = "sky"': 'name = "hits"', 'camera = "aartfaac"': 'camera = "astropix"'}[twice]
    configuration.write_text(FILE.replace(other, twice))
    with pytest.raises(Misconfigured, match="two streams have the"):
        make_plan(RunRequest(), config=configuration, root=tmp_path)
