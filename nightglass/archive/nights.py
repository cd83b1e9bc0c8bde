"""All exposures of a night become cubes, several at once within a budget; what is done already is left alone."""

from __future__ import annotations

import contextlib
import logging
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nightglass.archive.exposures import AssembleFunction, carry_out
from nightglass.archive.planning import ArchivePlan, plan_archive
from nightglass.archive.summaries import ArchiveOutcome, ArchiveSummary, Redo
from nightglass.errors import LeaseLost, Misconfigured, NightglassError, Rejected, Retryable
from nightglass.ledger import ArchiveState
from nightglass.model import Content, State

if TYPE_CHECKING:
    from nightglass.config import Camera, Observatory
    from nightglass.ledger import ArchiveRecord, Entry, Ledger
    from nightglass.model import Night
    from nightglass.pool import Pool

__all__ = ["NightArchive", "archive_night", "exposures_of", "ready_exposures"]

_log = logging.getLogger(__name__)

_GIB = 2.0**30
_CUBE_MIB = 150
"""Memory that all processes at one cube use together, whatever its size; a benchmark holds it."""
_UNDECIDED = frozenset({State.SEEN, State.COMPLETE, State.GROUPED, State.RUNNING})


@dataclass(frozen=True, slots=True, kw_only=True)
class NightArchive:
    """The exposures of a night after an attempt to archive them."""

    night: Night
    camera: str
    content: Content
    exposures: tuple[ArchiveSummary, ...]

    def count(self, *outcomes: ArchiveOutcome) -> int:
        """Return how many exposures ended in one of these ways."""
        return sum(item.outcome in outcomes for item in self.exposures)

    @property
    def failures(self) -> tuple[ArchiveSummary, ...]:
        """Exposures that have no cube now, and that nobody else is at."""
        return tuple(item for item in self.exposures if item.error)

    def check(self) -> None:
        """Raise if an exposure could not be archived.

        Raises
        ------
        Retryable
            Naming how many, and the first of them; the ledger has the reasons of all.
        """
        if self.failures:
            first = self.failures[0]
            message = f"{len(self.failures)} of {len(self.exposures)} exposures of {self.camera}, night {self.night}, "
            raise Retryable(message + f"could not be archived: {first.exposure}: {first.error}")

    def to_json(self) -> dict[str, Any]:
        """Return counts and failures as plain JSON values."""
        return {
            "archived": self.count(ArchiveOutcome.ARCHIVED, ArchiveOutcome.ADOPTED),
            "current": self.count(ArchiveOutcome.CURRENT),
            "elsewhere": self.count(ArchiveOutcome.ELSEWHERE),
            "failures": [f"{item.exposure}: {item.error}" for item in self.failures],
        }


def exposures_of(entries: Iterable[Entry]) -> dict[str, list[Entry]]:
    """Return the files of each exposure, in order of arrival; copies of known files are left out."""
    found: dict[str, list[Entry]] = {}
    for entry in entries:
        if not entry.is_duplicate:
            found.setdefault(entry.archive_id, []).append(entry)
    return found


def ready_exposures(
    night: Night, camera: str, *, ledger: Ledger, content: Content, now: float, settle_s: float = 0.0
) -> tuple[str, ...]:
    """Return the exposures of a night that are finalised and have no current cube, for a watch that archives at once.

    Parameters
    ----------
    now : float
        Epoch seconds.
    settle_s : float
        Time for which no file of an exposure may have come: another frame may follow.
    """
    records = {record.exposure: record for record in ledger.archives(night, camera, content=content)}
    ready = []
    for exposure, entries in exposures_of(ledger.entries(night, camera)).items():
        states = {entry.state for entry in entries}
        if states & _UNDECIDED or (content is Content.REDUCED and State.REDUCED not in states):
            continue
        latest = max(entry.times.get("seen", 0.0) for entry in entries)
        if now - latest >= settle_s and _is_due(records.get(exposure), entries, content, now):
            ready.append(exposure)
    return tuple(ready)


def _is_due(record: ArchiveRecord | None, entries: Sequence[Entry], content: Content, now: float) -> bool:
    if record is None:
        return True
    match record.state:
        case ArchiveState.PENDING:
            return (record.retry_at or 0.0) <= now
        case ArchiveState.RUNNING:
            return (record.lease_until or 0.0) <= now
    if content is Content.REDUCED:
        latest = max(entry.times.get("reduced", 0.0) for entry in entries)
        return latest > (record.archived_at or record.requested_at)
    contents = {entry.content_id or f"{entry.size}-{entry.mtime_ns}" for entry in entries}
    return contents != {text.removeprefix("lost-") for text in record.wanted}


