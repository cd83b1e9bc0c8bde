"""Files of AstroPix readouts as a feed."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from nightglass.monitor.feeds import FeedState
from nightglass.streams.astropix import Readout, RunSummary, read_run

__all__ = ["RunFeed"]

_PACKET_BYTES = 19


@dataclass(frozen=True, slots=True)
class _Read:
    message: Readout
    peer: str
    received_at: datetime

    @property
    def size(self) -> int:
        """Bytes in the file."""
        return _PACKET_BYTES + len(self.message.data)


class RunFeed:
    """Gives out the readouts of a file in their order, and then nothing.

    Parameters
    ----------
    path : Path
        ``.apx``, or a legacy ``.log``.

    Raises
    ------
    Misconfigured, Rejected, Retryable
        If it is no such file, or cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._summary = RunSummary()
        _, pieces = read_run(path, self._summary)
        self._readouts: Iterator[Readout] = itertools.chain.from_iterable(pieces)

    def take(self, *, wait_s: float, most: int) -> list[_Read]:
        """Return the next readouts; at the end of the file, nothing after the wait."""
        now = datetime.now(UTC)
        taken = [_Read(readout, self._path.name, now) for readout in itertools.islice(self._readouts, most)]
        if not taken:
            time.sleep(wait_s)
        return taken

    def state(self) -> FeedState:
        """Return what was wrong with the file."""
        return FeedState({}, tuple(str(problem) for problem in self._summary.problems), ())
