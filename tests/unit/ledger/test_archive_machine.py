"""Any order of requests, claims, deaths, expiries and results: one holder, one publication, the newest frames win."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from nightglass.errors import LeaseLost, Rejected, Retryable
from nightglass.ledger import ArchiveLease, ArchiveRecord, ArchiveState, Ledger
from nightglass.ledger.archives import ARCHIVE_TRANSITIONS
from nightglass.model import Content
from tests.unit.ledger.material import CAMERA, NIGHT, Clock

EXPOSURE = f"{CAMERA}/{NIGHT}/1"
OWNERS = st.sampled_from(["one", "two"])
LEGAL = {(source, target) for sources, target in ARCHIVE_TRANSITIONS.values() for source in sources}


@dataclass
class Held:
    """A lease, whose it is, and whether the ledger still honours its token."""

    lease: ArchiveLease
    owner: str
    until: float
    alive: bool = True


class ArchiveMachine(RuleBasedStateMachine):
    """The model knows what the cube on disk holds, and whose token counts."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.path = Path(self.stack.enter_context(tempfile.TemporaryDirectory())) / "ledger.sqlite"
        self.clock = Clock()
        self.frames: tuple[str, ...] = ("1",)
        self.on_disk: tuple[str, ...] = ()
        self.held: list[Held] = []
        self.last: ArchiveState | None = None

    @initialize()
    def open(self) -> None:
        self.ledger = Ledger.open(self.path, clock=self.clock)

    def teardown(self) -> None:
        with self.stack, self.ledger:
            self.clock.now += 1000
            self.ask(again=True)
            lease = self.ledger.claim_archive(EXPOSURE, Content.RAW, owner="last", lease_s=60)
            if lease is not None:
                self.publish(lease)
            record = self.record()
            assert record is not None
            if lease is not None and lease.wanted == record.wanted:
                assert (record.is_current, self.on_disk) == (True, self.frames)

    @rule(again=st.booleans())
    def ask(self, again: bool) -> None:
        before = self.record()
        record = self.ledger.request_archive(
            EXPOSURE, Content.RAW, night=NIGHT, camera=CAMERA, wanted=self.frames, again=again
        )
        if before is not None and before.is_current and before.held == tuple(sorted(self.frames)) and not again:
            assert record.state is ArchiveState.ARCHIVED

    @rule(frames=st.sets(st.sampled_from("123"), min_size=1))
    def change_frames(self, frames: set[str]) -> None:
        self.frames = tuple(sorted(frames))

    @rule(owner=OWNERS)
    def claim(self, owner: str) -> None:
        before = self.record()
        lease = self.ledger.claim_archive(EXPOSURE, Content.RAW, owner=owner, lease_s=60)
        good = [held for held in self.held if held.alive and held.until > self.clock.now]
        free = before is not None and before.state in (ArchiveState.PENDING, ArchiveState.RUNNING) and not good
        assert (lease is not None) == free
        if lease is not None:
            self.fence()
            self.held.append(Held(lease, owner, lease.until))

    @rule(pick=st.integers(0, 9))
    def commit(self, pick: int) -> None:
        if not self.held:
            return
        held = self.held.pop(pick % len(self.held))
        before = self.on_disk
        try:
            self.publish(held.lease)
        except LeaseLost:
            assert not held.alive or held.until <= self.clock.now
            assert self.on_disk == before
            if held.alive:
                self.held.append(held)
        else:
            assert held.alive

    @rule(pick=st.integers(0, 9), error=st.sampled_from([Rejected("bad"), Retryable("busy"), OSError("io")]))
    def give_back(self, pick: int, error: Exception) -> None:
        if self.held:
            held = self.held.pop(pick % len(self.held))
            try:
                self.ledger.give_back_archive(held.lease, error, max_attempts=2, retry_s=5)
            except LeaseLost:
                assert not held.alive
            else:
                assert held.alive

    @rule(pick=st.integers(0, 9))
    def extend(self, pick: int) -> None:
        if self.held:
            held = self.held[pick % len(self.held)]
            try:
                self.ledger.extend_archive(held.lease, lease_s=60)
            except LeaseLost:
                assert not held.alive
            else:
                assert held.alive
                held.until = self.clock.now + 60

    @rule(seconds=st.sampled_from([1.0, 61.0]))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule(owner=OWNERS)
    def die(self, owner: str) -> None:
        """A process is killed: the next one revokes what it held."""
        self.ledger.close()
        self.ledger = Ledger.open(self.path, clock=self.clock)
        self.ledger.revoke_archives(owners=[owner])
        for held in self.held:
            held.alive = held.alive and held.owner != owner

    @invariant()
    def only_legal_changes(self) -> None:
        """Several moves may lie between two looks, so a path of them must exist."""
        record = self.record() if hasattr(self, "ledger") else None
        if record is not None and self.last is not None and record.state is not self.last:
            reached, new = {self.last}, {self.last}
            while new:
                new = {target for source, target in LEGAL if source in new} - reached
                reached |= new
            assert record.state in reached
        self.last = record.state if record is not None else None

    @invariant()
    def one_holder_and_the_books_agree(self) -> None:
        if not hasattr(self, "ledger"):
            return
        record = self.record()
        alive = [held for held in self.held if held.alive]
        assert len(alive) <= 1
        if record is None:
            return
        assert (record.state is ArchiveState.RUNNING) == bool(record.token) == bool(record.owner) == bool(alive)
        assert record.held == self.on_disk
        counts = self.ledger.archive_counts(NIGHT, CAMERA)
        assert counts == {state: int(state is record.state) for state in ArchiveState}

    def record(self) -> ArchiveRecord | None:
        return self.ledger.find_archive(EXPOSURE)

    def publish(self, lease: ArchiveLease) -> None:
        def rename() -> None:
            self.on_disk = lease.wanted

        self.ledger.commit_archive(
            lease,
            path=Path("/cube.fits"),
            checksum="0",
            size=1,
            sources=1,
            frames=1,
            files=(),
            verified=True,
            publish=rename,
        )

    def fence(self) -> None:
        for held in self.held:
            held.alive = False


TestArchives = pytest.mark.slow(ArchiveMachine.TestCase)
TestArchives.settings = settings(
    max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
