"""The tables of a night: the exposure log and the errors by cause."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

from nightglass.ledger import Entry
from nightglass.model import State

__all__ = ["ERROR_STATES", "error_table", "error_text", "exposure_log"]

ERROR_STATES = (State.REJECTED, State.FAILED, State.WAITING, State.SKIPPED)
_COLUMNS = (
    *(
        "exposure",
        "kind",
        "target",
        "filter",
        "exposure_time_s",
        "started_at",
        "state",
        "quality",
        "seeing",
        "background",
    ),
    *("noise", "sources", "latency_s", "revision", "group", "masters", "reason", "file"),
)
_MEASURED = ("seeing", "background", "noise", "sources")


def exposure_log(entries: Iterable[Entry]) -> str:
    """Return one row an exposure, in order of arrival, as CSV."""
    rows = (_log_row(entry) for entry in entries)
    return _csv(_COLUMNS, rows)


def _log_row(entry: Entry) -> list[object]:
    ref = entry.ref
    return [
        entry.exposure_id or entry.path.name,
        entry.kind.value if entry.kind else "",
        ref.target if ref else "",
        ref.filter if ref else "",
        f"{ref.exposure_time_s:g}" if ref else "",
        ref.started_at.isoformat() if ref else "",
        entry.state.value,
        entry.quality.value if entry.quality else "",
        *(_number(entry.measured.get(name)) for name in _MEASURED),
        _number(entry.latency_s),
        entry.revision,
        entry.group_id,
        " ".join(entry.masters),
        entry.reason,
        str(entry.path),
    ]


def error_table(entries: Sequence[Entry]) -> str:
    """Return one row an exposure that was not reduced, or that a later judgement struck, as CSV."""
    rows = (
        [entry.exposure_id, entry.cause, entry.state.value, entry.reason, str(entry.path)] for entry in _wrong(entries)
    )
    return _csv(("exposure", "cause", "state", "reason", "file"), rows)


def error_text(entries: Sequence[Entry]) -> str:
    """Return the errors of a night by cause, the most frequent first."""
    by_cause: dict[tuple[str, str], list[Entry]] = {}
    for entry in _wrong(entries):
        by_cause.setdefault((entry.cause or entry.state.value, entry.state.value), []).append(entry)
    if not by_cause:
        return "No errors.\n"
    lines = []
    for (cause, state), members in sorted(by_cause.items(), key=lambda item: (-len(item[1]), item[0])):
        lines.append(f"{cause}: {len(members)} {state}")
        lines += [f"    {entry.exposure_id or entry.path.name}: {entry.reason}" for entry in members]
        lines.append("")
    return "\n".join(lines)


def _wrong(entries: Sequence[Entry]) -> list[Entry]:
    return [entry for entry in entries if entry.state in ERROR_STATES or (entry.state is State.REDUCED and entry.cause)]


def _csv(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return buffer.getvalue()


def _number(value: object) -> str:
    return f"{value:.5g}" if isinstance(value, (int, float)) else ""
