"""The durable record of every exposure, group, product and stage."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Self

from nightglass.closing import Closing
from nightglass.ledger.archives import Archives
from nightglass.ledger.arrivals import Arrivals
from nightglass.ledger.catalogue import Catalogue
from nightglass.ledger.leases import Leases
from nightglass.ledger.queries import Queries
from nightglass.ledger.reconcile import reconcile
from nightglass.ledger.records import Reconciliation
from nightglass.ledger.remarks import Remarks
from nightglass.ledger.stages import Stages
from nightglass.ledger.store import Store
from nightglass.model import Night

__all__ = ["Ledger"]


class Ledger(Closing):
    """Nothing lost, nothing twice: the one truth about exposures.

    It may be used by several threads, and one database by several processes; they meet only here. Each method is
    one transaction. The methods live in seven parts, and are lifted from there:

    ================== ============================================================================================
    `Arrivals`         see, see_many, complete, reject, fail, wait, skip, retry
    `Leases`           group, ready, claim, claim_again, extend, commit, give_back, sweep, revoke, running
    `Stages`           open_night, find_night, nights, open_nights, close_night, reopen, reset_stage, stages_due,
                       claim_stage, extend_stage, finish_stage, fail_stage, revoke_stages
    `Archives`         members, request_archive, claim_archive, extend_archive, commit_archive, give_back_archive,
                       revoke_archives, mark_purged, find_archive, archives, archive_counts
    `Catalogue`        add_product, products, products_of, add_master, masters, find_master, record_run, unreported,
                       mark_reported
    `Queries`          find, refs, entries, latest, pending, counts, latencies, lag, waiting_reasons, errors, groups,
                       find_group, history, holders, knows, nights_seen
    `Remarks`          remark
    ================== ============================================================================================

    Times called `now` are epoch seconds; without one, `clock` is asked.

    Every method may raise `Retryable` (another process holds the ledger for longer than the busy time-out, the disk
    is full, the server is gone).

    Parameters
    ----------
    store : Store
        An open database; it is closed with the ledger.
    clock : callable
        Gives epoch seconds.
    """

    def __init__(self, store: Store, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._catalogue = catalogue = Catalogue(store, clock)
        self._queries = queries = Queries(store, clock)
        self._lift_arrivals(Arrivals(store, clock))
        self._lift_leases(Leases(store, clock))
        self._lift_stages(Stages(store, clock))
        self._lift_archives(Archives(store, clock))
        self._lift_catalogue(catalogue)
        self._lift_queries(queries)
        self._lift_remarks(Remarks(store, clock))

    @classmethod
    def open(cls, url: str | Path, *, busy_timeout_s: float = 30.0, clock: Callable[[], float] = time.time) -> Self:
        """Open a ledger; a new one is made if there is none.

        Parameters
        ----------
        url : str or Path
            Path of an SQLite file, or an SQLAlchemy URL (``postgresql://...`` for several hosts).
        busy_timeout_s : float
            How long a transaction waits for another writer.

        Raises
        ------
        Misconfigured
            If it is of another schema version, is no ledger, or cannot be written.
        Retryable
            If it is locked for too long, or the server is gone.
        """
        return cls(Store(url, busy_timeout_s=busy_timeout_s), clock)

    def close(self) -> None:
        """Close all connections."""
        self._store.close()

    @property
    def name(self) -> str:
        """Path or URL, without a password."""
        return self._store.name

    def reconcile(
        self,
        night: Night,
        camera: str,
        *,
        files: Iterable[Path],
        expected: Collection[str] = (),
        product_files: Iterable[Path] = (),
    ) -> Reconciliation:
        """Compare a night with the raw files on disk, the products on disk, and the exposures that were expected.

        See `nightglass.ledger.reconcile.reconcile`.
        """
        return reconcile(
            self._queries,
            self._catalogue,
            night=night,
            camera=camera,
            files=files,
            expected=expected,
            product_files=product_files,
            purged={
                item.path
                for record in self.archives(night, camera)
                if record.purged_at is not None
                for item in record.files
            },
        )

    def _lift_arrivals(self, arrivals: Arrivals) -> None:
        self.see = arrivals.see
        self.see_many = arrivals.see_many
        self.complete = arrivals.complete
        self.reject = arrivals.reject
        self.fail = arrivals.fail
        self.wait = arrivals.wait
        self.skip = arrivals.skip
        self.retry = arrivals.retry

    def _lift_leases(self, leases: Leases) -> None:
        self.group = leases.group
        self.ready = leases.ready
        self.claim = leases.claim
        self.claim_again = leases.claim_again
        self.extend = leases.extend
        self.commit = leases.commit
        self.give_back = leases.give_back
        self.sweep = leases.sweep
        self.revoke = leases.revoke
        self.running = leases.running
        self.tokens = leases.tokens

    def _lift_stages(self, stages: Stages) -> None:
        self.open_night = stages.open_night
        self.find_night = stages.find_night
        self.nights = stages.nights
        self.open_nights = stages.open_nights
        self.close_night = stages.close_night
        self.reopen = stages.reopen
        self.reset_stage = stages.reset_stage
        self.stages_due = stages.stages_due
        self.claim_stage = stages.claim_stage
        self.extend_stage = stages.extend_stage
        self.finish_stage = stages.finish_stage
        self.fail_stage = stages.fail_stage
        self.revoke_stages = stages.revoke_stages

    def _lift_archives(self, archives: Archives) -> None:
        self.members = archives.members
        self.request_archive = archives.request_archive
        self.claim_archive = archives.claim_archive
        self.extend_archive = archives.extend_archive
        self.commit_archive = archives.commit_archive
        self.give_back_archive = archives.give_back_archive
        self.revoke_archives = archives.revoke_archives
        self.mark_purged = archives.mark_purged
        self.find_archive = archives.find_archive
        self.archives = archives.archives
        self.archive_counts = archives.archive_counts

    def _lift_catalogue(self, catalogue: Catalogue) -> None:
        self.add_product = catalogue.add_product
        self.products = catalogue.products
        self.products_of = catalogue.products_of
        self.add_master = catalogue.add_master
        self.masters = catalogue.masters
        self.find_master = catalogue.find_master
        self.record_run = catalogue.record_run
        self.unreported = catalogue.unreported
        self.mark_reported = catalogue.mark_reported

    def _lift_remarks(self, remarks: Remarks) -> None:
        self.remark = remarks.remark

    def _lift_queries(self, queries: Queries) -> None:
        self.find = queries.find
        self.refs = queries.refs
        self.entries = queries.entries
        self.latest = queries.latest
        self.pending = queries.pending
        self.counts = queries.counts
        self.nights_seen = queries.nights_seen
        self.latencies = queries.latencies
        self.lag = queries.lag
        self.waiting_reasons = queries.waiting_reasons
        self.errors = queries.errors
        self.groups = queries.groups
        self.find_group = queries.find_group
        self.history = queries.history
        self.holders = queries.holders
        self.knows = queries.knows
