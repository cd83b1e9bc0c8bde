"""Exposures and groups that a person asks for: found, or taken in from a file, and claimed at once."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from nightglass.errors import Misconfigured, Rejected, Retryable
from nightglass.ledger import GroupRecord
from nightglass.model import Night, Sighting, State
from nightglass.nights import night_of

if TYPE_CHECKING:
    from nightglass.config import Camera, Observatory
    from nightglass.ledger import Entry, Lease, Ledger
    from nightglass.reduction import GroupJob

__all__ = ["claim_exposures", "claim_group", "take_in"]

_CLOSED = (State.FAILED, State.REJECTED, State.SKIPPED)


def take_in(
    target: str | Path, camera: Camera, *, ledger: Ledger, observatory: Observatory, night: Night | None = None
) -> Entry:
    """Return the entry of an exposure id, or of a file, which is recorded if the ledger does not know it.

    Parameters
    ----------
    target : str or Path
        An exposure id, or the path of a file that is there.
    night : Night, optional
        Names the night of a file; None: its header does.

    Raises
    ------
    Misconfigured
        If the target is neither a known exposure nor a file.
    Rejected, Retryable
        If the file can't be reduced, or is not complete yet. The ledger keeps the reason.
    """
    path = Path(target).expanduser().absolute()
    if not path.is_file():
        try:
            return _open_again(ledger.find(str(target)), camera, ledger=ledger, observatory=observatory, night=night)
        except Misconfigured as error:
            message = f"{target} is neither a file nor an exposure that the ledger knows"
            raise Misconfigured(message, remedy="write the path of a file, or camera/night/number") from error
    status = path.stat()
    sighting = Sighting.of(path, status, datetime.now(UTC))
    around = night or night_of(datetime.fromtimestamp(status.st_mtime, UTC), observatory.site)
    entry = ledger.see(sighting, camera=camera.name, night=around)
    return _open_again(entry, camera, ledger=ledger, observatory=observatory, night=night)


def claim_exposures(
    entries: Iterable[Entry],
    *,
    ledger: Ledger,
    observatory: Observatory,
    owner: str,
    lists: Sequence[str] = (),
    job_id: str = "",
) -> tuple[GroupJob, ...]:
    """Claim exposures one by one, each as a group of its own; reduced ones are reduced again.

    Parameters
    ----------
    lists : sequence of str, optional
        Step lists; empty: those for exposures as they arrive.

    Raises
    ------
    Retryable
        If somebody else is at one of them; those claimed before it are given back.
    """
    from nightglass.reduction import GroupJob  # heavy: numpy and the steps

    jobs: list[GroupJob] = []
    for entry in entries:
        ref = entry.ref
        leases = _claim([entry.exposure_id], ledger=ledger, observatory=observatory, owner=owner)
        if ref is None or not leases:
            _withdraw(ledger, jobs)
            raise _taken(ledger, entry.exposure_id)
        jobs.append(
            GroupJob(
                job_id=job_id,
                group_id=entry.exposure_id,
                camera=ref.camera,
                refs=(ref,),
                leases=leases,
                lists=tuple(lists) or observatory.reduction.realtime,
            )
        )
    return tuple(jobs)


def claim_group(
    group_id: str,
    *,
    ledger: Ledger,
    observatory: Observatory,
    owner: str,
    lists: Sequence[str] = (),
    job_id: str = "",
) -> GroupJob:
    """Claim all members of a closed group, as `claim_exposures`.

    Raises
    ------
    Misconfigured
        If the ledger knows no such group.
    Retryable
        If somebody else is at one of its members.
    """
    from nightglass.reduction import GroupJob

    record = ledger.find_group(group_id)
    if record is None:
        message = f"the ledger knows no group {group_id}"
        raise Misconfigured(message, remedy="nightglass status names the groups of a night")
    ledger.retry([entry.exposure_id for entry in ledger.entries(ids=record.members, states=_CLOSED)])
    leases = _claim(record.members, ledger=ledger, observatory=observatory, owner=owner)
    if not leases:
        raise _taken(ledger, group_id)
    return GroupJob(
        job_id=job_id,
        group_id=group_id,
        camera=record.camera,
        refs=ledger.refs(record.members),
        leases=leases,
        lists=tuple(lists) or observatory.reduction.realtime,
        rule=record.rule,
    )


def _claim(ids: Sequence[str], *, ledger: Ledger, observatory: Observatory, owner: str) -> tuple[Lease, ...]:
    return ledger.claim_again(list(ids), owner=owner, lease_s=observatory.reduction.lease_s)


def _taken(ledger: Ledger, name: str) -> Retryable:
    holders = {entry.owner for entry in ledger.running() if name in (entry.exposure_id, entry.group_id)}
    message = f"{name} is being reduced by {', '.join(sorted(holders)) or 'somebody else'}"
    return Retryable(message, remedy="wait until it is done, then ask again")


def _withdraw(ledger: Ledger, jobs: Iterable[GroupJob]) -> None:
    leases = [lease for job in jobs for lease in job.leases]
    if leases:
        ledger.revoke(leases=leases, reason="asked for together with another that could not be had")


def _open_again(
    entry: Entry, camera: Camera, *, ledger: Ledger, observatory: Observatory, night: Night | None
) -> Entry:
    """Bring an entry to where it can be claimed, whatever was decided about it before."""
    if entry.state in _CLOSED:
        entry = ledger.retry([entry.key])[0]
    if entry.state is State.SEEN:
        entry = _complete(entry, camera, ledger=ledger, observatory=observatory, night=night)
    if entry.state is State.SKIPPED:
        message = f"{entry.path} is not reduced: {entry.reason}"
        raise Rejected(message, remedy="ask for the other one")
    if entry.state is State.COMPLETE and entry.ref is not None:
        alone = GroupRecord(
            group_id=entry.exposure_id,
            night=entry.night,
            camera=entry.camera,
            rule="",
            members=(entry.exposure_id,),
            reason="asked for by a person",
        )
        ledger.group(alone)
    return entry


def _complete(entry: Entry, camera: Camera, *, ledger: Ledger, observatory: Observatory, night: Night | None) -> Entry:
    from nightglass.dialects import describe
    from nightglass.fitsio import inspect

    try:
        inspection = inspect(entry.path, camera, observatory.limits, now=time.time())
        described = describe(
            entry.path,
            inspection.headers,
            camera,
            site=observatory.site,
            night=night,
            content_id=inspection.content_id,
            size=inspection.size,
            mtime=entry.mtime_ns / 1e9,
        )
    except Rejected as error:
        ledger.reject(entry.key, error, revision=entry.revision)
        raise
    return ledger.complete(entry.key, described, revision=entry.revision)
