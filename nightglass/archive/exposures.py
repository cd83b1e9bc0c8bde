"""One exposure becomes a cube: claimed, written beside its name, verified, published inside the ledger."""

from __future__ import annotations

import contextlib
import glob
import logging
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from nightglass.archive.leases import is_dead, prolonged
from nightglass.archive.manifests import Manifest, find_finished, write_manifest
from nightglass.archive.planning import ArchivePlan, plan_archive
from nightglass.archive.summaries import ArchiveOutcome, ArchiveSummary, Redo
from nightglass.errors import LeaseLost, Misconfigured, Rejected, Retryable, Waiting
from nightglass.fitsio import content_id, part_path, publish
from nightglass.ledger import ArchivedFile, ArchiveState
from nightglass.watch.owners import Owner

if TYPE_CHECKING:
    from nightglass.config import Camera, Limits, Observatory
    from nightglass.cubes.records import CubeRequest, CubeSummary, Progress
    from nightglass.ledger import ArchiveLease, Ledger
    from nightglass.model import Content
    from nightglass.pool import Pool

__all__ = ["AssembleFunction", "archive_exposure", "carry_out", "check_space"]

_log = logging.getLogger(__name__)

AssembleFunction = Callable[..., "CubeSummary"]
"""`nightglass.cubes.assemble_cube`, or what stands for it in a test."""
_MIB = 2.0**20
_GIB = 2.0**30


def archive_exposure(
    exposure_id: str,
    *,
    ledger: Ledger,
    pool: Pool,
    observatory: Observatory,
    camera: Camera,
    content: Content | None = None,
    redo: Redo = Redo.CHANGED,
    owner: str = "",
    progress: Progress | None = None,
    assemble: AssembleFunction | None = None,
) -> ArchiveSummary:
    """Write the cube of one exposure, unless it is there and current, or somebody else is at it.

    Parameters
    ----------
    exposure_id : str
        Id of the exposure, or id or path of one of its files.
    content : Content, optional
        Raw frames or reduced products; None: as configured.
    owner : str
        Under which name the archive is claimed; empty: this process.
    progress : callable, optional
        Told how many bytes of pixels are done, and of how many; from any thread.
    assemble : callable, optional
        Instead of `nightglass.cubes.assemble_cube`.

    Raises
    ------
    NightglassError
        If it can't be archived now (Waiting, Retryable) or as it is (Rejected, Misconfigured). The ledger keeps the
        reason, and every frame stays where it is.
    """
    plan = plan_archive(exposure_id, ledger=ledger, observatory=observatory, camera=camera, content=content)
    return carry_out(
        plan,
        ledger=ledger,
        pool=pool,
        observatory=observatory,
        camera=camera,
        redo=redo,
        owner=owner,
        progress=progress,
        assemble=assemble,
    )


def carry_out(
    plan: ArchivePlan,
    *,
    ledger: Ledger,
    pool: Pool,
    observatory: Observatory,
    camera: Camera,
    redo: Redo = Redo.CHANGED,
    owner: str = "",
    progress: Progress | None = None,
    assemble: AssembleFunction | None = None,
) -> ArchiveSummary:
    """Do what `plan_archive` planned; see `archive_exposure`."""
    if plan.is_current and redo is not Redo.ALL:
        return _unchanged(plan)
    if plan.is_current:
        plan.check()  # a refusal must not make a good archive a failed one
    lease = _claim(plan, ledger=ledger, observatory=observatory, redo=redo, owner=owner or str(Owner.here("archive")))
    if isinstance(lease, ArchiveSummary):
        return lease
    began = time.monotonic()
    writer = _Writer(plan, lease, ledger, pool, observatory, camera, assemble)
    try:
        with prolonged(lease, ledger, lease_s=observatory.archive.lease_s):
            if redo is not Redo.ALL and (found := find_finished(plan, lease.wanted)) is not None:
                return writer.adopt(found)
            plan.check()
            check_space(plan.path, plan.estimate, keep_gib=observatory.archive.free_disk_gib)
            return writer.write(progress, began)
    except Exception as error:
        rules = observatory.archive
        with contextlib.suppress(LeaseLost):
            ledger.give_back_archive(lease, error, max_attempts=rules.attempts, retry_s=rules.retry_s)
        raise
    except BaseException:  # interrupted: the exposure is not to blame
        with contextlib.suppress(LeaseLost):
            ledger.give_back_archive(lease, Retryable("it was interrupted"), max_attempts=lease.attempts + 1, retry_s=0)
        raise


