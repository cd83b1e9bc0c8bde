"""Raw frames go only when their cube is archived, verified and whole, and only if the site says so."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from nightglass.archive import Purged, purge
from nightglass.errors import Rejected
from nightglass.ledger import DifferenceKind
from tests.unit.archive.material import NIGHT, Site

DAY_S = 86400.0


def purged(site: Site, rules: dict[str, Any], *, later_s: float = 0.0, free: int = 10**15) -> Purged:
    site.settings = {"purge": rules}
    return purge(
        ledger=site.ledger,
        observatory=site.observatory,
        camera="lynx",
        now=site.clock.now + later_s,
        free_space=lambda _: free,
    )


def archived(site: Site, *numbers: str) -> list[Path]:
    """Bring exposures through reduction and archive; return their raw files."""
    entries = [site.add(f"{number}.fits", f"frame {number}", number=number) for number in numbers]
    for entry in entries:
        site.reduce(entry)
    site.archive_all()
    return [entry.path for entry in entries]


def left(paths: list[Path]) -> list[str]:
    return [path.stem for path in paths if path.exists()]


def test_nothing_goes_unless_asked_for(site: Site) -> None:
    paths = archived(site, "1", "2")
    assert purged(site, {}, later_s=1000 * DAY_S) == Purged()
    assert left(paths) == ["1", "2"]


def test_by_age(site: Site) -> None:
    paths = archived(site, "1")
    assert purged(site, {"age_days": 30}, later_s=29 * DAY_S).files == 0
    assert purged(site, {"age_days": 30}, later_s=31 * DAY_S) == Purged(
        exposures=(f"lynx/{NIGHT}/1",), files=1, freed=7
    )
    assert left(paths) == []
    record = site.ledger.find_archive(f"lynx/{NIGHT}/1")
    assert record is not None
    assert record.purged_at == site.clock.now + 31 * DAY_S


def test_by_count_the_latest_stay(site: Site) -> None:
    paths = archived(site, "9", "10", "11")
    assert purged(site, {"keep_count": 2}).files == 1
    assert left(paths) == ["10", "11"]


def test_by_free_space_the_earliest_go_until_there_is_enough(site: Site) -> None:
    paths = archived(site, "1", "2")
    assert purged(site, {"free_gib": 1}).files == 0
    assert purged(site, {"free_gib": 1}, free=10).files == 2
    assert left(paths) == []


@pytest.mark.parametrize(
    "harm", ["open night", "not verified", "cube gone", "cube changed", "frame changed", "redone", "left out"]
)
def test_what_is_not_safe_stays(site: Site, harm: str) -> None:
    (path,) = archived(site, "1")
    match harm:
        case "open night":
            due = datetime.now(UTC) + timedelta(hours=1)
            site.ledger.open_night(NIGHT, "lynx", midway_due=due, final_due=due)
        case "not verified":
            with site.ledger._store.write() as transaction:
                transaction.connection.exec_driver_sql("UPDATE ng_archives SET verified_at = NULL")
        case "cube gone":
            site.cube("1").unlink()
        case "cube changed":
            site.cube("1").write_text("emarf 1")
        case "frame changed":
            path.write_text("FRAME 1")
        case "redone":
            site.ledger.retry([f"lynx/{NIGHT}/1"])
        case "left out":
            with site.ledger._store.write() as transaction:
                sql = 'UPDATE ng_archives SET files = replace(files, \'"problem":""\', \'"problem":"cut"\')'
                transaction.connection.exec_driver_sql(sql)
    assert purged(site, {"age_days": 0}, later_s=DAY_S).files == 0
    assert path.exists()


def test_a_revision_that_is_not_archived_stays(site: Site) -> None:
    (path,) = archived(site, "1")
    entry = site.add("1.fits", "replaced by another", number="1")
    site.ledger.reject(entry.key, Rejected("bad"))
    assert purged(site, {"age_days": 0}, later_s=DAY_S).files == 0
    assert path.exists()


def test_reconciliation_knows_what_was_purged(site: Site) -> None:
    paths = archived(site, "1", "2")
    purged(site, {"keep_count": 1})
    paths[1].unlink()
    found = site.ledger.reconcile(NIGHT, "lynx", files=[])
    gone = [item.subject for item in found.differences if item.kind is DifferenceKind.GONE]
    assert gone == [f"lynx/{NIGHT}/2"]
