"""Simulated arrivals for the tests of the ledger: no files are read, so small numbers stand for contents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from nightglass.ledger import Entry, GroupRecord, Lease, Ledger
from nightglass.model import ExposureRef, Kind, Night, Product, ProductKind, Quality, Sighting, State

CAMERA = "lynx"
NIGHT = Night("20260821")
DUSK = datetime(2026, 8, 21, 23, tzinfo=UTC)
T0 = DUSK.timestamp()


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = T0

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True)
class Arrival:
    """A file whose bytes are named by a number."""

    path: Path
    content: int
    number: int
    mtime: int = 1

    @property
    def sighting(self) -> Sighting:
        size = 2880 + self.content
        return Sighting(path=self.path, size=size, mtime_ns=self.mtime, inode=self.content, seen_at=DUSK)

    def ref(self, night: Night = NIGHT, **changes: Any) -> ExposureRef:
        values: dict[str, Any] = {
            "exposure_id": f"{CAMERA}/{night}/{self.number:04d}",
            "night": night,
            "camera": CAMERA,
            "kind": Kind.SCIENCE,
            "path": self.path,
            "size": self.sighting.size,
            "content_id": f"{self.content:08x}" * 4,
            "started_at": DUSK + timedelta(seconds=10 * self.number),
            "exposure_time_s": 5.0,
        }
        return ExposureRef(**(values | changes))


def arrival(number: int, *, content: int | None = None, name: str = "", mtime: int = 1) -> Arrival:
    content = number if content is None else content
    return Arrival(Path("/data/raw") / (name or f"{number:04d}.fits"), content, number, mtime)


def see(ledger: Ledger, item: Arrival, night: Night = NIGHT) -> Entry:
    return ledger.see(item.sighting, camera=CAMERA, night=night)


def complete(ledger: Ledger, item: Arrival, **changes: Any) -> Entry:
    entry = see(ledger, item)
    return ledger.complete(entry.key, item.ref(**changes), revision=entry.revision)


def group(ledger: Ledger, ids: Sequence[str], *, revision: int = 1) -> bool:
    name = ids[0].rsplit("/", 1)[-1]
    record = GroupRecord(
        group_id=f"{CAMERA}/{NIGHT}/set:{name}",
        night=NIGHT,
        camera=CAMERA,
        rule="set",
        members=tuple(ids),
        revision=revision,
    )
    return ledger.group(record)


def grouped(ledger: Ledger, *numbers: int) -> list[str]:
    """Bring exposures as far as GROUPED, as one group; return their ids."""
    ids = [complete(ledger, arrival(number)).exposure_id for number in numbers]
    group(ledger, ids)
    return ids


def claimed(ledger: Ledger, *numbers: int, owner: str = "me", lease_s: float = 60.0) -> tuple[Lease, ...]:
    return ledger.claim(grouped(ledger, *numbers), owner=owner, lease_s=lease_s)


def product(lease: Lease, path: Path = Path("/data/products/reduced.fits"), size: int = 7) -> Product:
    return Product(kind=ProductKind.REDUCED, key=lease.exposure_id, path=path, checksum="00", size=size)


def commit(ledger: Ledger, lease: Lease, published: list[str] | None = None, **changes: Any) -> None:
    values: dict[str, Any] = {
        "products": [product(lease)],
        "quality": Quality.OK,
        "measured": {"seeing": 1.5},
        "masters": ["bias-1"],
        "timings": {"bias": 0.1},
        "publish": lambda: None if published is None else published.append(lease.exposure_id),
    }
    ledger.commit(lease, **(values | changes))


def reduced(ledger: Ledger, *numbers: int) -> list[str]:
    leases = claimed(ledger, *numbers)
    for lease in leases:
        commit(ledger, lease)
    return [lease.exposure_id for lease in leases]


def states(ledger: Ledger, ids: Sequence[str]) -> list[State]:
    return [ledger.find(name).state for name in ids]


def tallied(ledger: Ledger) -> dict[State, int]:
    """Count the entries one by one."""
    found = [entry.state for entry in ledger.entries()]
    return {state: found.count(state) for state in State}
