"""Files on their way to receivers that are there, busy, dead, broken, or refuse."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nightglass.builder.lanes import Patience
from nightglass.builder.records import SendReport
from nightglass.builder.sending import Dispatcher, Ticket
from nightglass.errors import Misconfigured
from tests.unit.builder import receiving
from tests.unit.builder.receiving import PATIENCE_S, receiver

QUICK = Patience(attempts=3, first_s=0.01, longest_s=0.02)
HERE = "tests.unit.builder.receiving"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "guide-00070965-0003.fits"
    path.write_bytes(b"SIMPLE" * 1000)
    return path


@pytest.fixture(autouse=True)
def _nothing_taken() -> Iterator[None]:
    receiving.TAKEN.clear()
    yield
    receiving.TAKEN.clear()


@pytest.fixture
def dead() -> str:
    """An address where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/frames"


def ticket(name: str, **changes: Any) -> Ticket:
    return Ticket(**({"receiver": name, "expid": 70965, "frame": 3} | changes))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "outgoing"


class Desk:
    """A dispatcher that is started, and what it reported."""

    def __init__(self, place: Path, known: dict[str, str] | None = None, **changes: Any) -> None:
        self.reports: list[SendReport] = []
        values = {"patience": QUICK, "allowed": (HERE,), "on_report": self.note} | changes
        self.dispatcher = Dispatcher(place, known=known, **values)

    def note(self, ticket: Ticket, report: SendReport) -> None:
        assert (ticket.receiver, ticket.frame) == (report.receiver, report.frame)
        self.reports.append(report)

    def __enter__(self) -> Dispatcher:
        self.dispatcher.start()
        return self.dispatcher

    def __exit__(self, *_: object) -> None:
        self.dispatcher.close()


def left(place: Path) -> list[str]:
    return sorted(path.suffix for path in place.rglob("*") if path.is_file() and path.name != "receiver")


def test_a_receiver_gets_the_file_and_what_it_is(place: Path, file: Path) -> None:
    with receiver() as peer, Desk(place, {"guider": peer.url}) as desk:
        (report,) = desk.send([ticket("guider", command="accept")], file, PATIENCE_S)
        assert (report.delivered, report.attempts, report.receiver, report.frame) == (True, 1, "guider", 3)
        assert peer.bodies == [file.read_bytes()]
        assert peer.paths == ["/accept"]
        got = {name.lower(): value for name, value in peer.headers[0].items()}
        assert (got["x-nightglass-expid"], got["x-nightglass-frame"]) == ("70965", "3")
        assert (got["content-type"], got["x-nightglass-what"]) == ("application/fits", "frame")
        assert 'filename="guide-00070965-0003.fits"' in got["content-disposition"]
        assert left(place) == []


def test_a_busy_receiver_is_tried_again_and_one_that_refuses_is_not(place: Path, file: Path) -> None:
    with (
        receiver(503, 429, 200) as busy,
        receiver(422) as strict,
        Desk(place, {"busy": busy.url, "strict": strict.url}) as desk,
    ):
        first, second = desk.send([ticket("busy"), ticket("strict")], file, PATIENCE_S)
    assert (first.delivered, first.attempts) == (True, 3)
    assert (second.delivered, second.attempts) == (False, 1)
    assert "422" in second.error
    assert len(strict.bodies) == 1


def test_a_dead_receiver_holds_up_nobody_and_is_given_up(place: Path, file: Path, dead: str) -> None:
    desk = Desk(place, {"dead": dead})
    with receiver() as peer, desk as dispatcher:
        for number in range(3):
            dispatcher.keep([ticket("dead", frame=number)], file)
        (report,) = dispatcher.send([ticket(peer.url)], file, PATIENCE_S)
        assert report.delivered
        assert dispatcher.wait_idle(PATIENCE_S)
    failed = [report for report in desk.reports if report.receiver == "dead"]
    assert [(report.delivered, report.attempts) for report in failed] == [(False, 3)] * 3
    assert "cannot be reached" in failed[0].error
    assert left(place) == []


