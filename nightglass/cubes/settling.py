"""Planes compressed, on a worker, and put into their place in the cube at once, behind those of the task before.

Heaps follow one another without a gap, so a heap has its place when the one before it has ended. Tasks are begun in
order and last about as long as one another: a worker seldom waits for more than an instant. One that would have to wait
longer, because another died, leaves its heap in a fragment, which is brought into the cube when its turn comes.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nightglass.cubes.ends import SPOILT, read_end, tell_end, wait_for_end
from nightglass.cubes.joining import PlaneTiles
from nightglass.cubes.moving import Fault
from nightglass.cubes.outlets import Outlet, PartFile, Unwritable, opened_part
from nightglass.cubes.squeezing import SqueezeTask, append_all, squeeze_all
from nightglass.cubes.sums import rotated

__all__ = ["Home", "SettleTask", "Settled", "settle_planes"]

_PATIENCE_S: Final = 1.0
"""For the task before; compressing takes a few tenths of a second."""


@dataclass(frozen=True, slots=True)
class Home:
    """Where the tiles of an image go.

    Attributes
    ----------
    part : Path
        The cube, which is there already.
    heap_offset : int
        Bytes from the beginning of the file.
    ends : Path
        In which it is told where heaps end, see `nightglass.cubes.ends`.
    durable : bool
        Whether the cube will be synced.
    """

    part: Path
    heap_offset: int
    ends: Path
    durable: bool

    def outlet(self, part: PartFile, base: int) -> Outlet:
        """Return what writes heaps, beginning at a place in the heap of the image."""
        return part.outlet(self.heap_offset + base)


@dataclass(frozen=True, slots=True)
class SettleTask:
    """Planes of one image, whose tiles follow those of the task before; `number` counts the tasks before."""

    squeeze: SqueezeTask
    home: Home
    number: int


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of a task.

    Attributes
    ----------
    results : tuple of PlaneTiles or Fault
        For each member.
    base : int or None
        Where in the heap of the image its own begins; None: it is in the fragment.
    total : int
        Ones'-complement sum of the heap, as part of the heap of the image; 0 for that of a fragment.
    """

    results: tuple[PlaneTiles | Fault, ...]
    base: int | None = None
    total: int = 0


def settle_planes(task: SettleTask) -> Settled:
    """Compress planes into the cube; or into the fragment if the task before does not end.

    Raises
    ------
    Retryable
        If the cube cannot be written.
    """
    home = task.home
    with opened_part(home.part, durable=home.durable) as part, ThreadPoolExecutor(1) as thread:
        # a disk is waited for while the next plane is compressed; the page cache takes bytes at once
        heap = _Heap(task, part, thread if home.durable else None)
        try:
            results = tuple(squeeze_all(task.squeeze, heap.add))
            if any(isinstance(result, Fault) for result in results):
                heap.spoil()
                return Settled(results)
            total = heap.finish()
        except OSError as error:
            raise Unwritable(home.part, error) from error
    return Settled(results, heap.base, total)


class _Heap:
    """Takes the heaps of planes; holds them until their place is known."""

    def __init__(self, task: SettleTask, part: PartFile, thread: ThreadPoolExecutor | None) -> None:
        self._task = task
        self._part = part
        self._thread = thread
        self._writing: Future[None] | None = None
        self._size = 0
        self._held: list[bytes | memoryview] = []
        self._outlet: Outlet | None = None
        self.base: int | None = None

    def add(self, heap: bytes | memoryview) -> None:
        """Take the heap of the next plane."""
        self._size += len(heap)
        if self.base is None:
            self.base = read_end(self._task.home.ends, self._task.number - 1)
        # what is kept is copied: it lies in a buffer that is several times as large, and the next plane gets that one
        self._held.append(bytes(heap) if self.base is None else heap)
        self._put()

    def finish(self) -> int:
        """Write what is left; return the sum of all."""
        home, number = self._task.home, self._task.number
        if self.base is None:
            self.base = wait_for_end(home.ends, number - 1, _PATIENCE_S)
        if self.base is None:
            append_all(self._task.squeeze.fragment, self._held)
            return 0
        if self.base == SPOILT:
            self.spoil()
            return 0
        # told before it is written: whoever comes next begins behind it, whenever it is done
        tell_end(home.ends, number, self.base + self._size)
        self._put()
        if self._writing is not None:
            self._writing.result()
        return rotated(self._outlet.finish(), self.base) if self._outlet is not None else 0

    def spoil(self) -> None:
        """Tell those who come behind that there will be no such cube."""
        self._held.clear()
        self.base = SPOILT
        tell_end(self._task.home.ends, self._task.number, SPOILT)

    def _put(self) -> None:
        """Write what is held, if its place is known."""
        if self.base is None:
            return
        if self._outlet is None and self.base != SPOILT:
            self._outlet = self._task.home.outlet(self._part, self.base)
        for heap in self._held:
            if self._outlet is not None:
                self._write(self._outlet, memoryview(heap))
        self._held.clear()

    def _write(self, outlet: Outlet, heap: memoryview) -> None:
        if self._thread is None:
            outlet.put(heap)
            return
        if self._writing is not None:
            self._writing.result()
        self._writing = self._thread.submit(outlet.put, heap)
