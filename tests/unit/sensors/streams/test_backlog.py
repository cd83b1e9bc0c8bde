"""What waits: in order, within its limits, and every message that had to go is counted."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import threading
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nightglass.config import Overflow
from nightglass.errors import Misconfigured
from nightglass.sensors import Backlog, Spill, open_backlog
from nightglass.sensors.backlog import OVERHEAD_BYTES
from nightglass.streams import find_protocol
from nightglass.streams.astropix import Readout
from tests.unit.sensors.streams.site import PATIENCE_S, received, source, until

ASTROPIX = find_protocol("astropix")
EACH = 100 + OVERHEAD_BYTES


def spilling(directory: Path, *, memory: int = 3 * EACH, disk: int = 1 << 20) -> Backlog[Readout]:
    return Backlog(memory, Overflow.SPILL, spill=Spill(directory, ASTROPIX, limit_bytes=disk))


def ids(backlog: Backlog[Readout], most: int = 10_000) -> list[int]:
    return [item.message.readout_id for item in backlog.take(wait_s=0, most=most)]


def open_files(directory: Path) -> int:
    """Count the open files of a directory, those without a name included; other threads of this process have others."""
    found = 0
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # closed meanwhile
            found += str(link.readlink()).startswith(f"{directory}/")
    return found


def test_messages_come_out_in_order_and_are_counted() -> None:
    backlog: Backlog[Readout] = Backlog(10 * EACH, Overflow.BLOCK)
    backlog.put_all([received(number) for number in range(5)])
    assert (backlog.counts.messages, backlog.counts.bytes) == (5, 5 * EACH)
    assert ids(backlog, 3) == [0, 1, 2]
    assert ids(backlog) == [3, 4]
    counts = backlog.counts
    assert (counts.messages, counts.bytes, counts.taken, counts.peak_bytes, counts.dropped) == (0, 0, 5, 5 * EACH, 0)


def test_the_oldest_or_the_newest_go_when_memory_is_full() -> None:
    oldest: Backlog[Readout] = Backlog(3 * EACH, Overflow.DROP_OLDEST)
    newest: Backlog[Readout] = Backlog(3 * EACH, Overflow.DROP_NEWEST)
    for backlog in (oldest, newest):
        backlog.put_all([received(number) for number in range(10)])
        counts = backlog.counts
        assert (counts.dropped, counts.dropped_bytes, counts.peak_bytes) == (7, 700, 3 * EACH)
    assert ids(oldest) == [7, 8, 9]
    assert ids(newest) == [0, 1, 2]


def test_blocked_producers_wait_for_room() -> None:
    backlog: Backlog[Readout] = Backlog(3 * EACH, Overflow.BLOCK)
    producer = threading.Thread(target=backlog.put_all, args=([received(number) for number in range(20)],))
    producer.start()
    found: list[int] = []
    while len(found) < 20:
        found += [item.message.readout_id for item in backlog.take(wait_s=PATIENCE_S, most=2)]
        assert backlog.counts.bytes <= 3 * EACH
    producer.join(PATIENCE_S)
    assert found == list(range(20))
    assert backlog.counts.peak_bytes == 3 * EACH
    assert backlog.counts.blocked_s > 0


def test_a_blocked_producer_that_is_to_end_loses_nothing() -> None:
    backlog: Backlog[Readout] = Backlog(EACH, Overflow.BLOCK)
    hurry = threading.Event()
    producer = threading.Thread(
        target=backlog.put_all, args=([received(number) for number in range(4)],), kwargs={"hurry": hurry}
    )
    producer.start()
    until(lambda: backlog.counts.messages == 1)
    hurry.set()
    producer.join(PATIENCE_S)
    assert ids(backlog) == [0, 1, 2, 3]


def test_closing_wakes_everybody_and_leaves_what_is_in_memory() -> None:
    backlog: Backlog[Readout] = Backlog(EACH, Overflow.BLOCK)
    producer = threading.Thread(target=backlog.put_all, args=([received(0), received(1)],))
    producer.start()
    until(lambda: backlog.counts.messages == 1)
    backlog.close()
    producer.join(PATIENCE_S)
    assert not producer.is_alive()
    backlog.put(received(2))
    assert ids(backlog) == [0]
    assert backlog.take(wait_s=PATIENCE_S, most=1) == []
    assert backlog.counts.dropped == 2


def test_a_message_above_the_limit_goes_through_alone() -> None:
    backlog: Backlog[Readout] = Backlog(10, Overflow.BLOCK)
    backlog.put(received(1))
    assert ids(backlog) == [1]


@settings(max_examples=40, deadline=None)
@given(steps=st.lists(st.tuples(st.booleans(), st.integers(1, 12)), max_size=30))
def test_spilling_loses_nothing_and_keeps_order(
    steps: list[tuple[bool, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    backlog = spilling(tmp_path_factory.mktemp("spill"))
    sent, found = 0, list[int]()
    for putting, count in steps:
        if putting:
            backlog.put_all([received(number) for number in range(sent, sent + count)])
            sent += count
        else:
            found += ids(backlog, count)
        assert backlog.counts.bytes <= 3 * EACH
    while more := ids(backlog):
        found += more
    assert found == list(range(sent))
    assert (backlog.counts.dropped, backlog.counts.spilled_bytes, backlog.counts.messages) == (0, 0, 0)
    backlog.close()


def test_what_was_spilt_comes_back_as_it_was(tmp_path: Path) -> None:
    backlog = spilling(tmp_path, memory=1)
    sent = [received(number) for number in range(5)]
    backlog.put_all(sent)
    assert backlog.counts.spilled_bytes > 400
    assert list(tmp_path.iterdir()) == []  # nothing would be left after a kill
    assert backlog.take(wait_s=0, most=10) == sent
    backlog.close()


def test_beyond_the_limit_of_the_disk_the_oldest_there_go(tmp_path: Path) -> None:
    backlog = spilling(tmp_path, memory=2 * EACH, disk=1500)
    backlog.put_all([received(number) for number in range(50)])
    counts = backlog.counts
    assert counts.spilled_bytes <= 1500
    found = ids(backlog)
    assert found[:2] == [0, 1]
    assert found[2:] == list(range(50 - len(found[2:]), 50))
    assert counts.dropped == 50 - len(found) > 0
    assert backlog.counts.dropped == counts.dropped
    backlog.close()


@pytest.mark.slow
def test_long_spills_take_several_files_and_give_them_back(tmp_path: Path) -> None:
    with closing(spilling(tmp_path, memory=10_000, disk=1 << 30)) as backlog:
        backlog.put_all([received(number, 60_000) for number in range(300)])
        assert open_files(tmp_path) == 1  # segments are a sixteenth of the limit
        with closing(spilling(tmp_path, memory=10_000, disk=8 << 20)) as small:
            small.put_all([received(number, 60_000) for number in range(300)])
            assert open_files(tmp_path) > 5
            found = ids(small)
            assert found[0] == 0
            assert found[1:] == list(range(301 - len(found), 300))
            assert small.counts.dropped == 300 - len(found)
        assert ids(backlog) == list(range(300))
    assert open_files(tmp_path) == 0


def test_a_full_disk_costs_the_oldest_and_is_survived(tmp_path: Path) -> None:
    """The limit of a file's size stands for the disk: writing beyond it fails halfway, as on a full one."""
    backlog = spilling(tmp_path, memory=2 * EACH)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        backlog.put_all([received(number) for number in range(40)])
        found = ids(backlog)
        dropped = backlog.counts.dropped
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert found[:2] == [0, 1]
    assert found[2:] == list(range(42 - len(found), 40))
    assert len(found) + dropped == 40
    backlog.put_all([received(number) for number in range(40, 60)])
    assert ids(backlog) == list(range(40, 60))
    assert backlog.trouble == ""
    backlog.close()