def test_what_was_not_delivered_is_sent_after_a_restart_in_order_though_the_file_is_gone(
    place: Path, file: Path
) -> None:
    content = file.read_bytes()
    first = Dispatcher(place, known={"later": "http://127.0.0.1:9"}, patience=QUICK)  # never started: as if killed
    for number in range(3):
        first.keep([ticket("later", frame=number)], file)
    first.close()
    file.unlink()
    (place / "later-stray").mkdir()
    with receiver() as peer, Desk(place, {"later": peer.url}) as desk:
        assert desk.wait_idle(PATIENCE_S)
        assert [headers["X-Nightglass-Frame"] for headers in peer.headers] == ["0", "1", "2"]
        assert peer.bodies == [content] * 3


def test_functions_may_be_receivers_if_the_configuration_lists_them(place: Path, file: Path) -> None:
    with Desk(place, {"donut": f"{HERE}:take_file"}) as desk:
        reports = desk.send([ticket("donut"), ticket(f"{HERE}:fail")], file, PATIENCE_S)
        assert [report.delivered for report in reports] == [True, False]
        assert "this receiver is broken" in reports[1].error
        content, about = receiving.TAKEN[0]
        assert content == file.read_bytes()
        assert (about["expid"], about["frame"], about["what"]) == (70965, 3, "frame")
        with pytest.raises(Misconfigured, match="may not be called"):
            desk.send([ticket("os:system")], file, 0)
        with pytest.raises(Misconfigured, match="did you mean 'donut'"):
            desk.send([ticket("donat")], file, 0)
        assert len(receiving.TAKEN) == 1


def test_a_function_of_this_process_may_be_a_receiver(place: Path, file: Path) -> None:
    got = []
    with Desk(place) as desk:
        desk.register("here", lambda path, about: got.append((path.read_bytes(), about["frame"])))
        (report,) = desk.send([ticket("here")], file, PATIENCE_S)
    assert report.delivered
    assert got == [(file.read_bytes(), 3)]


def test_one_unknown_receiver_and_nothing_is_sent(place: Path, file: Path) -> None:
    with receiver() as peer, Desk(place, {"guider": peer.url}) as desk:
        with pytest.raises(Misconfigured):
            desk.send([ticket("guider"), ticket("nobody")], file, 0)
        assert peer.bodies == []


def test_a_receiver_with_a_password_has_a_name(place: Path, file: Path) -> None:
    with receiver() as peer:
        address = peer.url.replace("http://", "http://ann:secret@")
        with Desk(place, {"guider": address}) as desk:
            with pytest.raises(Misconfigured, match="`receivers`") as refused:
                desk.send([ticket(address)], file, 0)
            assert "secret" not in str(refused.value)
            (report,) = desk.send([ticket("guider")], file, PATIENCE_S)
        assert report.delivered
        assert len(peer.bodies) == 1


def test_what_waits_has_a_limit_and_the_oldest_goes(place: Path, file: Path, dead: str) -> None:
    size = file.stat().st_size
    desk = Desk(place, {"dead": dead}, limit_bytes=2 * size)
    for number in range(5):  # not started: nothing is delivered meanwhile
        desk.dispatcher.keep([ticket("dead", frame=number)], file)
    assert desk.dispatcher.pending() == {"dead": 2}
    assert [report.frame for report in desk.reports] == [0, 1, 2]
    assert left(place) == [".fits", ".fits", ".json", ".json"]
    desk.dispatcher.close()


def test_files_without_a_ticket_are_swept_away(place: Path, file: Path) -> None:
    desk = Desk(place, {"later": "http://127.0.0.1:9"})
    desk.dispatcher.keep([ticket("later")], file)
    desk.dispatcher.close()
    stray = next(place.glob("*/*.fits")).with_name("0123456789abcdef.fits")
    stray.write_bytes(b"half a file")
    with receiver() as peer, Desk(place, {"later": peer.url}) as again:
        assert again.wait_idle(PATIENCE_S)
        assert not stray.exists()
        assert len(peer.bodies) == 1


def test_a_receiver_that_hangs_holds_up_nobody(place: Path, file: Path) -> None:
    freed = threading.Event()
    with receiver() as peer, Desk(place) as desk:
        desk.register("hangs", lambda *_: freed.wait(PATIENCE_S))
        slow, quick = desk.send([ticket("hangs"), ticket(peer.url)], file, 0.3)
        assert (slow.delivered, slow.attempts) == (False, 0)
        assert "tried on" in slow.error
        peer.wait(1)
        freed.set()
        assert desk.wait_idle(PATIENCE_S)
        assert quick.receiver == peer.url
