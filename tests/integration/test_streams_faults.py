"""Emulated senders with every fault against real receivers: nothing stops them, and everything is counted."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nightglass.config import Overflow
from nightglass.sensors import Backlog, ReceiverState, Spill
from nightglass.simulate.emulator import DatagramEmulator, StreamEmulator
from nightglass.simulate.faults import FaultPlan, FaultyWay
from nightglass.simulate.streams import SkyBands, read_plane, run_readouts, synthetic_readouts, synthetic_sky
from nightglass.streams import find_protocol
from nightglass.streams.astropix import HitDecoder
from nightglass.streams.tables import write_hits
from tests.ports import free_port, needs_ipv6
from tests.unit.sensors.streams.site import collect, listening, running, source, until

AARTFAAC = find_protocol("aartfaac")
EVERY = FaultPlan(late=0.05, missing=0.05, duplicate=0.05, corrupt=0.05, torn=0.05, stalled=0.01, stall_s=0.05, seed=4)


def backlog(mib: int = 256) -> Backlog[Any]:
    return Backlog(mib << 20, Overflow.BLOCK)


def test_every_fault_of_datagrams_is_survived_and_counted() -> None:
    port, count = free_port(), 3000
    waiting = backlog()
    emulator = DatagramEmulator("127.0.0.1", port, rate_hz=5000, plan=EVERY)
    with running(source("astropix", f"127.0.0.1:{port}"), waiting) as (receiver,):
        until(lambda: receiver.status.state is ReceiverState.RECEIVING)
        sent = emulator.run(synthetic_readouts(count=count))
        counts = emulator.counts
        found = collect(waiting, counts["sent"] + counts["duplicate"])
        until(lambda: receiver.status.messages + sum(receiver.status.faults.values()) == sent)
        status = receiver.status
    came = {item.message.readout_id for item in found}
    assert status.losses is not None
    assert status.losses.lost == max(came) - min(came) + 1 - len(came)
    assert status.losses.duplicates == counts["duplicate"] == len(found) - len(came)
    assert sum(status.faults.values()) == counts["corrupt"] + counts["torn"]
    assert 0 < status.losses.late <= counts["late"]  # not late where none of the later ones came
    assert count == counts["sent"] + counts["missing"] + counts["corrupt"] + counts["torn"]
    assert all(counts[fault] for fault in ("late", "missing", "duplicate", "corrupt", "torn", "stalled"))


def test_every_fault_of_connections_is_survived_and_counted() -> None:
    sky = SkyBands(synthetic_sky((48, 64), sources=5), seed=1)
    plan = FaultPlan(
        late=0.05, missing=0.05, duplicate=0.05, corrupt=0.05, torn=0.05, dribbled=0.1, disconnected=0.05, seed=2
    )
    way = FaultyWay(plan, datagrams=False)
    deliveries = way.send(sky(0, step) for step in range(300))
    closed = [0]

    def serve(connection: socket.socket, number: int) -> None:
        for delivery in deliveries:
            time.sleep(delivery.pause_s)
            connection.sendall(delivery.data)
            if delivery.closes:
                closed[0] += 1
                return

    waiting = backlog()
    with listening(serve) as endpoint, running(source("aartfaac", endpoint), waiting) as (receiver,):
        until(lambda: receiver.status.reconnects > way.counts["disconnected"] and way.counts["sent"] > 200)
        found = collect(waiting, way.counts["sent"] + way.counts["duplicate"])
        status = receiver.status
    assert status.messages == len(found) == way.counts["sent"] + way.counts["duplicate"]
    for item in found:
        step = round((item.message.timestamp - sky._began).total_seconds())
        assert np.array_equal(item.message.pixels, sky.plane(0, step))
    assert closed[0] == way.counts["disconnected"] > 0
    # a torn one at the very end of a connection is truncated, not torn
    wrong = status.faults["BAD_MAGIC"] + status.faults.get("TORN", 0) + status.truncated
    assert status.skipped > 0
    assert wrong >= way.counts["corrupt"] > 0
    assert way.counts["torn"] > 0
    assert way.counts["late"] > 0
    assert way.counts["missing"] > 0


def test_several_clients_get_every_step_of_several_bands() -> None:
    sky = SkyBands(synthetic_sky((32, 32), sources=2), period_s=0.02)
    with StreamEmulator("127.0.0.1", (0, 0, 0), sky, period_s=0.02) as emulator:
        wanted = source("aartfaac", *(f"127.0.0.1:{port}" for port in emulator.ports))
        waits = [backlog() for _ in range(3)]
        with running(wanted, waits[0]), running(wanted, waits[1]), running(wanted, waits[2]):
            for waiting in waits:
                bands: dict[str, list[Any]] = {}
                for item in collect(waiting, 90):
                    bands.setdefault(item.peer, []).append(item.message.timestamp)
                assert len(bands) == 3
                for stamps in bands.values():
                    gaps = np.diff([stamp.timestamp() for stamp in stamps])
                    assert np.allclose(gaps, 0.02, atol=1e-5)


@needs_ipv6
def test_reconnecting_goes_on_with_the_emulator() -> None:
    sky = SkyBands(synthetic_sky((32, 32), sources=2), period_s=0.01)
    with StreamEmulator("::1", (0,), sky, period_s=0.01, plan=FaultPlan(disconnected=0.1, torn=0.1)) as emulator:
        waiting = backlog()
        with running(source("aartfaac", f"[::1]:{emulator.ports[0]}"), waiting) as (receiver,):
            found = collect(waiting, 100)
            assert receiver.status.reconnects > 0
    assert len({item.message.timestamp for item in found}) == 100
    assert emulator.counts["disconnected"] > 0


@pytest.mark.real
def test_a_real_run_sent_as_datagrams_gives_the_reference_table(real_data: Path, tmp_path: Path) -> None:
    run = next((real_data / "astropix").glob("*.apx"))
    packets = list(run_readouts(run))
    port, waiting = free_port(), backlog()
    with running(source("astropix", f"127.0.0.1:{port}"), waiting) as (receiver,):
        until(lambda: receiver.status.state is ReceiverState.RECEIVING)
        DatagramEmulator("127.0.0.1", port, rate_hz=5000).run(packets)
        found = collect(waiting, len(packets))
        assert receiver.status.kernel_drops == 0
        assert receiver.status.skipped == 0
    assert [item.message.to_bytes() for item in found] == packets
    decoder = HitDecoder()
    hits = np.concatenate([decoder.decode((item.message,)).hits for item in found])
    write_hits(tmp_path / "hits.csv", hits, header={"readout_uid": 4000})
    made = [line for line in (tmp_path / "hits.csv").read_text().splitlines() if not line.startswith("#")]
    reference = run.with_suffix(".csv").read_text().splitlines()
    assert made == [line for line in reference if not line.startswith("#")]


@pytest.mark.real
def test_a_real_image_comes_through_with_equal_pixels(real_data: Path) -> None:
    pixels, cards = read_plane(next((real_data / "radio_tkp").glob("GRB*.fits")))
    with StreamEmulator("127.0.0.1", (0, 0), SkyBands(pixels, cards=cards), period_s=0.05) as emulator:
        waiting = backlog()
        with running(source("aartfaac", *(f"127.0.0.1:{port}" for port in emulator.ports)), waiting):
            for item in collect(waiting, 6):
                assert np.array_equal(item.message.pixels, pixels, equal_nan=True)
                assert "CRVAL1" in item.message.header


@pytest.mark.parametrize("overflow", list(Overflow))
def test_memory_is_bounded_whatever_the_policy(overflow: Overflow, tmp_path: Path) -> None:
    """A consumer that takes nothing for a while, and a sender that does not wait."""
    limit = 1 << 20
    spill: Spill[Any] | None = Spill(tmp_path, AARTFAAC, limit_bytes=4 << 20) if overflow is Overflow.SPILL else None
    waiting: Backlog[Any] = Backlog(limit, overflow, spill=spill)
    sky = SkyBands(synthetic_sky((64, 64), sources=1))
    with StreamEmulator("127.0.0.1", (0,), sky, period_s=0) as emulator:
        wanted = source("aartfaac", f"127.0.0.1:{emulator.ports[0]}", receive_buffer_kib=64)
        with running(wanted, waiting):
            full = {Overflow.BLOCK: lambda: waiting.counts.bytes > limit - 25_000}
            until(full.get(overflow, lambda: waiting.counts.dropped > 100))
            time.sleep(0.2)
            counts = waiting.counts
            assert counts.peak_bytes <= limit
            assert counts.spilled_bytes <= 4 << 20
            assert (counts.dropped > 0) == (overflow is not Overflow.BLOCK)
            found = collect(waiting, counts.messages if overflow is not Overflow.SPILL else 50)
            stamps = [item.message.timestamp for item in found]
            assert stamps == sorted(stamps)
    waiting.close()