def test_a_disk_that_takes_nothing_leaves_memory(tmp_path: Path) -> None:
    backlog = spilling(tmp_path, memory=3 * EACH)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
    try:
        backlog.put_all([received(number) for number in range(40)])
        assert os.strerror(errno.EFBIG) in backlog.trouble
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert ids(backlog) == [37, 38, 39]
    assert backlog.counts.dropped == 37
    backlog.close()


def test_closing_counts_what_is_left_on_the_disk(tmp_path: Path) -> None:
    backlog = spilling(tmp_path, memory=2 * EACH)
    backlog.put_all([received(number) for number in range(10)])
    backlog.close()
    assert ids(backlog) == [0, 1]
    assert backlog.counts.dropped == 8


def test_policies_and_files_have_to_fit(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="needs a file"):
        Backlog(100, Overflow.SPILL)
    spill = Spill(tmp_path, ASTROPIX, limit_bytes=1000)
    with pytest.raises(Misconfigured, match="does not take"):
        Backlog(100, Overflow.BLOCK, spill=spill)
    spill.close()
    (tmp_path / "file").touch()
    with pytest.raises(Misconfigured, match="nothing can be spilt"):
        open_backlog(source("astropix", "127.0.0.1:1", overflow=Overflow.SPILL), directory=tmp_path / "file")
