"""Heaps that are not in the cube yet, brought there when their turn comes."""

from __future__ import annotations

import os
from typing import Final

from nightglass.cubes.ends import tell_end
from nightglass.cubes.moving import Fault
from nightglass.cubes.outlets import Outlet, PartFile, Unwritable
from nightglass.cubes.settling import Home, Settled, SettleTask
from nightglass.cubes.squeezing import Squeezed, keep_fragment
from nightglass.cubes.sums import rotated
from nightglass.errors import Retryable
from nightglass.fitsio.checksums import add_sums

__all__ = ["Turns"]

_SHORT: Final = "it is written again"


class Turns:
    """Takes tasks in the order in which they end, and sees to it that their heaps are in the cube in the right one.

    Fragments go as soon as they are in the cube, so the next one gets their pages; as do those that were not needed.

    Attributes
    ----------
    total : int
        Ones'-complement sum of what is in the heap of the image.
    """

    def __init__(self, home: Home, part: PartFile) -> None:
        self._home = home
        self._part = part
        self._waiting: dict[int, tuple[SettleTask, Settled]] = {}
        self._next = 0
        self._end = 0
        self._spoilt = False
        self.total = 0

    def arrive(self, task: SettleTask, settled: Settled, heap: bytes = b"") -> None:
        """Take a task that is done.

        Parameters
        ----------
        heap : bytes
            Of a worker that does not see the cube.

        Raises
        ------
        Retryable
            If the cube or a fragment cannot be written, or a fragment is not whole.
        """
        if any(isinstance(result, Fault) for result in settled.results):
            self._spoilt = True  # there will be no such cube
        if self._spoilt:
            task.squeeze.fragment.unlink(missing_ok=True)
            return
        if heap and task.number != self._next:
            keep_fragment(task.squeeze, Squeezed(settled.results, heap))
            heap = b""
        self._waiting[task.number] = task, settled
        while self._next in self._waiting:
            self._settle(*self._waiting.pop(self._next), heap)
            heap = b""

    def _settle(self, task: SettleTask, settled: Settled, heap: bytes) -> None:
        size = sum(result.heap_size for result in settled.results if not isinstance(result, Fault))
        if settled.base is None:
            self._bring(task, heap, size)
        elif settled.base != self._end:
            message = f"{self._home.part}: tiles are at byte {settled.base} of their heap, not at {self._end}"
            raise Retryable(message, remedy=_SHORT)
        else:
            self.total = add_sums(self.total, settled.total)
        self._end += size
        self._next += 1
        task.squeeze.fragment.unlink(missing_ok=True)

    def _bring(self, task: SettleTask, heap: bytes, size: int) -> None:
        try:
            tell_end(self._home.ends, task.number, self._end + size)
            outlet = self._home.outlet(self._part, self._end)
            if heap:
                outlet.put(memoryview(heap))
            else:
                _copy(task, outlet, size)
            self.total = add_sums(self.total, rotated(outlet.finish(), self._end))
        except OSError as error:
            raise Unwritable(self._home.part, error) from error


def _copy(task: SettleTask, outlet: Outlet, size: int) -> None:
    done = 0
    with task.squeeze.fragment.open("rb", buffering=0) as stream:
        while done < size:
            count = os.preadv(stream.fileno(), [outlet.room[: size - done]], done)
            if not count:
                message = f"{task.squeeze.fragment} has {done} bytes, not {size}"
                raise Retryable(message, remedy=_SHORT)
            outlet.took(count)
            done += count
