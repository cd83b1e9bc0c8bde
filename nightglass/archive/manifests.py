"""The JSON file beside a cube: what went into it, and its checksum."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nightglass.errors import Retryable
from nightglass.fitsio import content_id

if TYPE_CHECKING:
    from nightglass.archive.planning import ArchivePlan
    from nightglass.ledger import ArchivedFile

__all__ = ["Manifest", "find_finished", "write_manifest"]

_FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A finished cube, as the process that wrote it knew it.

    It holds no time, host or user: the same frames give the same manifest.
    """

    cube: str
    checksum: str
    size: int
    sources: int
    frames: int
    held: tuple[str, ...]
    verified: bool
    files: tuple[ArchivedFile, ...]


def write_manifest(manifest: Manifest, plan: ArchivePlan, part: Path) -> None:
    """Write a manifest, synced, to a part that is published together with the cube.

    Raises
    ------
    Retryable
        If the file system refuses.
    """
    record: dict[str, Any] = {
        "format": _FORMAT,
        "exposure": plan.exposure,
        "night": plan.night.label,
        "camera": plan.camera,
        "content": plan.content.value,
        **asdict(manifest),
        "files": [{**asdict(item), "path": str(item.path)} for item in manifest.files],
    }
    try:
        with part.open("w") as stream:
            json.dump(record, stream, indent=1)
            stream.write("\n")
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        message = f"{part} cannot be written: {error}"
        raise Retryable(message, remedy="check the disk and the rights of the directory") from error


def find_finished(plan: ArchivePlan, held: Sequence[str]) -> Manifest | None:
    """Return the manifest of a cube that stands under its final name, is whole, and holds these contents; or None."""
    from nightglass.ledger import ArchivedFile

    try:
        record = json.loads(plan.manifest.read_text())
        files = tuple(ArchivedFile(**{**item, "path": Path(item["path"])}) for item in record["files"])
        fields = {name: record[name] for name in ("cube", "checksum", "size", "sources", "frames", "verified")}
        manifest = Manifest(**fields, held=tuple(record["held"]), files=files)
        fits = (record["format"], record["exposure"], manifest.cube) == (_FORMAT, plan.exposure, plan.path.name)
        if not fits or manifest.held != tuple(sorted(held)) or plan.path.stat().st_size != manifest.size:
            return None
        return manifest if content_id(plan.path) == manifest.checksum else None
    except (OSError, ValueError, KeyError, TypeError):
        return None  # none was written, or it is of something else: the cube is written anew
