"""Subscribers of stages: many, in any order, broken ones, after a restart."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nightglass.builder.hooks import Hooks
from nightglass.builder.lanes import Patience
from nightglass.builder.records import HookStage
from nightglass.errors import Misconfigured, Rejected
from tests.unit.builder import receiving
from tests.unit.builder.receiving import PATIENCE_S, receiver

HERE = "tests.unit.builder.receiving"
NEWS = f"{HERE}:take_news"
QUICK = Patience(attempts=3, first_s=0.01, longest_s=0.02)


@pytest.fixture(autouse=True)
def _nothing_taken() -> Iterator[None]:
    receiving.TAKEN.clear()
    yield
    receiving.TAKEN.clear()


@pytest.fixture
def alarms() -> list[str]:
    return []


def made(place: Path, alarms: list[str] | None = None) -> Hooks:
    alarm = None if alarms is None else alarms.append
    return Hooks("guider", place, known={"donut": NEWS}, allowed=(HERE,), patience=QUICK, on_alarm=alarm)


def test_each_subscriber_of_a_stage_is_told_with_its_arguments(tmp_path: Path) -> None:
    hooks = made(tmp_path)
    hooks.start()
    with receiver() as peer:
        hooks.subscribe("built", NEWS, [1, "two"])
        hooks.subscribe(HookStage.BUILT, "donut")
        hooks.subscribe("built", f"{peer.url}/news", [{"a": 1}])
        hooks.subscribe("saved", peer.url)
        hooks.fire(HookStage.BUILT, 70965, 3, missing=["GUIDE5"])
        assert hooks.wait_idle(PATIENCE_S)
    hooks.close()
    event = {"expid": 70965, "frame": 3, "missing": ["GUIDE5"], "stage": "built", "builder": "guider"}
    assert sorted(receiving.TAKEN, key=len) == [(event,), (event, 1, "two")]
    assert peer.paths == ["/news"]
    assert json.loads(peer.bodies[0]) == event | {"args": [{"a": 1}]}


def test_disabled_and_removed_ones_are_not_told(tmp_path: Path) -> None:
    hooks = made(tmp_path)
    hooks.start()
    quiet, gone = hooks.subscribe("sent", NEWS, enabled=False), hooks.subscribe("sent", NEWS, ["gone"])
    hooks.unsubscribe(gone)
    hooks.fire(HookStage.SENT, 1, 0)
    hooks.enable(quiet, True)
    hooks.fire(HookStage.SENT, 2, 0)
    assert hooks.wait_idle(PATIENCE_S)
    assert [event["expid"] for (event,) in receiving.TAKEN] == [2]
    for call in (hooks.unsubscribe, lambda name: hooks.enable(name, True)):
        with pytest.raises(Rejected, match="no hook"):
            call(gone)
    hooks.close()


def test_a_broken_one_hurts_nobody_and_is_told_of(tmp_path: Path, alarms: list[str]) -> None:
    hooks = made(tmp_path, alarms)
    hooks.start()
    broken = hooks.subscribe("built", f"{HERE}:fail")
    hooks.subscribe("built", NEWS)
    with receiver(500, 200) as peer:
        hooks.subscribe("built", peer.url)
        hooks.fire(HookStage.BUILT, 5, 0)
        assert hooks.wait_idle(PATIENCE_S)
        assert len(peer.bodies) == 2  # tried again
    assert len(receiving.TAKEN) == 1
    assert len(alarms) == 1
    assert "this receiver is broken" in alarms[0]
    listed = {item["id"]: item for item in hooks.listed()}
    assert "broken" in listed[broken]["error"]
    assert sorted(item["told"] for item in listed.values()) == [0, 1, 1]
    hooks.close()


def test_subscriptions_and_untold_news_survive_a_restart(tmp_path: Path) -> None:
    hooks = made(tmp_path)  # never started: as if killed before it could tell
    name = hooks.subscribe("archived", NEWS, ["later"])
    hooks.subscribe("archived", receiving.take_news, ["a function"])
    hooks.subscribe("archived", lambda event: receiving.TAKEN.append((event, "lost")))
    hooks.fire(HookStage.ARCHIVED, 7, None, path="/x")
    hooks.tell(HookStage.BUILT, NEWS, ["once"], {"expid": 7, "frame": 1})
    hooks.close()
    again = made(tmp_path)
    assert [item.args for item in again.subscriptions()] == [("later",), ("a function",)]
    assert again.subscriptions("archived")[0].subscription_id == name
    again.start()
    assert again.wait_idle(PATIENCE_S)
    assert sorted(args for _, args in receiving.TAKEN) == ["a function", "later", "once"]
    again.close()


@pytest.mark.parametrize(
    ("stage", "target", "args"),
    [
        ("exposed", NEWS, ()),
        ("built", "os:system", ()),
        ("built", "ftp://host/x", ()),
        ("built", "nonsense", ()),
        ("built", NEWS, [object()]),
        ("built", NEWS, [float("nan")]),
        ("built", NEWS, ["x" * 70_000]),
        ("built", f"{HERE}:nothing", ()),
        ("built", f"{HERE}:PATIENCE_S", ()),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, stage: str, target: str, args: Any) -> None:
    hooks = made(tmp_path)
    with pytest.raises(Misconfigured):
        hooks.subscribe(stage, target, args)
    assert hooks.subscriptions() == ()
    hooks.close()


def test_a_file_of_hooks_that_is_damaged_stops_nobody(tmp_path: Path) -> None:
    (tmp_path / "hooks-guider.json").write_text('{"hooks": [{"id": "a"}, 5')
    made(tmp_path).close()
    (tmp_path / "hooks-guider.json").write_text('{"hooks": [{"id": "a"}]}')
    hooks = made(tmp_path)
    assert hooks.subscriptions() == ()
    hooks.close()


def test_passwords_in_addresses_are_told_nobody(tmp_path: Path) -> None:
    hooks = made(tmp_path)
    with receiver() as peer:
        address = peer.url.replace("http://", "http://ann:secret@")
        hooks.subscribe("built", address)
        assert "secret" not in json.dumps(hooks.listed())
        hooks.start()
        hooks.fire(HookStage.BUILT, 1, 0)
        assert hooks.wait_idle(PATIENCE_S)
        hooks.close()
        assert len(peer.bodies) == 1
    assert "secret" not in json.dumps(made(tmp_path).listed())
