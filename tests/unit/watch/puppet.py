"""An executor that does what a test says, and a ledger with exposures in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from nightglass.config import Camera, Observatory
from nightglass.ledger import GroupRecord, Ledger
from nightglass.model import ExposureRef, Kind, Night, Sighting
from nightglass.pool import SerialPool
from nightglass.watch.executor import Terms
from nightglass.watch.jobs import Job, JobPhase, JobReport
from nightglass.watch.work import Workbench

NIGHT = Night("20260821")
START = datetime(2026, 8, 22, 1, tzinfo=UTC)


class PuppetExecutor:
    """Keeps the jobs it gets, and says what it is told to say."""

    def __init__(
        self, *, visible: bool = True, capacity: int = 2, start_s: float = 3.0, silence_s: float = 2.0
    ) -> None:
        self.terms = Terms(capacity=capacity, start_s=start_s, silence_s=silence_s, visible=visible)
        self.healthy = True
        self.jobs: list[Job] = []
        self.cancelled: list[str] = []
        self.restarts = 0
        self._reports: list[JobReport] = []

    def attach(self, wake: Callable[[], None]) -> None:
        self.wake = wake

    def submit(self, job: Job) -> None:
        self.jobs.append(job)

    def poll(self) -> Iterable[JobReport]:
        reports, self._reports = self._reports, []
        return reports

    def cancel(self, job_id: str) -> None:
        self.cancelled.append(job_id)

    def restart(self) -> None:
        self.restarts += 1
        self._reports.clear()

    def close(self) -> None:
        pass

    def say(self, job: Job, phase: JobPhase, **more: Any) -> None:
        self._reports.append(JobReport(job_id=job.job_id, phase=phase, **more))


@contextmanager
def open_bench(root: Path, **reduction: float) -> Iterator[Workbench]:
    camera = Camera.model_validate({"name": "lynx", "steps": {"realtime": {"default": []}}})
    observatory = Observatory.model_validate({"root": root, "reduction": reduction})
    with Ledger.open(root / "ledger.sqlite") as ledger, SerialPool() as pool:
        yield Workbench(ledger=ledger, pool=pool, observatory=observatory, cameras={"lynx": camera})


def stock(ledger: Ledger, number: int, *, kind: Kind = Kind.SCIENCE) -> str:
    """Bring an exposure as far as GROUPED, alone; return its id."""
    path = Path(f"/raw/{number:04d}.fits")
    sighting = Sighting(path=path, size=2880, mtime_ns=number, inode=number, seen_at=START)
    entry = ledger.see(sighting, camera="lynx", night=NIGHT)
    ref = ExposureRef(
        exposure_id=f"lynx/{NIGHT}/{number:04d}",
        night=NIGHT,
        camera="lynx",
        kind=kind,
        path=path,
        size=2880,
        content_id=f"{number:032x}",
        started_at=START + timedelta(seconds=number),
    )
    ledger.complete(entry.key, ref)
    ledger.group(GroupRecord(group_id=ref.exposure_id, night=NIGHT, camera="lynx", rule="", members=(ref.exposure_id,)))
    return ref.exposure_id


def commit(ledger: Ledger, job: Job) -> None:
    """Do what a job asks for, without pixels."""
    for group in job.groups:
        for lease in group.leases:
            ledger.commit(lease, products=[], publish=lambda: None)
