"""Leases for a batch of groups: by one transaction where that is possible, else group by group."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from nightglass.model import State

if TYPE_CHECKING:
    from nightglass.ledger import Lease, Ledger
    from nightglass.watch.dispatch import ReadyItem

__all__ = ["claim_batch"]


def claim_batch(batch: Sequence[ReadyItem], ledger: Ledger, *, owner: str, lease_s: float) -> list[tuple[Lease, ...]]:
    """Claim the exposures of a batch; return the leases of each group, none of a group that cannot be had."""
    members = [member for item in batch for member in item.members]
    shared = len(set(members)) < len(members)  # two groups must not have one lease
    leases = () if shared else ledger.claim(members, owner=owner, lease_s=lease_s)
    if leases:
        left = iter(leases)
        return [tuple(itertools.islice(left, len(item.members))) for item in batch]
    return [_claim_group(item, ledger, owner=owner, lease_s=lease_s) for item in batch]


def _claim_group(item: ReadyItem, ledger: Ledger, *, owner: str, lease_s: float) -> tuple[Lease, ...]:
    leases = ledger.claim(item.members, owner=owner, lease_s=lease_s)
    if leases:
        return leases
    # one of them was skipped, replaced or taken by somebody else: the others go without it
    now = time.time()
    free = [
        entry.exposure_id
        for entry in ledger.entries(ids=item.members, states=[State.GROUPED])
        if (entry.retry_at or 0.0) <= now
    ]
    return ledger.claim(free, owner=owner, lease_s=lease_s) if free else ()
