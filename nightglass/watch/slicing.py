"""Readouts of pixel chips, cut into slices of time, each of which becomes an event file."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from nightglass.streams.astropix import HIT_DTYPE, HitDecoder, Readout
from nightglass.streams.continuity import Continuity, Losses
from nightglass.streams.slices import (
    READOUT_DTYPE,
    EventSlice,
    SliceShape,
    merge_slices,
    read_slice,
    slice_start,
    write_slice,
)
from nightglass.watch.assembling import AssemblyCounts, PlaceFunction, plausible, unless_unreadable

if TYPE_CHECKING:
    from nightglass.config import StreamSource
    from nightglass.sensors.received import Received

__all__ = ["HitAssembler"]

T = TypeVar("T")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MOST_BYTES = 64 << 20
"""Of hits in one open slice; a faster stream has its slices written in several goes."""

_MOST_PEERS = 256


@dataclass(slots=True, eq=False)
class _Open:
    start: datetime
    last_at: float
    hits: list[NDArray[np.void]] = field(default_factory=list)
    readouts: list[NDArray[np.void]] = field(default_factory=list)
    known: set[tuple[int, int]] = field(default_factory=set)
    losses: Losses = field(default_factory=Losses)
    size: int = 0

    def closed(self, length_s: float) -> EventSlice:
        return EventSlice(
            start=self.start,
            length_s=length_s,
            hits=np.concatenate([np.empty(0, HIT_DTYPE), *self.hits]),
            readouts=np.concatenate([np.empty(0, READOUT_DTYPE), *self.readouts]),
            losses=self.losses,
        )


class HitAssembler:
    """Slices of hits: a slice is ready when readouts of a later one came, and none of its own for a while.

    Hits that are cut in two by the end of a readout are put together; each sender has its own decoder.
    """

    most = 4096

    def __init__(self, source: StreamSource, place: PlaceFunction) -> None:
        self._stream = source.name
        self._place = place
        self._length_s = source.slice_s
        self._wait_s = source.wait_s
        self._shape = SliceShape(rows=source.hit_map[0], columns=source.hit_map[1], chips=source.chips)
        self._decoders: dict[str, HitDecoder] = {}
        self._continuity: dict[str, Continuity] = {}
        self._open: dict[datetime, _Open] = {}
        self._released: deque[datetime] = deque(maxlen=512)
        self._due: deque[EventSlice] = deque()
        self._counts = AssemblyCounts()

    @property
    def counts(self) -> AssemblyCounts:
        """The running count."""
        return self._counts

    @property
    def due(self) -> int:
        """Files that are ready to be written."""
        return len(self._due)

    def take(self, batch: Sequence[Received[Readout]], now: float) -> None:
        """Take readouts in."""
        by_peer: dict[str, list[tuple[Readout, _Open]]] = {}
        fresh: dict[str, list[tuple[Readout, _Open]]] = {}
        for received in batch:
            readout = received.message
            slot = self._slot(readout, received.received_at, now)
            by_peer.setdefault(received.peer, []).append((readout, slot))
            key = (readout.readout_id, readout.timestamp_ns)
            if key in slot.known:
                self._counts.duplicates += 1
                continue
            slot.known.add(key)
            fresh.setdefault(received.peer, []).append((readout, slot))
        for peer, pairs in by_peer.items():
            self._account(peer, pairs)
        for peer, pairs in fresh.items():
            self._decode(peer, pairs)
        for slot in [slot for slot in self._open.values() if slot.size > _MOST_BYTES]:
            self._release(slot)

    def tick(self, now: float) -> None:
        """Make ready the slices that nothing more is expected of."""
        newest = max(self._open, default=_EPOCH)
        for slot in sorted(self._open.values(), key=lambda item: item.start):
            quiet_s = now - slot.last_at
            if quiet_s >= self._wait_s + (self._length_s if slot.start == newest else 0.0):
                self._release(slot)

    def flush(self) -> None:
        """Make ready all slices."""
        for slot in sorted(self._open.values(), key=lambda item: item.start):
            self._release(slot)

    def write_next(self) -> Path:
        """Write the oldest slice that is due; what its file holds already stays in it."""
        events = self._due[0]
        path = self._place(events.start)
        if path.exists():
            before = unless_unreadable(path, partial(read_slice, path), None)
            events = events if before is None else merge_slices(before, events)
        write_slice(path, events, shape=self._shape, stream=self._stream)
        self._due.popleft()
        self._counts.files += 1
        return path

    def drop_next(self) -> None:
        """Give the oldest slice that is due up."""
        self._due.popleft()

    def restore(self, files: Iterable[Path]) -> None:
        """Do nothing: files are read when readouts of their time come."""

    def _slot(self, readout: Readout, received_at: datetime, now: float) -> _Open:
        timestamp_ns = readout.timestamp_ns
        if not plausible(_EPOCH + timedelta(microseconds=min(timestamp_ns // 1000, 1 << 57))):
            self._counts.untimed += 1
            timestamp_ns = (received_at - _EPOCH) // timedelta(microseconds=1) * 1000
        start = slice_start(timestamp_ns, self._length_s)
        slot = self._open.get(start)
        if slot is None:
            slot = self._open[start] = _Open(start, now)
        self._counts.late += start in self._released
        slot.last_at = now
        return slot

    def _account(self, peer: str, pairs: Sequence[tuple[Readout, _Open]]) -> None:
        """Count what was lost, and where."""
        continuity = _of_peer(self._continuity, peer, Continuity)
        for start, stop in _runs(pairs):
            readouts, slot = [readout for readout, _ in pairs[start:stop]], pairs[start][1]
            added = continuity.observe(
                np.array([readout.readout_id for readout in readouts], np.uint32),
                np.array([readout.timestamp_ns for readout in readouts], np.uint64),
            )
            slot.losses = Losses(*(one + two for one, two in zip(astuple(slot.losses), astuple(added), strict=True)))

    def _decode(self, peer: str, pairs: Sequence[tuple[Readout, _Open]]) -> None:
        decoder = _of_peer(self._decoders, peer, HitDecoder)
        decoded = decoder.decode([readout for readout, _ in pairs])
        ids = np.fromiter((readout.readout_id for readout, _ in pairs), np.int64, len(pairs))
        owner = _owners(decoded.hits, ids)
        counts = np.bincount(owner, minlength=len(pairs))
        for start, stop in _runs(pairs):
            readouts, slot = [readout for readout, _ in pairs[start:stop]], pairs[start][1]
            rows = np.zeros(stop - start, READOUT_DTYPE)
            rows["readout_id"] = ids[start:stop]
            rows["timestamp"] = [readout.timestamp_ns for readout in readouts]
            rows["size"] = [len(readout.data) for readout in readouts]
            rows["status"] = decoded.status[start:stop]
            rows["hits"] = counts[start:stop]
            slot.hits.append(decoded.hits[np.searchsorted(owner, start) : np.searchsorted(owner, stop)])
            slot.readouts.append(rows)
            slot.size += slot.hits[-1].nbytes + rows.nbytes

    def _release(self, slot: _Open) -> None:
        del self._open[slot.start]
        self._released.append(slot.start)
        self._due.append(slot.closed(self._length_s))


def _runs(pairs: Sequence[tuple[Readout, _Open]]) -> Iterator[tuple[int, int]]:
    """Yield start and stop of each run of readouts that fall into one slice."""
    start = 0
    for place in range(1, len(pairs) + 1):
        if place == len(pairs) or pairs[place][1] is not pairs[start][1]:
            yield start, place
            start = place


def _of_peer(table: dict[str, T], peer: str, make: Callable[[], T]) -> T:
    """Return what is kept of a sender; of many senders the one that was first here is forgotten."""
    if peer not in table:
        while len(table) >= _MOST_PEERS:
            del table[next(iter(table))]
        table[peer] = make()
    return table[peer]


def _owners(hits: NDArray[np.void], ids: NDArray[np.int64]) -> NDArray[np.intp]:
    """Return for each hit the place of its readout: hits come in the order of the readouts that complete them."""
    if not len(hits):
        return np.zeros(0, np.intp)
    own = hits["readout_id"].astype(np.int64)
    owner = np.empty(len(hits), np.intp)
    place = 0
    changes = np.flatnonzero(np.diff(own) != 0) + 1
    for start, stop in zip([0, *changes.tolist()], [*changes.tolist(), len(hits)], strict=True):
        while ids[place] != own[start]:
            place += 1
        owner[start:stop] = place
    return owner
