"""A lane: items on disk that one thread delivers in order, again and again until it is done or given up.

Each receiver and each subscriber has a lane of its own, so that one that is dead holds up nobody else.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import random
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from nightglass.errors import Misconfigured, NightglassError, Rejected, Retryable

__all__ = ["Delivered", "Lane", "Patience"]

_log = logging.getLogger(__name__)

_REMEMBERED: Final = 1000
"""Ends of deliveries that somebody may still ask for."""
_JITTER: Final = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long a delivery is tried.

    Attributes
    ----------
    attempts : int
        Then it is given up, and told.
    first_s, longest_s : float
        Wait after the first failure, doubled for each further one up to the longest.
    limit : int
        Items that wait in one lane; beyond that the oldest is given up.
    idle_s : float
        A thread with nothing to deliver ends after so long; the next item begins another.
    """

    attempts: int = 8
    first_s: float = 0.5
    longest_s: float = 60.0
    limit: int = 10_000
    idle_s: float = 30.0

    def wait_s(self, attempts: int) -> float:
        """Return how long to wait after so many failures, a little different each time."""
        wait = min(self.first_s * 2.0 ** min(attempts - 1, 30), self.longest_s)
        return wait * random.uniform(1 - _JITTER, 1 + _JITTER)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """How the delivery of one item ended.

    Attributes
    ----------
    error : str
        Why it was given up; empty where it was delivered.
    """

    number: int
    item: Mapping[str, Any]
    attempts: int
    error: str = ""


