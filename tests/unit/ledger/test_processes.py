"""Several processes at one ledger, and some of them killed: nothing is claimed, published or counted twice."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from collections import Counter
from multiprocessing.context import SpawnContext
from pathlib import Path

import pytest

from nightglass.errors import LeaseLost
from nightglass.ledger import Ledger
from nightglass.model import State
from tests.unit.ledger.material import CAMERA, NIGHT, Clock, arrival, complete, group, product, tallied

EXPOSURES = 120
SET = 4


def make(url: str, start: float) -> None:
    """Open a ledger that may not be there yet, at the same moment as others."""
    time.sleep(max(start - time.time(), 0))
    Ledger.open(url, clock=Clock()).close()


def work(url: str, directory: Path, owner: str, seed: int) -> None:
    """Claim whole groups until none is left; publish by adding a line, which shows if it happens twice."""
    chance = random.Random(seed)
    with Ledger.open(url, clock=Clock()) as ledger:
        while ready := ledger.ready(CAMERA):
            chosen = chance.choice(ready).group_id
            ids = [entry.exposure_id for entry in ready if entry.group_id == chosen]
            for lease in ledger.claim(ids, owner=owner, lease_s=60):
                path = directory / lease.exposure_id.rsplit("/", 1)[-1]

                def publish(path: Path = path) -> None:
                    with path.open("a") as stream:
                        stream.write(f"{owner}\n")

                try:
                    ledger.commit(lease, products=[product(lease, path)], publish=publish)
                except LeaseLost:
                    continue


def die_between_publishing_and_commit(url: str, path: Path) -> None:
    """Put the file under its final name, and be gone before the ledger knows."""

    def publish() -> None:
        path.write_text("product")
        os.kill(os.getpid(), signal.SIGKILL)

    with Ledger.open(url, clock=Clock()) as ledger:
        (lease,) = ledger.claim([ledger.ready(CAMERA)[0].exposure_id], owner="dead", lease_s=60)
        ledger.commit(lease, products=[product(lease, path)], publish=publish)


@pytest.fixture
def spawn() -> SpawnContext:
    return multiprocessing.get_context("spawn")


@pytest.fixture
def stocked(ledger: Ledger) -> Ledger:
    for first in range(0, EXPOSURES, SET):
        group(ledger, [complete(ledger, arrival(first + place)).exposure_id for place in range(SET)])
    return ledger


def published(directory: Path) -> Counter[str]:
    return Counter({path.name: len(path.read_text().splitlines()) for path in directory.iterdir()})


@pytest.mark.slow
def test_processes_open_a_new_ledger_at_once(tmp_path: Path, spawn: SpawnContext) -> None:
    url = str(tmp_path / "new.sqlite")
    start = time.time() + 1.5
    makers = [spawn.Process(target=make, args=(url, start)) for _ in range(4)]
    for maker in makers:
        maker.start()
    for maker in makers:
        maker.join()
    assert [maker.exitcode for maker in makers] == [0] * 4


@pytest.mark.slow
def test_nothing_is_claimed_or_published_twice(
    stocked: Ledger, ledger_url: str, tmp_path: Path, spawn: SpawnContext
) -> None:
    directory = tmp_path / "out"
    directory.mkdir()
    workers = [spawn.Process(target=work, args=(ledger_url, directory, f"w{n}", n)) for n in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 4
    assert set(published(directory).values()) == {1}
    assert stocked.counts(NIGHT, CAMERA)[State.REDUCED] == EXPOSURES
    assert stocked.counts() == tallied(stocked)
    claims = [
        event for entry in stocked.entries() for event in stocked.history(entry.key) if event.after is State.RUNNING
    ]
    assert len(claims) == EXPOSURES


@pytest.mark.slow
def test_killed_processes_lose_nothing(stocked: Ledger, ledger_url: str, tmp_path: Path, spawn: SpawnContext) -> None:
    directory = tmp_path / "out"
    directory.mkdir()
    chance = random.Random(7)
    for turn in range(4):
        worker = spawn.Process(target=work, args=(ledger_url, directory, f"turn{turn}", turn))
        worker.start()
        while worker.is_alive() and not stocked.running():
            time.sleep(0.002)
        time.sleep(chance.uniform(0.0, 0.05))
        assert worker.pid is not None
        if worker.is_alive():
            os.kill(worker.pid, signal.SIGKILL)
        worker.join()
        stocked.revoke(owner_prefix="turn")
    work(ledger_url, directory, "last", 99)
    assert stocked.counts(NIGHT, CAMERA)[State.REDUCED] == EXPOSURES
    assert stocked.counts() == tallied(stocked)
    lines = published(directory)
    assert len(lines) == EXPOSURES
    # a kill between the rename and the commit publishes the same bytes again; nothing else does
    assert sum(lines.values()) <= EXPOSURES + 4
    for entry in stocked.entries():
        assert [event.after for event in stocked.history(entry.key)].count(State.REDUCED) == 1


def test_a_crash_between_publishing_and_commit_is_redone(
    stocked: Ledger, ledger_url: str, tmp_path: Path, spawn: SpawnContext
) -> None:
    path = tmp_path / "final"
    child = spawn.Process(target=die_between_publishing_and_commit, args=(ledger_url, path))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert path.exists()
    assert stocked.products(NIGHT) == ()
    (entry,) = stocked.revoke(owners=["dead"])
    (lease,) = stocked.claim([entry.exposure_id], owner="next", lease_s=60)
    stocked.commit(lease, products=[product(lease, path)], publish=lambda: None)
    assert stocked.products(NIGHT) == (product(lease, path),)
