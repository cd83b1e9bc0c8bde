"""Cubes of image builders in the ledger: one writer at a time, fenced, and recorded beside those of the night.

A builder makes its cubes as its options say, which may leave cards out: so they are content of their own, and raw
frames are never deleted on their account.
"""

from __future__ import annotations

import contextlib
import glob
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from nightglass.archive.leases import is_dead, prolonged
from nightglass.errors import LeaseLost, Rejected, Retryable
from nightglass.fitsio import content_id, part_path, publish
from nightglass.ledger import ArchivedFile
from nightglass.model import Content, Night
from nightglass.watch.owners import Owner

if TYPE_CHECKING:
    from nightglass.config import Archive
    from nightglass.cubes.records import CubeSummary
    from nightglass.ledger import ArchiveLease, Ledger

__all__ = ["BuiltCubes"]

_MANY = 1_000_000
"""Attempts: the builder tries on until it is told otherwise, and the ledger only keeps the reason."""


class BuiltCubes:
    """What the ledger knows of the cubes of one image builder.

    Parameters
    ----------
    builder, camera : str
        Their names; a cube is recorded as ``<camera>/<night>/<builder>-<expid>``.
    rules : Archive
        How long a lease lasts.
    owner : str
        Under which name cubes are claimed; empty: this process.
    """

    def __init__(self, builder: str, camera: str, *, ledger: Ledger, rules: Archive, owner: str = "") -> None:
        self._builder = builder
        self._camera = camera
        self._ledger = ledger
        self._rules = rules
        self._owner = owner or str(Owner.here("builder"))

    def name(self, night: Night, expid: int) -> str:
        """Return under which id the cube of an exposure is recorded."""
        return f"{self._camera}/{night}/{self._builder}-{expid:08d}"

    def keep(
        self,
        path: Path,
        make: Callable[[Path], CubeSummary],
        *,
        night: Night,
        expid: int,
        files: Mapping[Path, str],
    ) -> CubeSummary:
        """Have a cube made beside its name under a lease, and publish and record it in one.

        Parameters
        ----------
        make : callable
            Writes the cube, verified, to the path that it is given.
        files : mapping of Path to str
            The frames in it, each with what tells one content of it from another.

        Raises
        ------
        Retryable
            If somebody else writes it, or took it meanwhile; what was there stays.
        NightglassError
            What `make` raised; the ledger keeps the reason.
        """
        lease = self._claim(night, expid, files.values())
        part = part_path(path, lease.token)
        try:
            with prolonged(lease, self._ledger, lease_s=self._rules.lease_s):
                _sweep(path)
                summary = make(part)
                summary = replace(
                    summary, path=path, size=part.stat().st_size, checksum=summary.checksum or content_id(part)
                )
                self._commit(lease, summary, part, [ArchivedFile(*item) for item in files.items()])
        except LeaseLost as error:
            raise Retryable(error.message, remedy=error.remedy) from error
        except BaseException as error:
            blamed = error if isinstance(error, Exception) else Retryable("it was interrupted")
            with contextlib.suppress(LeaseLost):
                self._ledger.give_back_archive(lease, blamed, max_attempts=_MANY, retry_s=self._rules.retry_s)
            raise
        finally:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
        return summary

    def give_up(self, night: Night, expid: int, reason: str) -> None:
        """Note that a cube that was to be tried again will not be made; what was made before stays recorded."""
        lease = self._ledger.claim_archive(
            self.name(night, expid), Content.BUILT, owner=self._owner, lease_s=self._rules.lease_s
        )
        if lease is not None:  # else nobody waits for it, or somebody writes it
            with contextlib.suppress(LeaseLost):
                self._ledger.give_back_archive(lease, Rejected(reason), max_attempts=1, retry_s=self._rules.retry_s)

    def _claim(self, night: Night, expid: int, contents: Iterable[str]) -> ArchiveLease:
        name, wanted = self.name(night, expid), sorted(set(contents))
        record = self._ledger.request_archive(
            name, Content.BUILT, night=night, camera=self._camera, wanted=wanted, again=True
        )
        if is_dead(record.owner):  # nobody need wait until its lease is over
            self._ledger.revoke_archives(owners=[record.owner], reason="its holder died")
        lease = self._ledger.claim_archive(name, Content.BUILT, owner=self._owner, lease_s=self._rules.lease_s)
        if lease is None:
            message = f"the cube of {name} is being written by {record.owner or 'somebody else'}"
            raise Retryable(message, remedy="it is tried again when that one is through, or its lease is over")
        return lease

    def _commit(self, lease: ArchiveLease, summary: CubeSummary, part: Path, files: Sequence[ArchivedFile]) -> None:
        self._ledger.commit_archive(
            lease,
            path=summary.path,
            checksum=summary.checksum,
            size=summary.size,
            sources=len(summary.sources),
            frames=summary.frames,
            files=files,
            verified=True,  # assembling verifies, or raises
            publish=lambda: publish(part, summary.path),
        )


def _sweep(path: Path) -> None:
    """Remove what former holders left half written; one that still writes is fenced."""
    name = glob.escape(path.name)
    for pattern in (f"{name}*.part", f"f*.{name}*.part"):
        for part in path.parent.glob(pattern):
            part.unlink(missing_ok=True)
