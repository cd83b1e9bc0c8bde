"""A whole run of AstroPix readouts, from whichever kind of file: what the commands and the conversion work on."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nightglass.errors import Misconfigured
from nightglass.streams.astropix.apx import ApxReader
from nightglass.streams.astropix.legacy import LegacyLog
from nightglass.streams.astropix.packet import Readout
from nightglass.streams.astropix.readouts import HitDecoder, LeftOver, ReadoutStatus
from nightglass.streams.continuity import Continuity, Losses

__all__ = ["RunSummary", "decode_run", "read_run"]

_LOG_PIECE = 4096
"""Readouts of a log that are decoded together."""


@dataclass(slots=True)
class RunSummary:
    """What was in a file.

    Attributes
    ----------
    readouts, hits : int
    statuses : Counter
        Readouts by the name of each `ReadoutStatus` bit.
    losses : Losses
        Gaps and repetitions of the readout ids.
    problems : list of str
        What was wrong with the file, a sentence each.
    """

    readouts: int = 0
    hits: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    losses: Losses = field(default_factory=Losses)
    problems: list[str] = field(default_factory=list)


def read_run(path: Path, summary: RunSummary) -> tuple[dict[str, Any], Iterator[Sequence[Readout]]]:
    """Return the header of an ``.apx`` or a legacy ``.log`` file, and its readouts piece by piece.

    The summary's problems are complete when the last piece was taken.

    Raises
    ------
    Misconfigured
        If the name ends in something else.
    Rejected
        If it is no such file.
    Retryable
        If it cannot be read.
    """
    if path.suffix.lower() == ".apx":
        reader = ApxReader(path)
        return reader.header, _apx_pieces(reader, summary)
    if path.suffix.lower() == ".log":
        log = LegacyLog(path)
        return log.header, _log_pieces(log, summary)
    message = f"{path}: neither .apx nor .log"
    raise Misconfigured(message, remedy="name a file of AstroPix readouts")


def decode_run(
    pieces: Iterator[Sequence[Readout]], summary: RunSummary, *, left_over: LeftOver = LeftOver.DROP
) -> Iterator[NDArray[np.void]]:
    """Yield the hits of each piece, and count in the summary what happens."""
    decoder, continuity = HitDecoder(left_over=left_over), Continuity()
    for piece in pieces:
        decoded = decoder.decode(piece)
        ids = np.fromiter([readout.readout_id for readout in piece], np.uint32, len(piece))
        stamps = np.fromiter([readout.timestamp_ns for readout in piece], np.uint64, len(piece))
        continuity.observe(ids, stamps)
        summary.readouts += len(piece)
        summary.hits += len(decoded.hits)
        summary.losses = continuity.losses
        for bit in ReadoutStatus:
            if count := int(np.count_nonzero(decoded.status & bit.value)):
                summary.statuses[str(bit.name)] += count
        yield decoded.hits


def _apx_pieces(reader: ApxReader, summary: RunSummary) -> Iterator[Sequence[Readout]]:
    with reader:
        yield from reader.pieces()
    tally = reader.tally
    if tally.truncated:
        summary.problems.append("the file was cut off inside a readout")
    if tally.skipped:
        summary.problems.append(f"{tally.skipped} bytes belong to no readout")


def _log_pieces(log: LegacyLog, summary: RunSummary) -> Iterator[Sequence[Readout]]:
    readouts = iter(log)
    while piece := tuple(itertools.islice(readouts, _LOG_PIECE)):
        yield piece
    if log.half_bytes:
        summary.problems.append(f"{log.half_bytes} readouts lack half of their last byte, which was left out")
    if log.bad_lines:
        summary.problems.append(f"{log.bad_lines} lines are no readouts")
