"""Any order of arrivals, claims, results, deaths and restarts: nothing lost, nothing twice, the books agree."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from nightglass.errors import LeaseLost, Misconfigured, Rejected, Retryable, Waiting
from nightglass.ledger import Lease, Ledger
from nightglass.ledger.transitions import TRANSITIONS
from nightglass.model import State
from tests.unit.ledger.material import CAMERA, NIGHT, Arrival, Clock, group, tallied

NUMBERS = st.integers(1, 3)
ERRORS = st.sampled_from([Rejected("cut"), Waiting("no flat"), Retryable("busy"), Misconfigured("bug"), OSError("io")])
LEASE_S = 60.0
LEGAL = {(source, target) for sources, target in TRANSITIONS.values() for source in sources}


@dataclass
class Held:
    """A lease as its holder sees it, and whether it ought to be good."""

    lease: Lease
    alive: bool = True
    published: list[str] = field(default_factory=list)


class LedgerMachine(RuleBasedStateMachine):
    """The model knows what lies at each path, and which leases are good."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.directory = Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
        self.url = self.directory / "ledger.sqlite"
        self.clock = Clock()
        self.arrivals: dict[int, Arrival] = {}
        self.held: list[Held] = []
        self.mtime = 0

    @initialize()
    def open(self) -> None:
        self.ledger = Ledger.open(self.url, clock=self.clock)

    def teardown(self) -> None:
        with self.stack, self.ledger:
            self.finish_the_night()
            contents = {entry.content_id for entry in self.ledger.entries(states=[State.REDUCED])}
            lost = [item for item in self.arrivals.values() if item.ref().content_id not in contents]
            assert not lost

    def finish_the_night(self) -> None:
        """Bring every file that is there now to its end, as a watch does."""
        self.ledger.revoke(owners=["me"])
        for number in self.arrivals:
            self.see(number)
        self.ledger.retry([entry.key for entry in self.ledger.entries() if entry.state is not State.REDUCED])
        for entry in self.ledger.pending():
            item = next((item for item in self.arrivals.values() if item.path == entry.path), None)
            if item is not None:
                self.ledger.complete(entry.key, item.ref(), revision=entry.revision)
        for entry in self.ledger.pending():
            if entry.state is State.COMPLETE:
                group(self.ledger, [entry.exposure_id], revision=entry.revision)
        self.clock.now += 1000
        for entry in (*self.ledger.ready(), *self.ledger.pending()):
            for lease in self.ledger.claim([entry.exposure_id], owner="me", lease_s=LEASE_S):
                self.ledger.commit(lease, products=(), publish=lambda: None)

    @rule(number=NUMBERS, content=st.integers(1, 4))
    def write_file(self, number: int, content: int) -> None:
        """A file appears, is replaced, or is only touched."""
        self.mtime += 1
        path = self.directory / f"{number}.fits"
        path.touch()
        self.arrivals[number] = Arrival(path, content, number, self.mtime)

    @rule(number=NUMBERS, place=NUMBERS)
    def rename_file(self, number: int, place: int) -> None:
        """What was at that place is overwritten; the bytes keep their exposure number and their time stamp."""
        if number in self.arrivals and number != place:
            item = self.arrivals.pop(number)
            path = item.path.rename(self.directory / f"{place}.fits")
            self.arrivals[place] = Arrival(path, item.content, item.number, item.mtime)

    @rule(number=NUMBERS)
    def see(self, number: int) -> None:
        if number in self.arrivals:
            item = self.arrivals[number]
            before = self.known(number)
            entry = self.ledger.see(item.sighting, camera=CAMERA, night=NIGHT)
            if before is not None and entry.revision > before.revision:
                self.fence(number)

    @rule(number=NUMBERS)
    def complete(self, number: int) -> None:
        entry = self.known(number)
        if entry is not None:
            item = self.arrivals[number]
            self.ledger.complete(entry.key, item.ref(), revision=entry.revision)

    @rule(number=NUMBERS, content=st.integers(1, 4))
    def arrive(self, number: int, content: int) -> None:
        """The three steps above at once: most files arrive without adventures."""
        self.write_file(number, content)
        self.see(number)
        self.complete(number)
        self.group([number])

    @rule(numbers=st.lists(NUMBERS, min_size=1, max_size=3, unique=True))
    def group(self, numbers: list[int]) -> None:
        entries = [entry for number in numbers if (entry := self.known(number)) is not None and entry.exposure_id]
        if entries:
            group(self.ledger, [entry.exposure_id for entry in entries], revision=max(e.revision for e in entries))

    @rule(number=NUMBERS, again=st.sampled_from(["claim", "claim_again"]))
    def claim(self, number: int, again: str) -> None:
        entry = self.known(number)
        if entry is not None and entry.exposure_id:
            leases = getattr(self.ledger, again)([entry.exposure_id], owner="me", lease_s=LEASE_S)
            assert len(leases) == (entry.state in self.claimable(again))
            self.held += [Held(lease) for lease in leases]

    @rule(pick=st.integers(0, 50))
    def commit(self, pick: int) -> None:
        if not self.held:
            return
        held = self.held[pick % len(self.held)]
        good = held.alive and held.lease.until > self.clock.now
        try:
            self.ledger.commit(held.lease, products=(), publish=lambda: held.published.append("x"))
        except LeaseLost:
            assert not good
            assert not held.published
        else:
            assert good
            assert held.published == ["x"]
            assert self.ledger.find(held.lease.exposure_id).state is State.REDUCED
            self.held.remove(held)

    @rule(pick=st.integers(0, 50), error=ERRORS)
    def give_back(self, pick: int, error: Exception) -> None:
        if not self.held:
            return
        held = self.held[pick % len(self.held)]
        try:
            self.ledger.give_back(held.lease, error, max_attempts=2, retry_s=5)
        except LeaseLost:
            assert not held.alive
        else:
            assert held.alive
        self.held.remove(held)

    @rule(seconds=st.sampled_from([1.0, 30.0, 61.0]))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule()
    def sweep(self) -> None:
        swept = {entry.key for entry in self.ledger.sweep()}
        expired = {held.lease.key for held in self.held if held.alive and held.lease.until <= self.clock.now}
        assert swept == expired
        for held in self.held:
            held.alive = held.alive and held.lease.key not in expired

    @rule(number=NUMBERS, verb=st.sampled_from(["skip", "retry"]))
    def intervene(self, number: int, verb: str) -> None:
        entry = self.known(number)
        if entry is not None:
            getattr(self.ledger, verb)([entry.key])
            if verb == "skip":
                self.fence(number)

    @rule()
    def crash_and_restart(self) -> None:
        """Every holder is dead; the next process revokes what they held."""
        self.ledger.close()
        self.ledger = Ledger.open(self.url, clock=self.clock)
        revoked = self.ledger.revoke(owners=["me"])
        assert {entry.key for entry in revoked} == {held.lease.key for held in self.held if held.alive}
        for held in self.held:
            held.alive = False

    @invariant()
    def counters_equal_the_entries(self) -> None:
        assert self.ledger.counts() == tallied(self.ledger)

    @invariant()
    def every_history_is_a_legal_path_to_the_present(self) -> None:
        for entry in self.ledger.entries():
            events = self.ledger.history(entry.key)
            assert [event.number for event in events] == sorted(event.number for event in events)
            assert (events[0].before, events[-1].after) == (None, entry.state)
            assert all(one.after is two.before for one, two in pairwise(events))
            assert all((event.before, event.after) in LEGAL for event in events[1:])

    @invariant()
    def only_what_runs_has_a_holder(self) -> None:
        for entry in self.ledger.entries():
            assert (entry.state is State.RUNNING) == bool(entry.token) == bool(entry.owner)
        running = {entry.key for entry in self.ledger.running()}
        assert running == {held.lease.key for held in self.held if held.alive}

    @invariant()
    def no_path_and_no_id_is_there_twice(self) -> None:
        entries = list(self.ledger.entries())
        ids = [entry.exposure_id for entry in entries if entry.exposure_id]
        assert len(ids) == len(set(ids))
        assert len({entry.path for entry in entries}) == len(entries)

    def known(self, number: int):  # type: ignore[no-untyped-def]
        path = self.arrivals[number].path if number in self.arrivals else None
        return next((entry for entry in self.ledger.entries() if entry.path == path), None)

    def fence(self, number: int) -> None:
        entry = self.known(number)
        for held in self.held:
            held.alive = held.alive and held.lease.key != entry.key

    @staticmethod
    def claimable(verb: str) -> set[State]:
        usual = {State.COMPLETE, State.GROUPED, State.WAITING}
        return usual | {State.REDUCED} if verb == "claim_again" else usual


TestLedger = pytest.mark.slow(LedgerMachine.TestCase)
TestLedger.settings = settings(
    max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
