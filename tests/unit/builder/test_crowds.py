"""Many receivers and subscribers, and such as answer without an end: threads, memory and directories stay few."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nightglass.builder.hooks import Hooks
from nightglass.builder.lanes import Patience
from nightglass.builder.sending import Dispatcher, Ticket
from nightglass.errors import Rejected, Retryable
from tests.unit.builder.receiving import PATIENCE_S, receiver

QUICK = Patience(attempts=1, first_s=0.01, longest_s=0.02, idle_s=0.05)
STUBBORN = Patience(attempts=100, first_s=60.0)


@contextmanager
def endless(status: int, pause_s: float) -> Iterator[str]:
    """Answer each request with bytes that do not end."""

    def serve() -> None:
        while not ended.is_set():
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            with peer:
                peer.settimeout(5)
                try:
                    peer.recv(65536)
                    peer.sendall(f"HTTP/1.1 {status} Hm\r\nContent-Type: text/plain\r\n\r\n".encode())
                    while not ended.wait(pause_s):
                        peer.sendall(b"x" * (10 if pause_s else 1 << 20))
                except OSError:
                    pass

    ended = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        ended.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def lanes_running() -> int:
    return sum(thread.name.startswith("lane-") for thread in threading.enumerate())


@pytest.mark.parametrize("pause_s", [0.0, 0.02])
@pytest.mark.parametrize("status", [200, 404])
def test_an_answer_without_an_end_is_cut_off(tmp_path: Path, status: int, pause_s: float) -> None:
    file = tmp_path / "frame.fits"
    file.write_bytes(b"x" * 2880)
    with endless(status, pause_s) as address:
        dispatcher = Dispatcher(tmp_path / "outgoing", patience=QUICK)
        dispatcher.start()
        (report,) = dispatcher.send([Ticket(receiver=address, expid=1)], file, PATIENCE_S)
        dispatcher.close()
    assert report.delivered == (status == 200)
    assert len(report.error) < 1000


def test_an_address_for_each_exposure_leaves_nothing_behind(tmp_path: Path) -> None:
    file = tmp_path / "frame.fits"
    file.write_bytes(b"x" * 2880)
    hooks, dispatcher = Hooks("guider", tmp_path, patience=QUICK), Dispatcher(tmp_path / "outgoing", patience=QUICK)
    with receiver() as peer:
        hooks.start()
        dispatcher.start()
        for expid in range(100):
            dispatcher.send([Ticket(receiver=f"{peer.url}/{expid}", expid=expid)], file, PATIENCE_S)
            hooks.tell("built", f"{peer.url}/{expid}", (), {"expid": expid})
            assert hooks.wait_idle(PATIENCE_S)
        assert sorted(map(peer.paths.count, {f"/{expid}" for expid in range(100)})) == [2] * 100
        until = time.monotonic() + PATIENCE_S
        while lanes_running():
            assert time.monotonic() < until
            time.sleep(0.01)
    hooks.close()
    dispatcher.close()
    assert len(list((tmp_path / "outgoing").iterdir())) <= 32
    assert len(list((tmp_path / "hooks-guider").iterdir())) <= 32


def test_a_lane_whose_thread_ended_goes_on_with_the_next_item(tmp_path: Path) -> None:
    file = tmp_path / "frame.fits"
    file.write_bytes(b"x" * 2880)
    dispatcher = Dispatcher(tmp_path / "outgoing", patience=QUICK)
    with receiver() as peer:
        dispatcher.start()
        for count in range(1, 4):
            (report,) = dispatcher.send([Ticket(receiver=peer.url, expid=count)], file, PATIENCE_S)
            assert report.delivered
            while lanes_running():
                time.sleep(0.01)
    dispatcher.close()


def test_there_is_an_end_to_receivers_and_subscribers(tmp_path: Path) -> None:
    file = tmp_path / "frame.fits"
    file.write_bytes(b"x" * 2880)
    hooks, dispatcher = Hooks("guider", tmp_path, patience=STUBBORN), Dispatcher(tmp_path / "out", patience=STUBBORN)
    for number in range(256):
        hooks.subscribe("built", f"http://127.0.0.1:1/{number}")
        dispatcher.keep([Ticket(receiver=f"http://127.0.0.1:1/{number}", expid=1)], file)
    with pytest.raises(Rejected, match="256 subscribers"):
        hooks.subscribe("built", "http://127.0.0.1:1/256")
    with pytest.raises(Retryable, match="256 receivers"):
        dispatcher.keep([Ticket(receiver="http://127.0.0.1:1/256", expid=1)], file)
    assert len(dispatcher.pending()) == 256
