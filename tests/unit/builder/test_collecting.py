"""Extensions that are fetched: over HTTP, from functions, from directories; again and again until the deadline."""

from __future__ import annotations

import socket
import time
from pathlib import Path

from nightglass.builder.records import FrameState
from tests.unit.builder import desk
from tests.unit.builder.desk import HERE, builder, camera_server, image, pixels


def test_all_ways_of_fetching_at_once(tmp_path: Path) -> None:
    desk.CALLS.clear()
    plain, named = tmp_path / "plain", tmp_path / "named"
    plain.mkdir()
    (named / "00000007").mkdir(parents=True)
    (plain / "dir0-00000007-0002.fits").write_bytes(image(4))
    (named / "00000007" / "2.fits").write_bytes(image(5))
    with camera_server({"/cam": [503, image(1)], "/by/7/2": [image(2)]}) as (address, asked):
        pull = {
            "HTTP0": f"{address}/cam",
            "HTTP1": f"{address}/by/{{expid}}/{{frame}}",
            "CALL0": f"{HERE}:give_array",
            "CALL1": f"{HERE}:give_bytes",
            "DIR0": str(plain),
            "DIR1": f"{named}/{{expid:08d}}/{{frame}}.fits",
        }
        made = builder(
            tmp_path / "root", sources=(*pull, "PUSHED"), pull=pull, callables=(HERE,), pull_retry_s=0.02, timeout_s=60
        )
        with made:
            assert made.assign(7, 2).state is FrameState.OPEN
            made.accept(7, 2, "PUSHED", image(6))
            view = made.build(7, 2)
        assert (view.state, view.missing, view.revision) == (FrameState.BUILT, (), 1)
        assert {item.name: pixels(item.path) for item in view.extensions} == {
            "HTTP0": 1,
            "HTTP1": 2,
            "CALL0": 1002,
            "CALL1": 9,
            "DIR0": 4,
            "DIR1": 5,
            "PUSHED": 6,
        }
        assert [item.source for item in view.extensions] == [*pull, ""]
        assert sorted(asked) == ["/by/7/2", "/cam?expid=7&frame=2", "/cam?expid=7&frame=2"]
        assert any("answers 503" in note for note in view.notes)
    assert desk.CALLS == [(7, 2, "CALL0")] * 3


def test_what_never_comes_ends_with_the_deadline(tmp_path: Path) -> None:
    alarms: list[str] = []
    with camera_server({"/good": [image(1)], "/bad": [b"no image"]}) as (address, asked):
        pull = {
            "GOOD": f"{address}/good",
            "BAD": f"{address}/bad",
            "GONE": f"{address}/gone",
            "REFUSED": "http://127.0.0.1:1/",
            "FAILS": f"{HERE}:fail",
            "NOWHERE": str(tmp_path / "nowhere"),
        }
        made = builder(
            tmp_path / "root", sources=tuple(pull), pull=pull, callables=(HERE,), pull_retry_s=0.05, alarms=alarms
        )
        with made:
            assert made.assign(1, 0, timeout_s=3.0).state is FrameState.OPEN  # it does not wait
            view = made.build(1, 0)
            assert (view.state, set(view.missing)) == (FrameState.PARTIAL, set(pull) - {"GOOD"})
            for source, why in {
                "BAD": "not FITS",
                "GONE": "answers 404",
                "REFUSED": "cannot be reached",
                "FAILS": "ZeroDivisionError",
                "NOWHERE": "not there yet",
            }.items():
                assert any(source in note and why in note for note in view.notes), view.notes
            count = asked.count("/gone?expid=1&frame=0")
            assert count > 1
            time.sleep(0.5)
            assert asked.count("/gone?expid=1&frame=0") == count
            assert any("did not come before the deadline" in text for text in alarms)
            # one that comes late makes a revision
            made.accept(1, 0, "GONE", image(2))
            assert made.frame(1, 0).revision == 2


def test_functions_that_are_not_listed_are_not_called(tmp_path: Path) -> None:
    made = builder(tmp_path, sources=("A", "B"), pull={"A": "os:getcwd", "B": f"{HERE}:give_bytes"})
    with made:
        made.assign(1, 0, timeout_s=0.2)
        view = made.build(1, 0)
        assert view.missing == ("A", "B")
        assert any("'os:getcwd' may not be called" in note for note in view.notes)


def test_fetching_goes_on_after_a_restart(tmp_path: Path) -> None:
    pull = {"A": str(tmp_path / "later")}
    first = builder(tmp_path / "root", sources=("A",), pull=pull, pull_retry_s=0.05)
    with first:
        first.assign(1, 0, timeout_s=60)
    (tmp_path / "later").mkdir()
    (tmp_path / "later" / "A-00000001-0000.fits").write_bytes(image(3))
    with builder(tmp_path / "root", sources=("A",), pull=pull, pull_retry_s=0.05) as second:
        assert second.build(1, 0).state is FrameState.BUILT


def test_a_cleared_frame_is_fetched_no_more(tmp_path: Path) -> None:
    with camera_server({}) as (address, asked):
        pull = {"A": f"{address}/a"}
        with builder(tmp_path, sources=("A",), pull=pull, pull_retry_s=0.05) as made:
            made.assign(1, 0, timeout_s=60)
            while not asked:
                time.sleep(0.01)
            made.clear(1, 0)
            time.sleep(0.3)
            count = len(asked)
            time.sleep(0.3)
            assert len(asked) == count
            assert made.exposure(1).frames == ()


def test_a_source_that_stalls_holds_up_nobody_and_no_end(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        pull = {"STALLS": f"http://127.0.0.1:{silent.getsockname()[1]}/", "GOOD": f"{HERE}:give_bytes"}
        made = builder(tmp_path, sources=tuple(pull), pull=pull, callables=(HERE,), pull_timeout_s=1.0)
        with made:
            made.assign(1, 0, timeout_s=3.0)
            view = made.build(1, 0)
            assert (view.state, view.missing) == (FrameState.PARTIAL, ("STALLS",))
            made.assign(1, 1, timeout_s=600)
            until = time.monotonic() + desk.PATIENCE_S
            while made.frame(1, 1).missing != ("STALLS",):
                assert time.monotonic() < until
                time.sleep(0.01)
            begun = time.monotonic()
        assert time.monotonic() - begun < 200