class Lane:
    """Items of one receiver.

    Parameters
    ----------
    name : str
        For logs.
    directory : Path
        One small JSON file an item; what is there already is delivered first.
    deliver : callable
        Raises if it did not succeed: `Rejected` and `Misconfigured` are final, everything else is tried again.
    on_end : callable, optional
        Told of each item that was delivered or given up, in the thread of the lane; before it is forgotten, so that
        after a kill it is delivered and told again rather than never.
    on_forgotten : callable, optional
        Told each item that has ended when its file is gone.
    """

    def __init__(
        self,
        name: str,
        directory: Path,
        deliver: Callable[[Mapping[str, Any]], None],
        *,
        patience: Patience | None = None,
        on_end: Callable[[Delivered], None] | None = None,
        on_forgotten: Callable[[Mapping[str, Any]], None] | None = None,
    ) -> None:
        self._name = name
        self._directory = directory
        self._deliver = deliver
        self._patience = patience or Patience()
        self._on_end = on_end
        self._on_forgotten = on_forgotten
        self._changed = threading.Condition()
        self._ended: OrderedDict[int, Delivered] = OrderedDict()
        self._thread: threading.Thread | None = None
        self._closing = self._begun = False
        self._busy = self._held = 0
        for part in directory.glob("*.part"):
            part.unlink(missing_ok=True)  # a note that a killed process was about to put in
        found = sorted(int(path.stem) for path in directory.glob("*.json") if path.stem.isdecimal())
        self._waiting: OrderedDict[int, None] = OrderedDict.fromkeys(found)
        self._next = found[-1] + 1 if found else 1

    @property
    def name(self) -> str:
        """As it was given."""
        return self._name

    @property
    def pending(self) -> int:
        """How many items are neither delivered nor given up."""
        with self._changed:
            return len(self._waiting)

    def put(self, item: Mapping[str, Any]) -> int:
        """Keep an item on disk until it is delivered; returns its number.

        Raises
        ------
        Retryable
            If it cannot be written.
        """
        with self._changed:
            number, self._next = self._next, self._next + 1
        self._write(number, item)
        with self._changed:
            self._waiting[number] = None
            dropped = self._too_many()
            self._changed.notify_all()
            self._run_if_needed()
        for old in dropped:
            self._end(old, 0, f"{self._patience.limit} newer ones wait for {self._name}")
        return number

    def find_waiting(self, key: str, value: Any) -> int | None:
        """Return the number of the item that waits and says this; None: there is none."""
        with self._changed:
            numbers = list(self._waiting)
        for number in numbers:
            with contextlib.suppress(OSError, ValueError):  # it has just ended
                if self._read(number).get(key) == value:
                    return number
        return None

    def find_ended(self, key: str, value: Any) -> int | None:
        """Return the number of the item that ended lately and says this; None: there is none."""
        with self._changed:
            return next((number for number, ended in self._ended.items() if ended.item.get(key) == value), None)

    def give_up_oldest(self, reason: str) -> bool:
        """Give up the oldest item that is not being delivered; tells whether there was one."""
        with self._changed:
            number = next((number for number in self._waiting if number != self._busy), None)
        if number is not None:
            self._end(number, 0, reason)
        return number is not None

    def start(self) -> None:
        """Begin to deliver, in a thread while there is something to deliver; twice is once."""
        with self._changed:
            self._begun = True
            self._run_if_needed()

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits, and nobody is about to put something in."""
        with self._changed:
            return not (self._waiting or self._held)

    def hold(self) -> None:
        """Say that something will be put in, until `let_go`."""
        with self._changed:
            self._held += 1

    def let_go(self) -> None:
        """Say that it is in, or does not come."""
        with self._changed:
            self._held -= 1

    def close(self, timeout_s: float = 5.0) -> None:
        """Stop; what was not delivered stays on disk."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout_s)

    def wait(self, number: int, timeout_s: float) -> Delivered | None:
        """Wait until the delivery of an item ended; None if it has not by then."""
        with self._changed:
            over = self._changed.wait_for(lambda: number not in self._waiting and number in self._ended, timeout_s)
            return self._ended[number] if over else None

    def wait_idle(self, timeout_s: float) -> bool:
        """Wait until nothing is left to deliver."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting, timeout_s)

    def _too_many(self) -> list[int]:
        spare = [number for number in self._waiting if number != self._busy]
        return spare[: max(len(self._waiting) - self._patience.limit, 0)]

    def _run_if_needed(self) -> None:
        if self._begun and self._waiting and self._thread is None and not self._closing:
            self._thread = threading.Thread(target=self._run, name=f"lane-{self._name}"[:40], daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closing or bool(self._waiting), self._patience.idle_s)
                if self._closing or not self._waiting:
                    self._thread = None
                    return
                number = self._busy = next(iter(self._waiting))
            self._attend(number)
            with self._changed:
                self._busy = 0

    def _attend(self, number: int) -> None:
        """Deliver one item, or give it up; returns early when the lane is closed."""
        try:
            item = self._read(number)
        except (OSError, ValueError) as error:
            _log.warning("what waits for %s can't be read and is put aside: %s", self._name, error)
            with contextlib.suppress(OSError):
                self._path(number).replace(self._path(number).with_suffix(".unreadable"))
            self._end(number, 0, f"its note cannot be read: {error}")
            return
        attempts = 0
        while True:
            attempts += 1
            failure = self._attempt(item)
            final = isinstance(failure, (Rejected, Misconfigured)) or attempts >= self._patience.attempts
            if failure is None or final:
                self._end(number, attempts, "" if failure is None else _told(failure), item)
                return
            _log.info("%s: attempt %d of %d: %s", self._name, attempts, self._patience.attempts, _told(failure))
            if self._paused(number, self._patience.wait_s(attempts)):
                return

    def _attempt(self, item: Mapping[str, Any]) -> Exception | None:
        try:
            self._deliver(item)
        except Exception as error:  # noqa: BLE001 - a boundary: whatever a receiver does, the night goes on
            return error
        return None

    def _paused(self, number: int, wait_s: float) -> bool:
        """Wait; tell whether the lane was closed or the item given up meanwhile."""
        with self._changed:
            self._changed.wait_for(lambda: self._closing or number not in self._waiting, wait_s)
            return self._closing or number not in self._waiting

    def _end(self, number: int, attempts: int, error: str, item: Mapping[str, Any] | None = None) -> None:
        if item is None:
            with contextlib.suppress(OSError, ValueError):
                item = self._read(number)
        ended = Delivered(number=number, item=item or {}, attempts=attempts, error=error)
        if error:
            _log.error("%s: given up after %d attempts: %s", self._name, attempts, error)
        if self._on_end is not None:
            try:
                self._on_end(ended)
            except Exception:  # noqa: BLE001 - told, and the lane goes on
                _log.exception("%s: what a delivery ended with could not be told", self._name)
        with self._changed:  # before its file goes: one of them says that it was here
            self._ended[number] = ended
            while len(self._ended) > _REMEMBERED:
                self._ended.popitem(last=False)
        try:
            self._path(number).unlink(missing_ok=True)
            if self._on_forgotten is not None and item:
                self._on_forgotten(item)
        except OSError as failure:  # it is delivered once more after the next start, under the same key
            _log.warning("%s cannot be removed: %s", self._path(number), failure)
        with self._changed:
            self._waiting.pop(number, None)
            self._changed.notify_all()

    def _path(self, number: int) -> Path:
        return self._directory / f"{number:012d}.json"

    def _read(self, number: int) -> dict[str, Any]:
        value = json.loads(self._path(number).read_text())
        if not isinstance(value, dict):
            message = f"{self._path(number)} holds no object"
            raise ValueError(message)
        return value

    def _write(self, number: int, item: Mapping[str, Any]) -> None:
        path = self._path(number)
        part = path.with_suffix(f".{os.getpid()}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            part.write_text(json.dumps(item))
            part.replace(path)
        except OSError as error:
            message = f"{path} cannot be written: {error.strerror or error}"
            raise Retryable(message, remedy="make room on the disk, and check the rights of the directory") from error


def _told(error: Exception) -> str:
    return str(error) if isinstance(error, NightglassError) else f"{type(error).__name__}: {error}"
