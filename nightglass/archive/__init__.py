"""Exposures become cubes: each at most once, verified, recorded beside its reduction; raw frames may go afterwards."""

from nightglass.archive.built import BuiltCubes
from nightglass.archive.exposures import archive_exposure
from nightglass.archive.nights import NightArchive, archive_night, exposures_of, ready_exposures
from nightglass.archive.planning import ArchivePlan, Member, plan_archive
from nightglass.archive.purging import Purged, purge
from nightglass.archive.summaries import ArchiveOutcome, ArchiveSummary, Redo

__all__ = [
    "ArchiveOutcome",
    "ArchivePlan",
    "ArchiveSummary",
    "BuiltCubes",
    "Member",
    "NightArchive",
    "Purged",
    "Redo",
    "archive_exposure",
    "archive_night",
    "exposures_of",
    "plan_archive",
    "purge",
    "ready_exposures",
]
