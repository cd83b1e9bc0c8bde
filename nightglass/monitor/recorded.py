"""Files as feeds: recordings of any stream, and files of AstroPix readouts."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from nightglass.monitor.feeds import FeedState
from nightglass.sensors.received import Received
from nightglass.sensors.recordings import Recording, read_recording
from nightglass.streams import Decoder, StreamProtocol, find_protocol
from nightglass.streams.astropix import PROTOCOL, RunSummary, read_run

__all__ = ["FileFeed"]

_RUNS = (".apx", ".log")


class FileFeed:
    """Gives out the messages of a file in their order, as fast as they are taken, and then nothing.

    Parameters
    ----------
    path : Path
        A recording, or ``.apx``, or a legacy ``.log``.

    Raises
    ------
    Misconfigured, Rejected, Retryable
        If it is no such file, or cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._summary: RunSummary | None = None
        self._recording: Recording | None = None
        self._decoders: list[Decoder[Any]] = []
        self.protocol: StreamProtocol[Any]
        if path.suffix.lower() in _RUNS:
            self._summary, self.protocol = RunSummary(), PROTOCOL
            self._messages = self._readouts(self._summary)
        else:
            self._recording = read_recording(path)
            self.protocol = find_protocol(self._recording.protocol)
            self._decoders = [self.protocol.decoder() for _ in self._recording.endpoints]
            self._messages = self._decoded(self._recording)

    def take(self, *, wait_s: float, most: int) -> list[Received[Any]]:
        """Return the next messages; at the end of the file, nothing after the wait."""
        taken = list(itertools.islice(self._messages, most))
        if not taken:
            time.sleep(wait_s)
        return taken

    def state(self) -> FeedState:
        """Return what was wrong with the file, as far as it was read."""
        losses: Counter[str] = Counter()
        problems = [str(problem) for problem in self._summary.problems] if self._summary else []
        if self._recording is not None:
            losses["damaged bytes"] = sum(decoder.tally.skipped for decoder in self._decoders)
            for decoder in self._decoders:
                losses.update({name.lower().replace("_", " "): count for name, count in decoder.tally.faults.items()})
            problems += [self._recording.problem] if self._recording.problem else []
        return FeedState(dict(losses), tuple(problems))

    def _readouts(self, summary: RunSummary) -> Iterator[Received[Any]]:
        _, pieces = read_run(self._path, summary)
        now = datetime.now(UTC)
        for readout in itertools.chain.from_iterable(pieces):
            yield Received(readout, self._path.name, now, self.protocol.held_bytes(readout))

    def _decoded(self, recording: Recording) -> Iterator[Received[Any]]:
        """Decode the pieces; messages have the times at which they came then."""
        for piece in recording.pieces():
            decoder = self._decoders[piece.endpoint]
            if not piece.data:
                messages = decoder.finish()
            elif self.protocol.datagrams:
                messages = decoder.datagram(piece.data)  # type: ignore[attr-defined]
            else:
                messages = decoder.feed(piece.data)
            came = recording.began + timedelta(microseconds=piece.at_ns // 1000)
            for message in messages:
                peer = str(recording.endpoints[piece.endpoint])
                yield Received(message, peer, came, self.protocol.held_bytes(message))
