"""What runs next: the queue of ready groups, sans-I/O.

Order: the newest night first; within a camera's night calibrations before science, because masters depend on them;
then the newest first, because that is what the observer looks at. Every fourth batch goes to whatever has waited
longest, once that is long, so that a backlog starves nothing. A backlog goes out in batches that grow with it, so
that the cost of a flow run is shared by more exposures the more there are.
"""

from __future__ import annotations

import heapq
import itertools
import math
from dataclasses import dataclass

from nightglass.model import Night

__all__ = ["Dispatch", "ReadyItem"]

_AGED_SHARE = 4
"""Every so many batches one may go to the longest waiting."""
_CRUMBS = 3
"""Fewer than so many groups are not left over by a batch: each would cost a flow run, one after the other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadyItem:
    """A group that may run.

    Attributes
    ----------
    started_at : float
        Start of its newest exposure, in epoch seconds.
    ready_at : float
        When it became ready, on the clock that `Dispatch.take` is told.
    calibration : bool
        Whether masters are made of it.
    members : tuple of str
        The exposures that are to be claimed.
    rule : str
        Name of its group rule; empty for a group of one.
    """

    group_id: str
    camera: str
    night: Night
    started_at: float
    ready_at: float
    calibration: bool = False
    members: tuple[str, ...] = ()
    rule: str = ""


_Placed = tuple[float, int, ReadyItem]


class _Lane:
    """The queue of one night of one camera: items by rank, and the same by age."""

    def __init__(self) -> None:
        self._calibrations: list[_Placed] = []
        self._science: list[_Placed] = []
        self._by_age: list[_Placed] = []
        self._live: dict[int, ReadyItem] = {}
        self.calibrating = 0
        self.served = 0

    def __len__(self) -> int:
        return len(self._live)

    def add(self, number: int, item: ReadyItem) -> None:
        self._live[number] = item
        self.calibrating += item.calibration
        heapq.heappush(self._calibrations if item.calibration else self._science, (-item.started_at, number, item))
        heapq.heappush(self._by_age, (item.ready_at, number, item))

    def get(self, number: int) -> ReadyItem:
        return self._live[number]

    def forget(self, number: int) -> ReadyItem:
        item = self._live.pop(number)
        self.calibrating -= item.calibration
        return item

    def pick(self) -> ReadyItem | None:
        """Take the first by rank away."""
        for heap in (self._calibrations, self._science):
            self._trim(heap)
            if heap:
                return self.forget(heap[0][1])
        return None

    def pick_oldest(self) -> ReadyItem | None:
        """Take the longest waiting away."""
        self._trim(self._by_age)
        return self.forget(self._by_age[0][1]) if self._by_age else None

    def oldest(self) -> float:
        """Return when the longest waiting became ready; infinity if there is none."""
        self._trim(self._by_age)
        return self._by_age[0][0] if self._by_age else math.inf

    def _trim(self, heap: list[_Placed]) -> None:
        # an item lies in two heaps: taken from one, it is a husk in the other
        while heap and heap[0][1] not in self._live:
            heapq.heappop(heap)
        if len(heap) > 2 * len(self._live) + 64:
            heap[:] = [placed for placed in heap if placed[1] in self._live]
            heapq.heapify(heap)


class Dispatch:
    """The queue of ready groups of all cameras and nights.

    Parameters
    ----------
    batch_limit : int
        Most groups in one batch.
    slots : int
        Batches that run at once; a batch takes a fair part of the backlog for each.
    ageing_s : float
        Seconds of waiting after which a group may go before newer ones.
    """

    def __init__(self, *, batch_limit: int, slots: int, ageing_s: float = 60.0) -> None:
        self._batch_limit = batch_limit
        self._slots = max(slots, 1)
        self._ageing_s = ageing_s
        self._lanes: dict[tuple[Night, str], _Lane] = {}
        self._numbers: dict[str, tuple[tuple[Night, str], int]] = {}
        self._counter = itertools.count()
        self._takes = 0
        self._held = False

    def __len__(self) -> int:
        return len(self._numbers)

    def __contains__(self, group_id: object) -> bool:
        return group_id in self._numbers

    def get(self, group_id: str) -> ReadyItem | None:
        """Return a queued group, or None."""
        place = self._numbers.get(group_id)
        return None if place is None else self._lanes[place[0]].get(place[1])

    def add(self, item: ReadyItem) -> None:
        """Queue a group; one with an id that is queued already takes that one's place."""
        self.remove(item.group_id)
        key = (item.night, item.camera)
        number = next(self._counter)
        self._lanes.setdefault(key, _Lane()).add(number, item)
        self._numbers[item.group_id] = (key, number)

    def remove(self, group_id: str) -> None:
        """Forget a group, if it is queued."""
        place = self._numbers.pop(group_id, None)
        if place is not None:
            key, number = place
            self._lanes[key].forget(number)
            self._drop_empty(key)

    @property
    def held(self) -> bool:
        """Whether only calibrations come out, because masters are to be made first."""
        return self._held

    def hold(self) -> None:
        """Let only calibrations out, until `release`."""
        self._held = True

    def release(self) -> None:
        """End what `hold` began."""
        self._held = False

    def calibrations(self) -> int:
        """Return how many groups of calibrations are queued."""
        return sum(lane.calibrating for lane in self._lanes.values())

    def waiting(self, camera: str, night: Night) -> int:
        """Return how many groups of a night are queued, held ones included."""
        lane = self._lanes.get((night, camera))
        return len(lane) if lane is not None else 0

    def oldest(self) -> float | None:
        """Return when the longest waiting group became ready, or None if nothing waits."""
        return min((lane.oldest() for lane in self._lanes.values() if len(lane)), default=None)

    def take(self, now: float, *, batch_limit: int | None = None) -> tuple[ReadyItem, ...]:
        """Take the next batch away: groups of one camera and night, in the order in which they should run.

        Parameters
        ----------
        now : float
            On the clock of `ReadyItem.ready_at`.
        batch_limit : int, optional
            Instead of the limit given at the start; 1 where batches gain nothing.
        """
        lanes = {key: lane for key, lane in self._lanes.items() if self._takable(lane)}
        if not lanes:
            return ()
        self._takes += 1
        key, aged = self._choose_lane(lanes, now)
        aged = aged and not self._held
        lane = lanes[key]
        lane.served = self._takes
        batch = []
        for _ in range(self._batch_size(lane, batch_limit)):
            picked = lane.pick_oldest() if aged else lane.pick()
            if picked is None:
                break
            batch.append(picked)
            del self._numbers[picked.group_id]
        self._drop_empty(key)
        return tuple(batch)

    def _choose_lane(self, lanes: dict[tuple[Night, str], _Lane], now: float) -> tuple[tuple[Night, str], bool]:
        """Return the lane to serve, and whether by age."""
        if self._takes % _AGED_SHARE == 0:
            oldest = min(lanes, key=lambda key: lanes[key].oldest())
            if now - lanes[oldest].oldest() > self._ageing_s:
                return oldest, True
        newest = max(night for night, _ in lanes)
        # cameras of one night take turns: the guide camera's burst does not hold up the spectrograph
        return min((key for key in lanes if key[0] == newest), key=lambda key: (lanes[key].served, key[1])), False

    def _batch_size(self, lane: _Lane, batch_limit: int | None) -> int:
        limit = self._batch_limit if batch_limit is None else batch_limit
        there = self._takable(lane)
        share = math.ceil(there / self._slots)
        if share > 1 and there - share < _CRUMBS:
            share = there
        return max(1, min(limit, share))

    def _takable(self, lane: _Lane) -> int:
        return lane.calibrating if self._held else len(lane)

    def _drop_empty(self, key: tuple[Night, str]) -> None:
        lane = self._lanes.get(key)
        if lane is not None and not len(lane):
            del self._lanes[key]