def check_space(path: Path, size: int, *, keep_gib: float) -> None:
    """Refuse to begin a cube for which there is no room.

    Raises
    ------
    Retryable
        If less than `keep_gib` would be left free.
    """
    place = next(parent for parent in path.parents if parent.exists())
    free = shutil.disk_usage(place).free
    if free - size < keep_gib * _GIB:
        message = (
            f"{path} may need {size / _MIB:.1f} MiB and {keep_gib:g} GiB are to stay free, "
            f"but {place} has only {free / _MIB:.1f} MiB"
        )
        raise Retryable(message, remedy="free space, or set archive.purge; it is tried again")


def _unchanged(plan: ArchivePlan) -> ArchiveSummary:
    record = plan.record
    assert record is not None  # is_current says so
    problems = tuple(f"{item.path}: {item.problem}" for item in record.files if item.problem)
    return ArchiveSummary(
        exposure=plan.exposure,
        content=plan.content,
        outcome=ArchiveOutcome.CURRENT,
        path=record.path,
        size=record.size,
        frames=record.frames,
        source_count=record.sources,
        problems=problems,
    )


def _claim(
    plan: ArchivePlan, *, ledger: Ledger, observatory: Observatory, redo: Redo, owner: str
) -> ArchiveLease | ArchiveSummary:
    """Ask for the cube and take it; or say why it can't be had."""
    former = plan.record
    lost = former is not None and former.state is ArchiveState.ARCHIVED and not plan.is_current
    again = redo is Redo.ALL or lost
    if redo is Redo.FAILED and former is not None:
        again = again or former.state is ArchiveState.FAILED
    record = ledger.request_archive(
        plan.exposure, plan.content, night=plan.night, camera=plan.camera, wanted=plan.wanted, again=again
    )
    if record.state is ArchiveState.FAILED:
        return ArchiveSummary(
            exposure=plan.exposure, content=plan.content, outcome=ArchiveOutcome.FAILED, error=record.reason
        )
    if is_dead(record.owner):  # nobody need wait until its lease is over
        ledger.revoke_archives(owners=[record.owner], reason="its holder died")
    lease = ledger.claim_archive(plan.exposure, plan.content, owner=owner, lease_s=observatory.archive.lease_s)
    if lease is None:
        _log.info("the archive of %s is left to %s", plan.exposure, record.owner)
        return ArchiveSummary(exposure=plan.exposure, content=plan.content, outcome=ArchiveOutcome.ELSEWHERE)
    return lease


def _parts(plan: ArchivePlan) -> list[Path]:
    """Return the half-written files of a cube and its manifest, and fragments of what is compressed."""
    name = glob.escape(plan.path.name)
    return [path for pattern in (f"{name}*.part", f"f*.{name}*.part") for path in plan.path.parent.glob(pattern)]


