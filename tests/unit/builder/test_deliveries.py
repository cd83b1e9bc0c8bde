"""Each receiver's delivery is remembered by itself: after a restart only those get a frame who have not had it."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nightglass.builder.deliveries import is_awaited, reported
from nightglass.builder.lanes import Patience
from nightglass.builder.records import FrameState, FrameView, SendOrder, SendReport
from nightglass.builder.sending import Dispatcher, Ticket
from nightglass.builder.service import Builder
from tests.unit.builder.desk import PATIENCE_S, builder, image, pixels, wait_done
from tests.unit.builder.receiving import Receiver, receiver

DEAD = "http://127.0.0.1:9/frames"


def pushed(made: Builder, expid: int = 1) -> FrameView:
    made.assign(expid, 0, extensions=["A"])
    made.accept(expid, 0, "A", image(7))
    return wait_done(made, expid, 0)


def wait_sends(made: Builder, **wanted: str) -> FrameView:
    view = made._engine.holdings.wait(
        1,
        0,
        lambda item: item.sends == wanted and ("sent" in item.times) is ("waiting" not in wanted.values()),
        PATIENCE_S,
    )
    assert view.sends == wanted
    return view


def keys(peer: Receiver) -> list[str]:
    return [headers["Idempotency-Key"] for headers in peer.headers]


def settings(first: str, second: str, **more: Any) -> dict[str, Any]:
    return {
        "receivers": {"first": first, "second": second},
        "send_to": ("first", "second"),
        "send_attempts": 1000,
        "send_retry_s": 0.05,
        **more,
    }


def test_after_a_restart_only_those_get_it_who_have_not_had_it(tmp_path: Path) -> None:
    with receiver() as first, receiver() as second:
        with builder(tmp_path, outputs=True, **settings(first.url, DEAD)) as made:
            pushed(made)
            view = wait_sends(made, first="delivered", second="waiting")
            assert "sent" not in view.times
        with builder(tmp_path, outputs=True, **settings(first.url, second.url)) as made:
            assert wait_sends(made, first="delivered", second="delivered").times["sent"] > view.times["queued"]
            assert [event.data["what"] for event in made.events() if event.name == "frame"].count("sent") == 1
        with builder(tmp_path, outputs=True, **settings(first.url, second.url)) as made:
            time.sleep(0.1)
        assert (len(first.bodies), len(second.bodies)) == (1, 1)
        assert first.bodies == second.bodies


def test_what_was_lost_from_a_queue_is_queued_again_under_the_same_key(tmp_path: Path) -> None:
    with receiver() as first, receiver(503) as second:
        with builder(tmp_path, outputs=True, **settings(first.url, second.url)) as made:
            pushed(made)
            second.wait(2)
        shutil.rmtree(tmp_path / "run" / "outgoing-guider")  # the power failed before it was on the disk
        second.answers[:] = [200]
        with builder(tmp_path, outputs=True, **settings(first.url, second.url)) as made:
            wait_sends(made, first="delivered", second="delivered")
        assert len(set(keys(second))) == 1
        assert len(keys(first)) == 1
        assert keys(first)[0] != keys(second)[0]


def test_a_frame_that_is_pushed_anew_is_sent_though_the_former_one_still_waits(tmp_path: Path) -> None:
    with receiver(503) as first, builder(tmp_path, outputs=True, **settings(first.url, first.url)) as made:
        made.set(remove_send_to=["second"])
        pushed(made)
        first.wait(2)
        made.clear(1, 0, unsaved="discard")
        made.assign(1, 0, extensions=["A"])
        made.accept(1, 0, "A", image(9))
        wait_done(made, 1, 0)
        first.answers[:] = [200]
        wait_sends(made, first="delivered")
        assert [pixels(body) for body in (first.bodies[0], first.bodies[-1])] == [7, 9]
        assert len(set(keys(first))) == 2


def test_a_send_that_is_asked_for_is_one_of_its_own(tmp_path: Path) -> None:
    with receiver() as first, builder(tmp_path, outputs=True, **settings(first.url, first.url)) as made:
        made.set(remove_send_to=["second"])
        pushed(made)
        wait_sends(made, first="delivered")
        (report,) = made.send(1, 0, SendOrder(send_to=("first",)), wait_s=PATIENCE_S)
        assert (report.delivered, report.content) == (True, made.frame(1, 0).content)
        assert len(set(keys(first))) == 2


def test_one_who_is_not_known_holds_up_nobody(tmp_path: Path) -> None:
    with receiver() as first, builder(tmp_path, outputs=True, **settings(first.url, DEAD)) as made:
        made.assign(1, 0, extensions=["A"], instructions={"send_to": ["second", "first"]})
        made.set(remove_send_to=["second"], receivers={"first": first.url})
        made.accept(1, 0, "A", image(7))
        wait_sends(made, first="delivered", second="given up")
        assert any("second" in item["text"] for item in made.status()["alarms"])


def test_a_ticket_that_waits_is_not_queued_again(tmp_path: Path) -> None:
    file = tmp_path / "a.fits"
    file.write_bytes(b"SIMPLE")
    reports: list[SendReport] = []
    with receiver(503, 503, 200) as peer:
        patience = Patience(attempts=100, first_s=0.01, longest_s=0.01)
        dispatcher = Dispatcher(
            tmp_path / "outgoing", patience=patience, on_report=lambda _, report: reports.append(report)
        )
        ticket = Ticket(receiver=peer.url, expid=1, frame=0, key="abc", night="20261121", revision=3)
        ((_, _, first),), ((_, _, second),) = dispatcher.keep([ticket], file), dispatcher.keep([ticket], file)
        assert first == second
        dispatcher.start()
        assert dispatcher.wait_idle(PATIENCE_S)
        dispatcher.close()
    assert keys(peer) == ['"abc"'] * 3
    assert (peer.headers[0]["X-Nightglass-Night"], peer.headers[0]["X-Nightglass-Revision"]) == ("20261121", "3")
    assert [(report.delivered, report.night) for report in reports] == [(True, "20261121")]
    assert not list((tmp_path / "outgoing").rglob("*.fits"))


def test_a_delivery_is_told_before_it_is_forgotten(tmp_path: Path) -> None:
    file = tmp_path / "a.fits"
    file.write_bytes(b"SIMPLE")
    there: list[int] = []

    def told(*_: Any) -> None:
        there.append(len([path for path in (tmp_path / "outgoing").rglob("*") if path.suffix in (".json", ".fits")]))

    with receiver() as peer:
        dispatcher = Dispatcher(tmp_path / "outgoing", on_report=told)
        dispatcher.start()
        dispatcher.send([Ticket(receiver=peer.url, expid=1, frame=0)], file, PATIENCE_S)
        dispatcher.close()
    assert there == [2]


@pytest.mark.parametrize("order", [("a", "b"), ("b", "a")])
def test_a_frame_is_sent_when_nobody_is_waited_for_and_somebody_has_it(order: tuple[str, str]) -> None:
    view = FrameView(expid=1, frame=0, state=FrameState.BUILT, revision=2, sends={"a": "waiting", "b": "waiting"})

    def report(name: str, content: str) -> SendReport:
        return SendReport(receiver=name, expid=1, frame=0, delivered=name == "a", content=content)

    assert reported(view, report("a", replace(view, revision=1).content), 5.0) == view
    for name in order:
        assert is_awaited(view)
        assert "sent" not in view.times
        view = reported(view, report(name, view.content), 5.0)
    assert (view.times["sent"], dict(view.sends)) == (5.0, {"a": "delivered", "b": "given up"})
    assert reported(view, report("a", view.content), 9.0) == view
