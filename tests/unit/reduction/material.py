"""A root with a ledger and a small night, whose exposures are reduced by library calls."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nightglass.config import Camera, Limits, Observatory, load_camera
from nightglass.dialects import describe
from nightglass.fitsio import inspect
from nightglass.ledger import GroupRecord, Ledger
from nightglass.model import ExposureRef, Kind, Night, Sighting, State
from nightglass.pool import SerialPool
from nightglass.reduction import GroupJob, GroupOutcome, ReductionSpec, run_group

NIGHT = Night("20260821")
LIMITS = Limits()


@dataclass
class Site:
    """A root with a ledger and a small simulated night, all of it arrived."""

    root: Path
    ledger: Ledger
    observatory: Observatory
    camera: Camera
    refs: dict[Kind, list[ExposureRef]]

    def arrive(self, path: Path) -> ExposureRef:
        status = path.stat()
        seen = datetime.now(UTC)
        sighting = Sighting(
            path=path, size=status.st_size, mtime_ns=status.st_mtime_ns, inode=status.st_ino, seen_at=seen
        )
        entry = self.ledger.see(sighting, camera=self.camera.name, night=NIGHT)
        found = inspect(path, self.camera, LIMITS)
        ref = describe(
            path,
            found.headers,
            self.camera,
            site=self.observatory.site,
            night=NIGHT,
            content_id=found.content_id,
            size=found.size,
            mtime=status.st_mtime,
        )
        done = self.ledger.complete(entry.key, ref)
        assert done.ref is not None
        return done.ref

    def job(self, *refs: ExposureRef, rule: str = "", group_id: str = "", lease_s: float = 60.0) -> GroupJob:
        ids = [ref.exposure_id for ref in refs]
        group_id = group_id or ids[0]
        record = GroupRecord(group_id=group_id, night=NIGHT, camera="lynx", rule=rule, members=tuple(ids))
        self.ledger.group(record)
        leases = self.ledger.claim_again(ids, owner="test", lease_s=lease_s)
        assert leases
        return GroupJob(
            job_id="j1", group_id=group_id, camera="lynx", refs=refs, leases=leases, lists=("realtime",), rule=rule
        )

    def run(self, job: GroupJob, pool: Any = None) -> GroupOutcome:
        return run_group(
            job, ledger=self.ledger, pool=pool or SerialPool(), observatory=self.observatory, camera=self.camera
        )

    def spec(self, ref: ExposureRef, **changes: Any) -> ReductionSpec:
        spec = ReductionSpec(
            ref=ref,
            camera=self.camera,
            entries=self.camera.step_list("realtime", ref.kind),
            product=self.root / "out" / f"{ref.name}.fits",
            quicklook=self.root / "out" / f"{ref.name}.png",
            token="t1",
            limits=LIMITS,
        )
        return replace(spec, **changes)

    def state(self, ref: ExposureRef) -> State:
        return self.ledger.find(ref.exposure_id).state


@contextmanager
def opened(root: Path, raw: Path) -> Iterator[Site]:
    place = root / "raw"
    shutil.copytree(raw, place)
    observatory = Observatory.model_validate({"root": root / "root", "reduction": {"retry_s": 0}})
    with Ledger.open(root / "ledger.sqlite") as ledger:
        site = Site(root, ledger, observatory, load_camera("lynx"), {})
        for path in sorted(place.glob("*.fits")):
            ref = site.arrive(path)
            site.refs.setdefault(ref.kind, []).append(ref)
        yield site


def parts_below(root: Path) -> list[Path]:
    return sorted(root.rglob("*.part"))
