"""What Prefect is to be told of image builders: noted on disk first, told when somebody listens, told once.

The work is done by then, or goes on; a server that is down delays nothing and loses nothing.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nightglass.fitsio import write_atomic
from nightglass.model import Night, content_key
from nightglass.watch.jobs import Job, JobKind, JobReport

if TYPE_CHECKING:
    from nightglass.watch.launcher import Launcher

__all__ = ["Note", "Teller"]

_log = logging.getLogger(__name__)

_AT_ONCE = 2
"""Notes in the air: a run costs a third of a second, and exposures come before the telling of them."""
_OPEN_S = 1.0
"""What is over by then needs one run, not one that is opened first."""
_LONGEST_WAIT_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """What is to be told of one exposure, or of one order to archive it; the newest note of a key counts.

    Attributes
    ----------
    kind : JobKind
        BUILD or CUBE.
    order : str
        Tells orders, or exposures of one number, apart.
    progress : str
        What is going on; empty: it is over, and its account is written.
    """

    kind: JobKind
    exposure: str
    builder: str
    camera: str
    night: str
    order: str = ""
    progress: str = ""

    @property
    def key(self) -> str:
        """One flow run has this key."""
        return f"{self.kind.value}/{self.builder}/{self.exposure}/{self.order}"


class Teller:
    """Gives notes to an executor until it has told them.

    `put` may be called from any thread, the others from that of the watch.

    Parameters
    ----------
    directory : Path
        Where notes are kept.
    """

    def __init__(self, launcher: Launcher, directory: Path) -> None:
        self._launcher = launcher
        self._directory = directory
        self._lock = threading.Lock()
        self._notes: dict[str, Note] = {}
        self._due: dict[str, float] = {}
        self._failures: dict[str, int] = {}
        self._flying: dict[str, Note] = {}

    @property
    def listens(self) -> bool:
        """Whether runs are shown anywhere; otherwise nothing is noted."""
        main = self._launcher.main
        return main is not None and main.terms.visible

    @property
    def notes(self) -> tuple[Note, ...]:
        """What is not told yet, and what is told and goes on."""
        with self._lock:
            return tuple(self._notes.values())

    def start(self) -> None:
        """Take up what an earlier process noted and did not tell."""
        if not self.listens:
            return
        for path in sorted(self._directory.glob("*.json")):
            try:
                record: dict[str, Any] = json.loads(path.read_text())
                note = Note(**{**record, "kind": JobKind(record["kind"])})
            except (OSError, ValueError, KeyError, TypeError) as error:
                _log.warning("the note %s cannot be read and is left alone: %s", path, error)
                continue
            with self._lock:
                self._notes.setdefault(note.key, note)

    def put(self, note: Note) -> None:
        """Note something; it is on the disk when this returns.

        Raises
        ------
        Retryable
            If the file system refuses; it is told by this process all the same.
        """
        if not self.listens:
            return
        with self._lock:
            known = self._notes.get(note.key)
            self._notes[note.key] = note
            if not note.progress:
                self._due[note.key] = 0.0
            elif known is None:
                self._due[note.key] = time.monotonic() + _OPEN_S
            elif self._due.get(note.key) == float("inf"):
                self._due[note.key] = 0.0
            self._failures.pop(note.key, None)
            with write_atomic(self._path(note)) as part:
                part.write_text(json.dumps({**asdict(note), "kind": note.kind.value}))

    def look(self, now: float) -> None:
        """Launch what is due, while somebody listens."""
        if not self.listens or self._launcher.is_dark:
            return
        with self._lock:
            busy = {note.key for note in self._flying.values()}
            due = [note for key, note in self._notes.items() if key not in busy and self._due.get(key, 0.0) <= now]
        for note in due[: max(_AT_ONCE - len(busy), 0)]:
            job = self._launcher.start(
                note.kind,
                note.camera,
                Night(note.night),
                now=now,
                exposures=(note.exposure,),
                builder=note.builder,
                order=note.order,
                progress=note.progress,
            )
            self._flying[job.job_id] = note

    def ended(self, job: Job, report: JobReport, now: float) -> None:
        """Take note of the end of a job: what was not told is told again, later and later."""
        note = self._flying.pop(job.job_id, None)
        if note is None:
            return
        with self._lock:
            if report.error or report.lost:
                failures = self._failures[note.key] = self._failures.get(note.key, 0) + 1
                self._due[note.key] = now + min(2.0**failures, _LONGEST_WAIT_S)
            elif self._notes.get(note.key) != note:
                self._due[note.key] = min(self._due.get(note.key, 0.0), now)
            elif note.progress:
                self._due[note.key] = float("inf")  # until there is news; it stays noted, for its end is not told
            else:
                del self._notes[note.key]
                self._due.pop(note.key, None)
                self._path(note).unlink(missing_ok=True)
        self.look(now)

    def _path(self, note: Note) -> Path:
        return self._directory / f"{content_key(note.key)}.json"
