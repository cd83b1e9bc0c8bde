"""Recordings: what came is what is read, served and decoded again."""

from __future__ import annotations

import resource
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from nightglass.config import Overflow
from nightglass.errors import Misconfigured, Rejected, Retryable
from nightglass.sensors import Backlog, Endpoint, ReceiverState
from nightglass.sensors.recordings import Recorder, read_recording
from nightglass.sensors.replaying import Replay
from nightglass.simulate.emulator import DatagramEmulator
from nightglass.simulate.faults import FaultPlan
from nightglass.streams import find_protocol
from tests.ports import free_port
from tests.unit.sensors.streams.site import PATIENCE_S, collect, listening, readout, running, source, until

AARTFAAC = find_protocol("aartfaac")


def backlog() -> Backlog[Any]:
    return Backlog(64 << 20, Overflow.BLOCK)


def record_three(path: Path) -> bytes:
    with Recorder(path, protocol="astropix", endpoints=("127.0.0.1:5007", "[::1]:5008")) as recorder:
        for number in range(3):
            recorder.tap(number % 2)(memoryview(bytes([number]) * number * 10))
        assert recorder.size == sum(1 for _ in range(3)) * 18 + 30 + len(path.read_bytes().splitlines(keepends=True)[0])
    return path.read_bytes()


def test_pieces_are_read_as_they_were_written(tmp_path: Path) -> None:
    record_three(tmp_path / "one")
    recording = read_recording(tmp_path / "one")
    pieces = list(recording.pieces())
    assert [(piece.endpoint, piece.data) for piece in pieces] == [(0, b""), (1, b"\1" * 10), (0, b"\2" * 20)]
    assert recording.endpoints == (Endpoint("127.0.0.1", 5007), Endpoint("::1", 5008))
    assert recording.problem == ""
    assert [piece.at_ns for piece in pieces] == sorted(piece.at_ns for piece in pieces)


def test_a_torn_or_damaged_recording_is_read_up_to_there(tmp_path: Path) -> None:
    whole = record_three(tmp_path / "one")
    path = tmp_path / "two"
    head = whole.index(b"\n") + 1
    for stop in range(head, len(whole)):
        path.write_bytes(whole[:stop])
        recording = read_recording(path)
        count = len(list(recording.pieces()))
        assert count == (stop >= head + 18) + (stop >= head + 46)
        assert bool(recording.problem) == (stop not in (head, head + 18, head + 46))
    for place in range(head, len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        recording = read_recording(path)
        assert len(list(recording.pieces())) < 3
        assert recording.problem


TORN = b'{"nightglass_recording": 1, "protocol": "astropix", "endpoints": ["7"], "began": "2026-01-01T00:00:00Z"}\n'


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"{}\n", b'{"nightglass_recording": 2}\n', TORN, b"[" * 60_000], ids=range(6)
)
def test_what_is_no_recording_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(Rejected, match="is no recording"):
        read_recording(tmp_path / "file")
    with pytest.raises(Retryable):
        read_recording(tmp_path / "nothing")


def test_a_recording_stays_within_its_limit_and_is_never_written_over(tmp_path: Path) -> None:
    with Recorder(tmp_path / "one", protocol="astropix", endpoints=("a:1",), limit_bytes=1000) as recorder:
        for _ in range(100):
            recorder.write(0, bytes(50))
        assert "limit" in recorder.trouble
    assert (tmp_path / "one").stat().st_size <= 1000
    assert len(list(read_recording(tmp_path / "one").pieces())) == recorder.pieces > 5
    with pytest.raises(Retryable, match="not there yet"):
        Recorder(tmp_path / "one", protocol="astropix", endpoints=("a:1",))


def test_a_full_disk_ends_the_recording_and_keeps_what_is_there(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Recorder(tmp_path / "one", protocol="astropix", endpoints=("a:1",)) as recorder:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
        try:
            for _ in range(200):
                recorder.write(0, bytes(5000))
            assert recorder.trouble
            recorder.write(0, b"more")
            recorder.close()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    recording = read_recording(tmp_path / "one")
    assert len(list(recording.pieces())) >= 15
    assert recording.problem


def test_connections_are_recorded_and_served_again(tmp_path: Path) -> None:
    """Garbage, a torn window and the end of the connection are played as they were."""
    wires = [AARTFAAC.encode(AARTFAAC.example(seed)) for seed in range(6)]
    stream = b"garbage" + b"".join(wires[:5]) + wires[5][:1500]

    def serve(connection: socket.socket, number: int) -> None:
        connection.sendall(stream)

    waiting = backlog()
    with listening(serve) as endpoint:
        wanted = source("aartfaac", endpoint, reconnect_s=30, reconnect_limit_s=30)
        with (
            Recorder(tmp_path / "one", protocol="aartfaac", endpoints=(endpoint,)) as recorder,
            running(wanted, waiting, tap=recorder.tap) as (one,),
        ):
            first = collect(waiting, 5)
            until(lambda: one.status.state is ReceiverState.WAITING)
        before = one.status
    recording = read_recording(tmp_path / "one")
    assert b"".join(piece.data for piece in recording.pieces()) == stream
    replay = Replay(recording, endpoints=(Endpoint("127.0.0.1", free_port()),), speed=0)
    player = threading.Thread(target=replay.run)
    player.start()
    with running(source("aartfaac", str(replay.endpoints[0])), waiting) as (two,):
        second = collect(waiting, 5)
        until(lambda: two.status.truncated)
    after = two.status
    player.join(PATIENCE_S)
    assert not player.is_alive()
    assert [AARTFAAC.encode(item.message) for item in second] == wires[:5]
    assert [AARTFAAC.encode(item.message) for item in first] == wires[:5]
    assert (after.messages, after.skipped, after.faults) == (before.messages, before.skipped, before.faults)


def test_datagrams_are_recorded_and_sent_again(tmp_path: Path) -> None:
    port = free_port()
    waiting = backlog()
    plan = FaultPlan(corrupt=0.1, torn=0.1, missing=0.1, duplicate=0.1, late=0.1)
    wanted = source("astropix", f"127.0.0.1:{port}")
    with (
        Recorder(tmp_path / "one", protocol="astropix", endpoints=wanted.endpoints) as recorder,
        running(wanted, waiting, tap=recorder.tap) as (one,),
    ):
        until(lambda: one.status.state is ReceiverState.RECEIVING)
        sent = DatagramEmulator("127.0.0.1", port, rate_hz=5000, plan=plan).run(
            readout(number).to_bytes() for number in range(500)
        )
        until(lambda: recorder.pieces == sent)
    before = one.status
    first = waiting.take(wait_s=1, most=1000)
    with running(wanted, waiting) as (two,):
        until(lambda: two.status.state is ReceiverState.RECEIVING)
        assert Replay(read_recording(tmp_path / "one"), speed=10).run() == sent
        second = collect(waiting, len(first))
        until(lambda: two.status.bytes == before.bytes)
    after = two.status
    assert [item.message for item in second] == [item.message for item in first]
    assert (after.faults, after.losses, after.skipped) == (before.faults, before.losses, before.skipped)
    assert after.faults


def test_a_replay_has_an_endpoint_for_each(tmp_path: Path) -> None:
    record_three(tmp_path / "one")
    with pytest.raises(Misconfigured, match="1 endpoints for 2"):
        Replay(read_recording(tmp_path / "one"), endpoints=(Endpoint("127.0.0.1", 1),))
