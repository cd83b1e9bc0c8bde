"""What happens at a later time: whatever is asked for, and whatever becomes of the time of the day."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path

import pytest

from nightglass.builder.clockwork import Clockwork
from nightglass.builder.records import FrameState
from nightglass.errors import Misconfigured, Retryable
from tests.unit.builder.desk import PATIENCE_S, builder, image


def test_what_is_due_in_ages_stops_nothing() -> None:
    called = threading.Event()
    clock = Clockwork("clock")
    clock.start()
    try:
        for delay in (1e300, float("inf"), float("nan")):
            clock.after(delay, called.clear)
        clock.after(0.0, called.set)
        assert called.wait(PATIENCE_S)
    finally:
        clock.close()


@pytest.mark.parametrize("name", ["timeout_s", "timeout_factor", "pull_timeout_s", "pull_retry_s", "send_retry_s"])
def test_nobody_waits_for_ever(tmp_path: Path, name: str) -> None:
    made = builder(tmp_path)
    for value in (1e300, float("inf"), float("nan")):
        with pytest.raises(Misconfigured, match=name):
            made.set(**{name: value})


@pytest.mark.parametrize("step_s", [-7200.0, 7200.0])
def test_a_frame_is_built_in_its_time_when_the_clock_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step_s: float
) -> None:
    right = time.time
    with builder(tmp_path, sources=("A", "B")) as made:
        made.accept(1, 0, "A", image(1))
        made.assign(1, 0, timeout_s=1.0)
        monkeypatch.setattr(time, "time", lambda: right() + step_s)
        view = made.build(1, 0, wait_s=PATIENCE_S)
    assert (view.state, view.missing) == (FrameState.PARTIAL, ("B",))


def test_a_frame_waits_no_longer_after_a_restart_with_the_clock_set_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = time.time
    with builder(tmp_path, sources=("A", "B")) as made:
        made.assign(1, 0, timeout_s=0.5)
    monkeypatch.setattr(time, "time", lambda: right() - 86_400)
    with builder(tmp_path, sources=("A", "B")) as made:
        assert made.build(1, 0, wait_s=PATIENCE_S).state is FrameState.PARTIAL


def test_a_source_that_drips_is_cut_off_when_its_frame_is_built(tmp_path: Path) -> None:
    def drip() -> None:
        peer, _ = listener.accept()
        with peer:
            peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/fits\r\n\r\n")
            try:
                while not ended.wait(0.05):
                    peer.sendall(b"S")
            except OSError:
                cut.set()

    ended, cut = threading.Event(), threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=drip)
        thread.start()
        pull = {"CAM": f"http://127.0.0.1:{listener.getsockname()[1]}/image"}
        with builder(tmp_path, sources=("CAM",), pull=pull) as made:
            assert made.build(1, 0, timeout_s=0.3, wait_s=PATIENCE_S).state is FrameState.PARTIAL
            assert cut.wait(PATIENCE_S)
        ended.set()
        thread.join()


def test_nobody_waits_for_a_cube_as_long_as_a_frame_may_take(tmp_path: Path) -> None:
    with builder(tmp_path, outputs=True, sources=("A", "B")) as made:
        made.assign(1, 0, timeout_s=3600)
        made.accept(1, 0, "A", image(1))
        with pytest.raises(Retryable, match="not archived after"):
            made.archive(1, wait=True, wait_s=0.2)
        made.accept(1, 0, "B", image(1))
        assert made.archive(1, wait=True) is not None
