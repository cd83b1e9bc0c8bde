"""What belongs in the cube of an exposure, by the ledger and by what is on disk now."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nightglass.cubes.records import Compression, CubeRequest, Keywords
from nightglass.errors import Misconfigured, Rejected, Waiting
from nightglass.layout import Layout
from nightglass.model import Content, Night, ProductKind, State

if TYPE_CHECKING:
    from nightglass.config import Archive, Camera, Observatory
    from nightglass.ledger import ArchiveRecord, Entry, Ledger

__all__ = ["ArchivePlan", "Member", "plan_archive"]

_PACKED = (".gz", ".fz")
_UNPACKED = 3
"""How much larger a plain cube is than compressed frames, at a guess; preallocation tells for certain."""
_TABLES = 1.1
"""Tables and header cards, at a guess."""


@dataclass(frozen=True, slots=True)
class Member:
    """One file of an exposure.

    Attributes
    ----------
    content : str
        Content id; size and time of change where the ledger has none for what is there now.
    size : int
        Bytes on disk; 0 where it is not there.
    problem : str
        Why it cannot be in the cube; empty: it can.
    """

    path: Path
    content: str
    size: int
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchivePlan:
    """The cube of one exposure, before anything is read.

    Attributes
    ----------
    members : tuple of Member
        In order of arrival.
    record : ArchiveRecord or None
        What the ledger says about the cube.
    path : Path
        Where the cube belongs.
    """

    exposure: str
    content: Content
    night: Night
    camera: str
    members: tuple[Member, ...]
    record: ArchiveRecord | None
    path: Path

    @property
    def name(self) -> str:
        """Last part of the id of the exposure."""
        return self.exposure.rpartition("/")[2]

    @property
    def manifest(self) -> Path:
        """The JSON file beside the cube."""
        return self.path.with_name(f"{self.path.name}.json")

    @property
    def wanted(self) -> tuple[str, ...]:
        """Contents that the cube should hold, sorted; one that is lost is marked, so that its return is noticed."""
        return tuple(sorted(f"lost-{item.content}" if item.problem else item.content for item in self.members))

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files that can be read."""
        return tuple(item.path for item in self.members if not item.problem and item.size)

    @property
    def estimate(self) -> int:
        """Bytes that the cube may need, at a guess."""
        growth = [_UNPACKED if path.suffix.lower() in _PACKED else 1 for path in self.paths]
        sizes = [item.size for item in self.members if not item.problem and item.size]
        return int(sum(size * factor for size, factor in zip(sizes, growth, strict=True)) * _TABLES)

    @property
    def is_current(self) -> bool:
        """Whether the cube is there, whole by its size, and holds what it should."""
        record = self.record
        if record is None or not record.is_current or record.held != self.wanted or record.path is None:
            return False
        return _size(record.path) == record.size

    def check(self) -> None:
        """Refuse what would lose a frame.

        Raises
        ------
        Rejected
            If no file is left to archive, or frames that are only in the present cube would be missing in the new one.
        """
        kept = [item for item in self.members if not item.problem and not item.size]
        if kept and self.record is not None:
            message = (
                f"{len(kept)} frames of {self.exposure} are only in its cube {self.record.path}, "
                "and a new cube would be without them"
            )
            remedy = "take them out (nightglass cube --extract) to where they came from, then archive it again"
            raise Rejected(message, remedy=remedy)
        if not self.paths:
            reasons = "; ".join(f"{item.path} {item.problem}" for item in self.members) or "it has no file"
            message = f"nothing of {self.exposure} can be archived: {reasons}"
            raise Rejected(message, remedy="bring its frames back")

    def request(self, part: Path, *, camera: Camera, archive: Archive) -> CubeRequest:
        """Return the request for the cube, written to `part`."""
        keywords = camera.archive
        compression = None
        if archive.compress:
            compression = Compression(algorithm=archive.compress, quantize=archive.quantize)
        return CubeRequest(
            paths=self.paths,
            out=part,
            role=camera.role,
            exposure=self.name,
            night=self.night.label,
            camera=self.camera,
            compression=compression,
            keywords=Keywords(keywords.primary, keywords.secondary, keywords.metadata),
            frame_keyword=tuple(dict.fromkeys((*camera.header.frame, *keywords.frame))),
            keep_cards=archive.keep_cards,
            mode=archive.mode,
            durable=archive.durable,
            overwrite=True,  # of a part that bears our token: nobody else's
        )


