"""A night of small files on disk, in a ledger; and an assembler that only joins bytes, to watch the archive itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nightglass.archive import ArchiveSummary, NightArchive, archive_exposure, archive_night
from nightglass.config import Camera, Observatory
from nightglass.cubes.records import CubeRequest, CubeSummary, Problem, SourceSummary
from nightglass.errors import Rejected
from nightglass.fitsio import content_id
from nightglass.ledger import Entry, GroupRecord, Ledger
from nightglass.model import ExposureRef, Kind, Night, Product, ProductKind, Sighting
from nightglass.pool import SerialPool
from tests.unit.ledger.material import Clock

NIGHT = Night("20260821")
CAMERA = Camera.model_validate({"name": "lynx", "role": "guide", "steps": {}})


def joined(request: CubeRequest, **_: Any) -> CubeSummary:
    """Join the bytes of all frames; one that holds `bad` is left out and named."""
    frames = {path: path.read_bytes() for path in request.paths}
    bad = tuple(Problem(path, "it is cut off") for path, content in frames.items() if b"bad" in content)
    good = [content for content in frames.values() if b"bad" not in content]
    if not good:
        message = f"no frame of {request.exposure} can be read"
        raise Rejected(message)
    request.out.write_bytes(b"".join(good))
    size = request.out.stat().st_size
    source = SourceSummary("GUIDE0", len(good), (1, 1), 8, size)
    return CubeSummary(path=request.out, size=size, pixel_bytes=size, sources=(source,), frames=len(good), problems=bad)


@dataclass
class Site:
    """A root, its ledger, and files in it."""

    root: Path
    ledger: Ledger
    clock: Clock
    settings: dict[str, Any] = field(default_factory=dict)
    assemble: Callable[..., CubeSummary] = joined

    @property
    def observatory(self) -> Observatory:
        values = {"free_disk_gib": 0, "retry_s": 30, **self.settings}
        return Observatory.model_validate({"root": str(self.root), "archive": values})

    def write(self, name: str, content: str | bytes) -> Sighting:
        path = self.root / "raw" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        status = path.stat()
        moment = datetime.fromtimestamp(self.clock.now, UTC)
        return Sighting(
            path=path, size=status.st_size, mtime_ns=status.st_mtime_ns, inode=status.st_ino, seen_at=moment
        )

    def see(self, name: str, content: str | bytes) -> Entry:
        return self.ledger.see(self.write(name, content), camera=CAMERA.name, night=NIGHT)

    def add(self, name: str, content: str | bytes, *, number: str, parent: str = "") -> Entry:
        """Bring a file as far as COMPLETE."""
        entry = self.see(name, content)
        ref = ExposureRef(
            exposure_id=f"lynx/{NIGHT}/{number}",
            parent=f"lynx/{NIGHT}/{parent}" if parent else "",
            night=NIGHT,
            camera=CAMERA.name,
            kind=Kind.SCIENCE,
            path=entry.path,
            size=entry.size,
            content_id=content_id(entry.path),
            started_at=datetime.fromtimestamp(self.clock.now, UTC),
        )
        return self.ledger.complete(entry.key, ref, revision=entry.revision)

    def reduce(self, entry: Entry) -> Product:
        """Bring an exposure to REDUCED, with a product on disk."""
        record = GroupRecord(
            group_id=entry.exposure_id, night=NIGHT, camera=CAMERA.name, rule="", members=(entry.exposure_id,)
        )
        self.ledger.group(record)
        (lease,) = self.ledger.claim([entry.exposure_id], owner="me", lease_s=60)
        path = self.root / "reduced" / f"{entry.exposure_id.rpartition('/')[2]}.fits"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"reduced {entry.content_id}")
        product = Product(
            kind=ProductKind.REDUCED,
            key=entry.exposure_id,
            path=path,
            checksum=content_id(path),
            size=path.stat().st_size,
        )
        self.ledger.commit(lease, products=[product], publish=lambda: None)
        return product

    def archive(self, number: str, **options: Any) -> ArchiveSummary:
        return archive_exposure(f"lynx/{NIGHT}/{number}", **self.common, **options)

    def archive_all(self, **options: Any) -> NightArchive:
        return archive_night(NIGHT, **self.common, **options)

    @property
    def common(self) -> dict[str, Any]:
        return {
            "ledger": self.ledger,
            "pool": SerialPool(),
            "observatory": self.observatory,
            "camera": CAMERA,
            "assemble": self.assemble,
        }

    def cube(self, number: str, suffix: str = ".fits") -> Path:
        return self.root / "lynx" / NIGHT.label / "archive" / f"{number:0>8}" / f"guide-{number:0>8}{suffix}"