class _Writer:
    """Writes the cube of one exposure under one lease."""

    def __init__(
        self,
        plan: ArchivePlan,
        lease: ArchiveLease,
        ledger: Ledger,
        pool: Pool,
        observatory: Observatory,
        camera: Camera,
        assemble: AssembleFunction | None,
    ) -> None:
        self._plan = plan
        self._lease = lease
        self._ledger = ledger
        self._pool = pool
        self._observatory = observatory
        self._camera = camera
        self._assemble = assemble

    def adopt(self, found: Manifest) -> ArchiveSummary:
        """Record a cube that was published by a process which died before it could commit."""
        _log.info("%s was finished before and is taken over as it is", self._plan.path)
        self._commit(found, lambda: None)
        self._sweep()
        return ArchiveSummary(
            exposure=self._plan.exposure,
            content=self._plan.content,
            outcome=ArchiveOutcome.ADOPTED,
            path=self._plan.path,
            size=found.size,
            frames=found.frames,
            source_count=found.sources,
            problems=tuple(f"{item.path}: {item.problem}" for item in found.files if item.problem),
        )

    def write(self, progress: Progress | None, began: float) -> ArchiveSummary:
        """Assemble the cube beside its final name and publish it."""
        plan = self._plan
        part, listing = (part_path(path, self._lease.token) for path in (plan.path, plan.manifest))
        try:
            plan.path.parent.mkdir(parents=True, exist_ok=True)
            self._sweep()
            request = plan.request(part, camera=self._camera, archive=self._observatory.archive)
            cube = self._assembled(request, progress)
            manifest = self._manifest(cube, part)
            write_manifest(manifest, plan, listing)
            self._commit(manifest, lambda: self._publish(part, listing))
        finally:
            for path in (part, listing):
                with contextlib.suppress(OSError):
                    path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # usually it is not empty
                plan.path.parent.rmdir()
        self._tidy()
        return ArchiveSummary(
            exposure=plan.exposure,
            content=plan.content,
            outcome=ArchiveOutcome.ARCHIVED,
            path=plan.path,
            size=manifest.size,
            pixel_bytes=cube.pixel_bytes,
            frames=cube.frames,
            source_count=manifest.sources,
            sources=cube.sources,
            problems=tuple(f"{item.path}: {item.problem}" for item in manifest.files if item.problem),
            seconds=time.monotonic() - began,
        )

    def _assembled(self, request: CubeRequest, progress: Progress | None) -> CubeSummary:
        assemble = self._assemble
        if assemble is None:
            from nightglass.cubes.assembling import assemble_cube  # heavy: kernels and tables

            assemble = assemble_cube
        limits: Limits = self._observatory.limits
        try:
            return assemble(request, pool=self._pool, limits=limits, camera=self._camera, progress=progress)
        except (Rejected, Misconfigured, Waiting, Retryable) as error:
            # a person knows the cube by its final name
            message = error.message.replace(str(request.out), str(self._plan.path))
            kind = next(kind for kind in (Rejected, Misconfigured, Waiting, Retryable) if isinstance(error, kind))
            raise kind(message, remedy=error.remedy) from error
        except OSError as error:
            message = f"the cube of {self._plan.exposure} cannot be written: {error}"
            raise Retryable(message, remedy="check the disk and the rights of the directory") from error

    def _manifest(self, cube: CubeSummary, part: Path) -> Manifest:
        problems: dict[Path, list[str]] = {}
        for problem in cube.problems:
            problems.setdefault(problem.path, []).append(problem.reason)
        files = tuple(
            ArchivedFile(item.path, item.content, item.problem or "; ".join(problems.get(item.path, ())))
            for item in self._plan.members
        )
        return Manifest(
            cube=self._plan.path.name,
            checksum=cube.checksum or content_id(part),
            size=cube.size,
            sources=len(cube.sources),
            frames=cube.frames,
            held=self._lease.wanted,
            verified=True,  # assembling verifies, or raises
            files=files,
        )

    def _commit(self, manifest: Manifest, publication: Callable[[], None]) -> None:
        self._ledger.commit_archive(
            self._lease,
            path=self._plan.path,
            checksum=manifest.checksum,
            size=manifest.size,
            sources=manifest.sources,
            frames=manifest.frames,
            files=manifest.files,
            verified=manifest.verified,
            publish=publication,
        )

    def _publish(self, part: Path, listing: Path) -> None:
        # the manifest first: it names the checksum, so that beside the former cube it is seen to be of another
        if self._observatory.archive.manifest:
            publish(listing, self._plan.manifest)
        publish(part, self._plan.path)

    def _sweep(self) -> None:
        """Remove what former holders of this archive left half written; one that still writes is fenced."""
        for path in _parts(self._plan):
            path.unlink(missing_ok=True)

    def _tidy(self) -> None:
        """Remove the former cube where it has another name: compressed before, plain now, or the reverse."""
        record = self._plan.record
        if record is None or record.path is None or record.path == self._plan.path:
            return
        if record.path.parent == self._plan.path.parent:
            for path in (record.path, record.path.with_name(f"{record.path.name}.json")):
                path.unlink(missing_ok=True)
