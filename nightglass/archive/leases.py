"""Leases on cubes: kept while a cube is written, and taken from holders that are known to be dead."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from nightglass.errors import LeaseLost, Misconfigured, Retryable
from nightglass.watch.owners import Owner

if TYPE_CHECKING:
    from nightglass.ledger import ArchiveLease, Ledger

__all__ = ["is_dead", "prolonged"]

_log = logging.getLogger(__name__)


def is_dead(owner: str) -> bool:
    """Tell whether the holder of a lease is known to be gone."""
    try:
        return bool(owner) and Owner.parse(owner).is_dead
    except Misconfigured:
        return False  # of another form: its lease ends by itself


@contextlib.contextmanager
def prolonged(lease: ArchiveLease, ledger: Ledger, *, lease_s: float) -> Iterator[None]:
    """Prolong a lease while the block runs; one that was taken is not fought for: the commit is fenced."""
    over = threading.Event()

    def keep() -> None:
        while not over.wait(lease_s / 3):
            try:
                ledger.extend_archive(lease, lease_s=lease_s)
            except LeaseLost as error:
                _log.warning("%s", error)
                return
            except Retryable as error:
                _log.warning("the lease on %s is not prolonged yet: %s", lease.key, error)

    keeper = threading.Thread(target=keep, name="archive-lease", daemon=True)
    keeper.start()
    try:
        yield
    finally:
        over.set()
        keeper.join()
