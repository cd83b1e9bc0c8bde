"""Faults: each by its rate, the same for the same seed, and none that is not counted."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from nightglass.errors import Misconfigured
from nightglass.simulate.directory import write_directory
from nightglass.simulate.faults import Delivery, FaultPlan, FaultyWay
from nightglass.simulate.hostile import tiny

MESSAGES = [b"%06d" % number * 20 for number in range(1000)]


def deliveries(plan: FaultPlan, *, datagrams: bool = True) -> tuple[list[Delivery], FaultyWay]:
    way = FaultyWay(plan, datagrams=datagrams)
    return list(way.send(MESSAGES)), way


def test_without_faults_everything_goes_as_it_is() -> None:
    sent, way = deliveries(FaultPlan(), datagrams=False)
    assert sent == [Delivery(message) for message in MESSAGES]
    assert +way.counts == {"sent": 1000}


@pytest.mark.parametrize("fault", ["late", "missing", "duplicate", "corrupt", "torn", "stalled"])
def test_each_fault_comes_by_its_rate_and_does_what_it_says(fault: str) -> None:
    plan = FaultPlan(**{fault: 0.2}, stall_s=0.5)
    sent, way = deliveries(plan)
    assert deliveries(plan)[0] == sent
    assert deliveries(FaultPlan(**{fault: 0.2}, seed=2))[0] != sent
    count = way.counts[fault]
    assert 140 < count < 260
    data = [delivery.data for delivery in sent]
    whole = [one for one in data if one in set(MESSAGES)]
    assert {
        "late": sorted(whole) == MESSAGES and whole != MESSAGES and len(data) == 1000,
        "missing": whole == data and len(data) == 1000 - count and data == sorted(data),
        "duplicate": len(data) == 1000 + count and sorted(set(data)) == MESSAGES,
        "corrupt": len(data) == 1000 == len(whole) + count and all(len(one) == 120 for one in data),
        "torn": len(data) == 1000 == len(whole) + count,
        "stalled": whole == MESSAGES and sum(delivery.pause_s == 0.5 for delivery in sent) == count,
    }[fault]


def test_connections_are_cut_and_dribbled_and_datagrams_are_not() -> None:
    plan = FaultPlan(disconnected=0.1, dribbled=0.1)
    sent, way = deliveries(plan, datagrams=False)
    assert sum(delivery.closes for delivery in sent) == way.counts["disconnected"] > 50
    assert way.counts["sent"] == 1000 - way.counts["disconnected"]
    torn = [delivery.data for delivery in sent if delivery.closes]
    rest = b"".join(delivery.data for delivery in sent if not delivery.closes)
    assert len(rest) == 120 * way.counts["sent"]
    assert all(data not in MESSAGES for data in torn)
    assert deliveries(plan)[0] == [Delivery(message) for message in MESSAGES]


def test_what_is_no_rate_is_refused() -> None:
    with pytest.raises(Misconfigured, match="torn = 2 is no rate"):
        FaultPlan(torn=2)


def test_files_are_written_with_faults(tmp_path: Path) -> None:
    (source := tmp_path / "source").mkdir()
    for number in range(60):
        (source / f"f{number:03d}.fits").write_bytes(tiny(number=number + 1))
    plan = FaultPlan(late=0.1, missing=0.1, duplicate=0.1, corrupt=0.1, torn=0.1, stalled=0.05, stall_s=0.01)
    counts = write_directory(source, tmp_path / "target", period_s=0, plan=plan, stopping=threading.Event())
    written = {path.name: path.read_bytes() for path in (tmp_path / "target").iterdir()}
    assert counts.total() == 60
    assert len(written) == 60 - counts["missing"] + counts["duplicate"]
    same = [
        name
        for name, content in written.items()
        if (source / name).exists() and (source / name).read_bytes() == content
    ]
    assert len(same) == 60 - counts["missing"] - counts["corrupt"] - counts["torn"]
    assert all(counts[fault] for fault in ("late", "missing", "duplicate", "corrupt", "torn", "stalled"))
    with pytest.raises(Misconfigured, match="holds no files"):
        write_directory(tmp_path, source, period_s=0, plan=plan, stopping=threading.Event())
