"""Built frames on their way: build, write, send, plot; each stage is a thread with a queue, so none holds up another.

A stage does what is not noted as done yet, so that a frame may be handed in again: after a start, or as a revision.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from nightglass.builder.clockwork import Clockwork
from nightglass.errors import NightglassError, Retryable

__all__ = ["Stage", "StageLine"]

_log = logging.getLogger(__name__)

_FIRST_WAIT_S: Final = 0.5
_LONGEST_WAIT_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage: what it is called, and what it does with exposure and frame."""

    name: str
    work: Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class _Item:
    expid: int
    frame: int
    attempt: int = 0


class StageLine:
    """Frames go through all stages, in this order.

    What a stage cannot do now (`Retryable`) is tried again, and the frame waits; whatever else goes wrong is told, and
    the frame goes on.

    Parameters
    ----------
    on_trouble : callable
        Told stage, exposure, frame and the error; for what is tried again only the first time.
    on_over : callable
        Told stage, exposure and frame, when what was tried again succeeded.
    """

    def __init__(
        self,
        name: str,
        stages: Sequence[Stage],
        clockwork: Clockwork,
        *,
        on_trouble: Callable[[str, int, int, Exception], None],
        on_over: Callable[[str, int, int], None] = lambda *_: None,
    ) -> None:
        self._stages = tuple(stages)
        self._clockwork = clockwork
        self._on_trouble = on_trouble
        self._on_over = on_over
        self._queues: tuple[queue.SimpleQueue[_Item | None], ...] = tuple(queue.SimpleQueue() for _ in stages)
        self._threads = [
            threading.Thread(target=self._run, args=(index,), name=f"{name}-{stage.name}", daemon=True)
            for index, stage in enumerate(stages)
        ]
        self._changed = threading.Condition()
        self._under_way: dict[tuple[int, int], int] = {}
        self._closing = False

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def submit(self, expid: int, frame: int) -> None:
        """Hand in a frame."""
        with self._changed:
            self._under_way[expid, frame] = self._under_way.get((expid, frame), 0) + 1
        self._queues[0].put(_Item(expid, frame))

    def passes(self, expid: int, frame: int) -> int:
        """Return how often a frame is on its way: more than once when something came late."""
        with self._changed:
            return self._under_way.get((expid, frame), 0)

    def waiting(self) -> dict[str, int]:
        """Return how many frames wait for each stage."""
        return {stage.name: line.qsize() for stage, line in zip(self._stages, self._queues, strict=True)}

    def wait_idle(self, timeout_s: float, *, expid: int | None = None) -> bool:
        """Wait until all frames, or those of an exposure, are through; tell whether they are."""
        with self._changed:
            return self._changed.wait_for(
                lambda: self._closing or not any(expid in (None, key[0]) for key in self._under_way), timeout_s
            )

    def close(self) -> None:
        """End after what each thread is just doing; the rest is done after the next start."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        for line in self._queues:
            line.put(None)
        for thread in self._threads:
            if thread.is_alive():
                thread.join()

    def _run(self, index: int) -> None:
        stage, line = self._stages[index], self._queues[index]
        while (item := line.get()) is not None and not self._closing:
            try:
                stage.work(item.expid, item.frame)
            except Retryable as error:
                if item.attempt == 0:
                    self._on_trouble(stage.name, item.expid, item.frame, error)
                self._later(line, item)
                continue
            except Exception as error:  # noqa: BLE001 - a boundary: whatever one frame causes, the next ones go on
                level = logging.WARNING if isinstance(error, NightglassError) else logging.ERROR
                where = None if level == logging.WARNING else error  # what was raised on purpose says enough
                _log.log(level, "frame %s/%s, %s: %s", item.expid, item.frame, stage.name, error, exc_info=where)
                self._on_trouble(stage.name, item.expid, item.frame, error)
            else:
                if item.attempt:
                    self._on_over(stage.name, item.expid, item.frame)
            self._go_on(index, item)

    def _later(self, line: queue.SimpleQueue[_Item | None], item: _Item) -> None:
        wait = min(_FIRST_WAIT_S * 2 ** min(item.attempt, 16), _LONGEST_WAIT_S)
        again = _Item(item.expid, item.frame, item.attempt + 1)
        self._clockwork.after(wait, lambda: line.put(again))

    def _go_on(self, index: int, item: _Item) -> None:
        if index + 1 < len(self._queues):
            self._queues[index + 1].put(_Item(item.expid, item.frame))
            return
        key = item.expid, item.frame
        with self._changed:
            self._under_way[key] -= 1
            if not self._under_way[key]:
                del self._under_way[key]
            self._changed.notify_all()
