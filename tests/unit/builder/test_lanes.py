"""Items in order, again and again, whatever happens to them on the way."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from nightglass.builder.lanes import Delivered, Lane, Patience
from nightglass.errors import Rejected

PATIENCE_S = 120.0
QUICK = Patience(attempts=4, first_s=0.001, longest_s=0.002, limit=3)


class Peer:
    """Takes items, and fails as often as an item says."""

    def __init__(self) -> None:
        self.got: list[int] = []
        self.tries: dict[int, int] = {}
        self.ended: list[Delivered] = []

    def take(self, item: Mapping[str, Any]) -> None:
        number = item["n"]
        self.tries[number] = self.tries.get(number, 0) + 1
        if item.get("refused"):
            message = "never"
            raise Rejected(message)
        if self.tries[number] <= item.get("failures", 0):
            message = "not yet"
            raise OSError(message)
        self.got.append(number)

    def end(self, ended: Delivered) -> None:
        self.ended.append(ended)
        if ended.item.get("loud"):
            message = "nobody may be hurt by this"
            raise RuntimeError(message)


def lane(place: Path, peer: Peer, patience: Patience = QUICK) -> Lane:
    return Lane("peer", place, peer.take, patience=patience, on_end=peer.end)


def test_items_are_delivered_in_order_whatever_fails_in_between(tmp_path: Path) -> None:
    peer = Peer()
    made = lane(tmp_path, peer, Patience(attempts=4, first_s=0.001, longest_s=0.002))
    items = [
        {"n": 1},
        {"n": 2, "failures": 3},
        {"n": 3, "refused": True},
        {"n": 4, "failures": 9, "loud": True},
        {"n": 5},
    ]
    numbers = [made.put(item) for item in items]
    assert numbers == sorted(numbers)
    made.start()
    made.start()
    assert made.wait_idle(PATIENCE_S)
    made.close()
    assert peer.got == [1, 2, 5]
    assert peer.tries == {1: 1, 2: 4, 3: 1, 4: 4, 5: 1}
    assert [bool(ended.error) for ended in peer.ended] == [False, False, True, True, False]
    assert list(tmp_path.iterdir()) == []


def test_a_note_that_cannot_be_read_is_put_aside(tmp_path: Path) -> None:
    peer = Peer()
    first = lane(tmp_path, peer)
    number = first.put({"n": 1})
    first.put({"n": 2})
    (tmp_path / f"{number:012d}.json").write_text('{"n": ')
    again = lane(tmp_path, peer)
    again.start()
    assert again.wait_idle(PATIENCE_S)
    again.close()
    assert peer.got == [2]
    assert [path.suffix for path in tmp_path.iterdir()] == [".unreadable"]


def test_beyond_the_limit_the_oldest_goes_and_says_so(tmp_path: Path) -> None:
    peer = Peer()
    made = lane(tmp_path, peer)
    for number in range(5):
        made.put({"n": number})
    assert made.pending == 3
    assert [ended.item["n"] for ended in peer.ended] == [0, 1]
    assert "3 newer ones wait" in peer.ended[0].error
    made.close()


def test_one_that_is_closed_while_it_waits_keeps_its_item(tmp_path: Path) -> None:
    tried = threading.Event()

    def never(_: Mapping[str, Any]) -> None:
        tried.set()
        raise OSError

    made = Lane("peer", tmp_path, never, patience=Patience(attempts=10, first_s=1000, longest_s=1000))
    number = made.put({"n": 1})
    made.start()
    assert tried.wait(PATIENCE_S)
    assert made.wait(number, 0.01) is None
    made.close(PATIENCE_S)
    peer = Peer()
    again = lane(tmp_path, peer)
    again.start()
    ended = again.wait(number, PATIENCE_S)
    again.close()
    assert ended is not None
    assert ended.error == ""
    assert peer.got == [1]


@pytest.mark.parametrize("attempts", [1, 2, 5, 40, 2000])
def test_waits_grow_to_a_limit(attempts: int) -> None:
    wait = Patience(first_s=0.5, longest_s=60).wait_s(attempts)
    expected = min(0.5 * 2.0 ** min(attempts - 1, 30), 60)
    assert 0.8 * expected <= wait <= 1.2 * expected
