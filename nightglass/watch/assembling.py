"""From messages to files: what becomes of the messages of a stream, by protocol."""

from __future__ import annotations

import contextlib
import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from nightglass.errors import Misconfigured, NightglassError, Rejected
from nightglass.groups import Timestep, TimestepEngine
from nightglass.streams.aartfaac import Window

if TYPE_CHECKING:
    from nightglass.config import StreamSource
    from nightglass.sensors.received import Received

__all__ = [
    "Assembler",
    "AssemblyCounts",
    "PlaceFunction",
    "SkyAssembler",
    "make_assembler",
    "plausible",
    "unless_unreadable",
]

_log = logging.getLogger(__name__)

_PLAUSIBLE = (datetime(1990, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC))
_RESTORED = 64
"""Time steps that are remembered from before a restart."""

PlaceFunction = Callable[[datetime], Path]
"""Gives the path of the file whose contents began at a moment."""


@dataclass(slots=True)
class AssemblyCounts:
    """What became of messages since the start.

    Attributes
    ----------
    files : int
        That were written, revisions included.
    partial : int
        Groups that were released before they were whole.
    late : int
        Messages that came after their group was released, and made a revision.
    duplicates : int
        Messages that were left out, because they were there already.
    untimed : int
        Messages without a time that makes sense; the time of their arrival stands for it.
    """

    files: int = 0
    partial: int = 0
    late: int = 0
    duplicates: int = 0
    untimed: int = 0


class Assembler(Protocol):
    """Collects messages, and writes the files that are ready; called from one thread.

    Attributes
    ----------
    most : int
        Messages that it should be given at once: what it holds is not counted in the backlog any more.
    """

    most: int

    @property
    def counts(self) -> AssemblyCounts:
        """The running count."""
        ...

    @property
    def due(self) -> int:
        """Files that are ready to be written."""
        ...

    def take(self, batch: Sequence[Received[Any]], now: float) -> None:
        """Take messages in, in the order of their arrival; `now` is on a clock that does not go back."""
        ...

    def tick(self, now: float) -> None:
        """Make ready what has waited long enough."""
        ...

    def flush(self) -> None:
        """Make ready all that is there: nothing more will come."""
        ...

    def write_next(self) -> Path:
        """Write the oldest file that is due, and return its path.

        Raises
        ------
        Retryable
            If the file system refuses; the file stays due.
        """
        ...

    def drop_next(self) -> None:
        """Give the oldest file that is due up: it cannot be written, and others wait behind it."""
        ...

    def restore(self, files: Iterable[Path]) -> None:
        """Take note of files that were written before a restart, earliest first."""
        ...


def plausible(moment: datetime | None) -> bool:
    """Tell whether a time stamp may be one, and not a clock that was never set."""
    return moment is not None and _PLAUSIBLE[0] <= moment < _PLAUSIBLE[1]


class SkyAssembler:
    """Time steps of radio images: sub-bands of one time make one file."""

    most = 8

    def __init__(self, source: StreamSource, place: PlaceFunction) -> None:
        self._stream = source.name
        self._place = place
        self._engine: TimestepEngine[Window] = TimestepEngine(
            source.members or len(source.endpoints), tolerance_s=source.tolerance_s, wait_s=source.wait_s
        )
        self._due: deque[Timestep[Window]] = deque()
        self._counts = AssemblyCounts()

    @property
    def counts(self) -> AssemblyCounts:
        """The running count."""
        self._counts.late, self._counts.duplicates = self._engine.late, self._engine.duplicates
        return self._counts

    @property
    def due(self) -> int:
        """Files that are ready to be written."""
        return len(self._due)

    def take(self, batch: Sequence[Received[Window]], now: float) -> None:
        """Take windows in."""
        from nightglass.streams.exposures import band_key

        for received in batch:
            window = received.message
            moment = window.timestamp
            if moment is None or not plausible(moment):
                self._counts.untimed += 1
                moment = received.received_at
            self._ready(self._engine.add(band_key(window.frequency_hz, received.peer), moment, window, now))

    def tick(self, now: float) -> None:
        """Make ready what has waited long enough."""
        self._ready(self._engine.tick(now))

    def flush(self) -> None:
        """Make ready all that is there."""
        self._ready(self._engine.flush())

    def write_next(self) -> Path:
        """Write the oldest time step that is due; what its file holds already stays in it."""
        from nightglass.streams.exposures import band_of, read_bands, write_timestep

        step = self._due[0]
        path = self._place(step.timestamp)
        bands = {key: band_of(window) for key, window in step.members.items()}
        if path.exists():
            # whatever is remembered of it: a file from before a restart must not lose what it has
            bands |= unless_unreadable(path, partial(read_bands, path), {})
        write_timestep(
            path, step.timestamp, bands, order=self._engine.keys, expected=step.expected, stream=self._stream
        )
        self._due.popleft()
        self._counts.files += 1
        return path

    def drop_next(self) -> None:
        """Give the oldest time step that is due up."""
        self._due.popleft()

    def restore(self, files: Iterable[Path]) -> None:
        """Take note of time steps that were written before a restart."""
        for path in list(files)[-_RESTORED:]:
            with contextlib.suppress(NightglassError, ValueError):  # sighted all the same, and rejected by its check
                self._engine.restore([_written_step(path)])

    def _ready(self, steps: Iterable[Timestep[Window]]) -> None:
        for step in steps:
            if not step.whole and step.revision == 1:
                self._counts.partial += 1
                _log.warning("stream %s, %s: in part, %s", self._stream, step.timestamp, step.reason)
            self._due.append(step)


def unless_unreadable(path: Path, read: Callable[[], Any], otherwise: Any) -> Any:
    """Return what a file holds; one that cannot be read is put aside, so that what comes now has its place."""
    try:
        return read()
    except Rejected:
        aside = path.with_name(f"{path.name}.unreadable")
        _log.exception("%s is put aside as %s", path, aside.name)
        path.replace(aside)
        return otherwise


def _written_step(path: Path) -> tuple[datetime, frozenset[str], int]:
    """Return time stamp, keys and revision of a file, from its headers alone."""
    from nightglass.config import Limits
    from nightglass.fitsio.headers import card_value, scan_headers

    headers = scan_headers(path, Limits.model_validate({}))
    moment = datetime.fromisoformat(str(card_value(headers[0].header, "DATE-OBS"))).replace(tzinfo=UTC)
    keys = {str(card_value(info.header, "BANDKEY") or "").strip() for info in headers[1:]}
    return moment, frozenset(keys - {""}), 1


def _hits(source: StreamSource, place: PlaceFunction) -> Assembler:
    # what decodes hits is compiled at its first use, which is not for those that receive images
    from nightglass.watch.slicing import HitAssembler

    return HitAssembler(source, place)


_ASSEMBLERS: dict[str, Callable[[StreamSource, PlaceFunction], Assembler]] = {
    "aartfaac": SkyAssembler,
    "astropix": _hits,
}
"""Name of a protocol -> what makes files of its messages."""


def make_assembler(source: StreamSource, place: PlaceFunction) -> Assembler:
    """Return what makes files of the messages of a source.

    Raises
    ------
    Misconfigured
        If no files are made of that protocol.
    """
    try:
        make = _ASSEMBLERS[source.protocol]
    except KeyError:
        message = f"stream {source.name}: no exposures are made of protocol {source.protocol!r}"
        remedy = f"{' or '.join(_ASSEMBLERS)}; others can be recorded and looked at"
        raise Misconfigured(message, remedy=remedy) from None
    return make(source, place)
