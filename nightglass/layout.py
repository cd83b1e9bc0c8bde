"""Every path that Nightglass writes, as a pure function of keys.

``<root>/<camera>/<night>/{raw,reduced,quicklook,masters,stacks,reports,logs,archive}/...``;
text from headers passes `nightglass.model.sanitize` before it comes near a path.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nightglass.model import Content, ExposureRef, MasterRef, Night, Stage, sanitize

__all__ = ["Layout"]


@dataclass(frozen=True, slots=True)
class Layout:
    """The directory tree below one root."""

    root: Path

    @property
    def ledger(self) -> Path:
        """The SQLite ledger that is used when no other is configured."""
        return self.root / "ledger.sqlite"

    @property
    def run(self) -> Path:
        """What the processes that run now tell each other: locks, addresses, pids."""
        return self.root / "run"

    @property
    def tellings(self) -> Path:
        """What Prefect is still to be told of image builders."""
        return self.run / "tellings"

    @property
    def prefect_home(self) -> Path:
        """Home of the embedded Prefect server."""
        return self.root / "prefect"

    def night(self, camera: str, night: Night) -> Path:
        """Return the directory of one night of one camera."""
        return self.root / sanitize(camera) / night.label

    def received(self, camera: str, night: Night, stream: str) -> Path:
        """Return the directory of what a stream brought in a night."""
        return self.night(camera, night) / "raw" / sanitize(stream)

    def reduced(self, ref: ExposureRef) -> Path:
        """Return the reduced product of an exposure."""
        return self.night(ref.camera, ref.night) / "reduced" / f"{ref.name}.fits"

    def quicklook(self, ref: ExposureRef) -> Path:
        """Return the quick-look picture of an exposure."""
        return self.night(ref.camera, ref.night) / "quicklook" / f"{ref.name}.png"

    def master(self, ref: MasterRef) -> Path:
        """Return the path of a master; its id is part of the name, so no master is ever overwritten."""
        parts = [ref.kind.value, ref.detector, ref.filter, ref.binning if ref.binning != "1x1" else ""]
        if ref.exposure_time_s:
            parts.append(f"{ref.exposure_time_s:g}s".replace(".", "p"))
        stem = "-".join(sanitize(part) for part in parts if part)
        return self.night(ref.camera, ref.night) / "masters" / f"{stem}-{ref.master_id[:8]}.fits"

    def stack(self, camera: str, night: Night, group_id: str) -> Path:
        """Return the stack of a group."""
        return self.night(camera, night) / "stacks" / f"{sanitize(group_id.rsplit('/', 1)[-1])}.fits"

    def report(self, camera: str, night: Night, stage: Stage, suffix: str) -> Path:
        """Return a report of a stage; suffix is ``.html``, ``.txt``, ``.csv`` and the like."""
        return self.night(camera, night) / "reports" / f"{night.label}-{stage.value}{suffix}"

    def account(self, camera: str, night: Night, builder: str, expid: int) -> Path:
        """Return the account of what an image builder did for an exposure."""
        return self.night(camera, night) / "reports" / f"{sanitize(builder)}-{expid:08d}.json"

    def cube_account(self, camera: str, night: Night, builder: str, expid: int, order: str) -> Path:
        """Return the account of an order to archive an exposure of an image builder."""
        name = f"{sanitize(builder)}-{expid:08d}-archive-{sanitize(order)}.json"
        return self.night(camera, night) / "reports" / name

    def exposure_log(self, camera: str, night: Night) -> Path:
        """Return the table of all exposures of a night."""
        return self.night(camera, night) / "reports" / f"{night.label}-exposures.csv"

    def errors(self, camera: str, night: Night, suffix: str) -> Path:
        """Return the cumulative error report; suffix is ``.txt`` or ``.csv``."""
        return self.night(camera, night) / "reports" / f"{night.label}-errors{suffix}"

    def log(self, camera: str, night: Night) -> Path:
        """Return the log file of a night."""
        return self.night(camera, night) / "logs" / f"{night.label}.log"

    def archive(self, camera: str, night: Night, exposure: str) -> Path:
        """Return the directory of the archived cubes of an exposure; a number is written with eight digits."""
        return self.night(camera, night) / "archive" / _eight(exposure)

    def cube(
        self, camera: str, night: Night, exposure: str, *, role: str, content: Content, compressed: bool = False
    ) -> Path:
        """Return the cube of an exposure, by the last part of its id: ``<role>-<exposure>.fits``."""
        stem = f"{sanitize(role)}-{_eight(exposure)}" + ("" if content is Content.RAW else f"-{content.value}")
        return self.archive(camera, night, exposure) / f"{stem}.fits{'.fz' if compressed else ''}"


def _eight(exposure: str) -> str:
    return f"{int(exposure):08d}" if exposure.isdecimal() and exposure.isascii() else sanitize(exposure)
