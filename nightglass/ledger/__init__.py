"""The ledger: nothing lost, nothing twice."""

from nightglass.ledger.archive_records import ArchivedFile, ArchiveLease, ArchiveRecord, ArchiveState
from nightglass.ledger.ledger import Ledger
from nightglass.ledger.records import (
    FINAL_STATES,
    Difference,
    DifferenceKind,
    Entry,
    ErrorSummary,
    Event,
    GroupRecord,
    Lease,
    NightRecord,
    Reconciliation,
    RunRecord,
    StageLease,
    StageRecord,
    StageState,
)

__all__ = [
    "FINAL_STATES",
    "ArchiveLease",
    "ArchiveRecord",
    "ArchiveState",
    "ArchivedFile",
    "Difference",
    "DifferenceKind",
    "Entry",
    "ErrorSummary",
    "Event",
    "GroupRecord",
    "Lease",
    "Ledger",
    "NightRecord",
    "Reconciliation",
    "RunRecord",
    "StageLease",
    "StageRecord",
    "StageState",
]