def plan_archive(
    exposure: str, *, ledger: Ledger, observatory: Observatory, camera: Camera, content: Content | None = None
) -> ArchivePlan:
    """Find the files of an exposure, raw frames of whatever state, or reduced products.

    A copy of a file that is known under another name is left out, as is a file that is still coming.

    Parameters
    ----------
    exposure : str
        Id of an exposure, of one of its files, or the path of one.
    content : Content, optional
        None: as configured.

    Raises
    ------
    Misconfigured
        If the ledger does not know the exposure.
    Waiting
        If a file of it is being replaced, or nothing of it has been judged, or reduced, yet.
    """
    content = content or observatory.archive.what
    entries = ledger.members(exposure)
    if not entries:
        exposure = ledger.find(exposure).archive_id
        entries = ledger.members(exposure)
    if not entries:
        message = f"the ledger has no file of exposure {exposure}"
        raise Misconfigured(message, remedy="it may be a copy of another; see `nightglass status`")
    record = ledger.find_archive(exposure, content)
    members = _raw(entries, record) if content is Content.RAW else _reduced(entries, ledger, record)
    if not members:
        lacking = "is complete" if content is Content.RAW else "is reduced"
        message = f"no file of {exposure} {lacking} yet"
        raise Waiting(message, remedy="it is archived at the final stage")
    night = entries[0].night
    packed = bool(observatory.archive.compress)
    return ArchivePlan(
        exposure=exposure,
        content=content,
        night=night,
        camera=camera.name,
        members=members,
        record=record,
        path=Layout(observatory.root).cube(
            camera.name, night, exposure.rpartition("/")[2], role=camera.role, content=content, compressed=packed
        ),
    )


def _raw(entries: Iterable[Entry], record: ArchiveRecord | None) -> tuple[Member, ...]:
    members = []
    for entry in entries:
        if entry.is_duplicate:
            continue
        if entry.state is State.SEEN:
            if entry.revision > 1:
                message = f"{entry.path} is being replaced"
                raise Waiting(message, remedy="it is archived when it is complete")
            continue
        members.append(_raw_member(entry, record))
    return tuple(members)


def _raw_member(entry: Entry, record: ArchiveRecord | None) -> Member:
    content = entry.content_id or f"{entry.size}-{entry.mtime_ns}"
    try:
        status = entry.path.stat()
    except OSError as error:
        return _absent(entry.path, content, record, error.strerror or str(error))
    if (status.st_size, status.st_mtime_ns) != (entry.size, entry.mtime_ns):
        # changed since the ledger saw it: when it sees it again, its content differs from this mark
        content = f"{status.st_size}-{status.st_mtime_ns}"
    # size 0 stands for a file whose frames are in the cube only
    return Member(entry.path, content, status.st_size, "" if status.st_size else "is empty")


def _reduced(entries: Iterable[Entry], ledger: Ledger, record: ArchiveRecord | None) -> tuple[Member, ...]:
    members = []
    for entry in entries:
        products = ledger.products_of(entry.exposure_id) if entry.exposure_id else ()
        for product in products:
            if product.kind is ProductKind.REDUCED:
                size = _size(product.path)
                if size is None:
                    members.append(_absent(product.path, product.checksum, record, "is gone"))
                else:
                    members.append(Member(product.path, product.checksum, size))
    return tuple(members)


def _absent(path: Path, content: str, record: ArchiveRecord | None, reason: str) -> Member:
    """Return a file that is not there: its frames are in the cube, or lost."""
    cube = record is not None and record.path is not None and _size(record.path) == record.size
    held = {item.content for item in record.files if not item.problem} if record is not None and cube else set()
    return Member(path, content, 0, "" if content in held else f"is not there ({reason})")


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None