def archive_night(
    night: Night,
    camera: Camera,
    *,
    ledger: Ledger,
    pool: Pool,
    observatory: Observatory,
    content: Content | None = None,
    exposures: Sequence[str] | None = None,
    redo: Redo = Redo.CHANGED,
    owner: str = "",
    progress: Callable[[int, int], None] | None = None,
    on_done: Callable[[ArchiveSummary], None] | None = None,
    cancelled: Callable[[], bool] = lambda: False,
    assemble: AssembleFunction | None = None,
) -> NightArchive:
    """Archive the exposures of a night, whatever became of their reduction; one that fails does not stop the others.

    Run again it goes on where it stopped: cubes that are there and current are left alone.

    Parameters
    ----------
    content : Content, optional
        Raw frames or reduced products; None: as configured.
    exposures : sequence of str, optional
        Only these; None: all.
    progress : callable, optional
        Told how many bytes of frames are done, and of how many; from any thread.
    on_done : callable, optional
        Told each exposure that is over; from any thread.
    cancelled : callable
        Whether nothing more may begin.
    """
    chosen = content or observatory.archive.what
    names = exposures if exposures is not None else _names(ledger.entries(night, camera.name), chosen)
    rules = observatory.archive
    common: dict[str, Any] = {"ledger": ledger, "observatory": observatory, "camera": camera}
    plans = [_planned(name, chosen, common) for name in names]
    at_once = max(1, min(rules.at_once, rules.memory_mib // _CUBE_MIB))
    crew = _Crew(
        room=_Room(observatory.root, at_once=at_once, keep_gib=rules.free_disk_gib),
        total=_Total(plans, progress),
        on_done=on_done or (lambda _: None),
        cancelled=cancelled,
        options={**common, "pool": pool, "redo": redo, "owner": owner, "assemble": assemble},
    )
    with ThreadPoolExecutor(at_once, thread_name_prefix="archive") as threads:
        done = list(threads.map(crew.do, range(len(plans)), plans))
    summaries = tuple(summary for summary in done if summary is not None)
    return NightArchive(night=night, camera=camera.name, content=chosen, exposures=summaries)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Crew:
    """What the threads share that archive the exposures of a night."""

    room: _Room
    total: _Total
    on_done: Callable[[ArchiveSummary], None]
    cancelled: Callable[[], bool]
    options: dict[str, Any]

    def do(self, number: int, plan: ArchivePlan | ArchiveSummary) -> ArchiveSummary | None:
        """Archive one exposure; one that could not be planned is told as it is. None: nothing more may begin."""
        if isinstance(plan, ArchivePlan):
            if self.cancelled():
                return None
            with self.room.take(plan.estimate):
                plan = _carried_out(plan, progress=self.total.teller(number), **self.options)
        self.total.end(number)
        self.on_done(plan)
        return plan


def _names(entries: Iterable[Entry], content: Content) -> list[str]:
    """Return the exposures of a night; for reduced products those that have any."""
    return [
        exposure
        for exposure, files in exposures_of(entries).items()
        if content is Content.RAW or any(entry.state is State.REDUCED for entry in files)
    ]


def _planned(name: str, content: Content, common: dict[str, Any]) -> ArchivePlan | ArchiveSummary:
    try:
        return plan_archive(name, content=content, **common)
    except NightglassError as error:
        return _failure(name, content, error)


def _carried_out(plan: ArchivePlan, **options: Any) -> ArchiveSummary:
    try:
        return carry_out(plan, **options)
    except LeaseLost:
        return ArchiveSummary(exposure=plan.exposure, content=plan.content, outcome=ArchiveOutcome.ELSEWHERE)
    except Exception as error:  # noqa: BLE001 - a boundary: one exposure does not stop the others
        if not isinstance(error, NightglassError):
            _log.exception("the archive of %s failed in an unforeseen way", plan.exposure)
        else:
            _log.warning("%s", error)
        return _failure(plan.exposure, plan.content, error)


def _failure(exposure: str, content: Content, error: Exception) -> ArchiveSummary:
    over = isinstance(error, (Rejected, Misconfigured))
    return ArchiveSummary(
        exposure=exposure,
        content=content,
        outcome=ArchiveOutcome.FAILED if over else ArchiveOutcome.WAITING,
        error=f"{type(error).__name__}: {error}",
    )


class _Total:
    """Sums the progress of cubes that are written at the same time."""

    def __init__(
        self, plans: Iterable[ArchivePlan | ArchiveSummary], progress: Callable[[int, int], None] | None
    ) -> None:
        self._progress = progress
        self._lock = threading.Lock()
        self._sizes = [plan.estimate if isinstance(plan, ArchivePlan) else 0 for plan in plans]
        self._shares = [0.0] * len(self._sizes)

    def teller(self, number: int) -> Callable[[int, int], None]:
        def tell(done: int, of: int) -> None:
            self._note(number, done / of if of else 0.0)

        return tell

    def end(self, number: int) -> None:
        self._note(number, 1.0)

    def _note(self, number: int, share: float) -> None:
        if self._progress is None:
            return
        with self._lock:
            self._shares[number] = max(self._shares[number], share)
            done = sum(size * share for size, share in zip(self._sizes, self._shares, strict=True))
            self._progress(int(done), sum(self._sizes))


class _Room:
    """Places for cubes that are written at the same time, so that together they fit on the disk.

    What a running cube asked for is counted in full, though some of it is on the disk already: the next one rather
    waits than fails. One alone always begins, and is refused by `check_space` if it does not fit.
    """

    def __init__(self, root: Path, *, at_once: int, keep_gib: float) -> None:
        self.at_once = at_once
        self._root = root
        self._keep = keep_gib * _GIB
        self._promised = 0
        self._running = 0
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def take(self, size: int) -> Iterator[None]:
        """Wait for room, and hold it for as long as the block lasts."""
        with self._changed:
            self._changed.wait_for(lambda: not self._running or self._fits(size))
            self._running += 1
            self._promised += size
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._promised -= size
                self._changed.notify_all()

    def _fits(self, size: int) -> bool:
        place = next(path for path in (self._root, *self._root.parents) if path.exists())
        return shutil.disk_usage(place).free - self._promised - size >= self._keep
