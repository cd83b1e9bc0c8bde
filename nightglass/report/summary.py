"""The summary of a night, as text and as one self-contained page, with its tables beside it."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nightglass.calibrations import requirements
from nightglass.config import Camera
from nightglass.fitsio import write_atomic
from nightglass.layout import Layout
from nightglass.ledger import Entry, Reconciliation
from nightglass.model import CALIBRATION_KINDS, Night, Product, ProductKind, Quality, Stage, State
from nightglass.report.pictures import thumbnail, trend
from nightglass.report.tables import ERROR_STATES, error_table, error_text, exposure_log

if TYPE_CHECKING:
    from nightglass.ledger import Ledger

__all__ = ["StageReport", "update_error_report", "write_reports"]

_MOST_PICTURES = 24
_MOST_ROWS = 400
_TRENDS = (("seeing", "Seeing"), ("background", "Sky background, electrons"), ("sources", "Sources"))


@dataclass(frozen=True, slots=True, kw_only=True)
class StageReport:
    """What was written, and what the notice says.

    Attributes
    ----------
    page : Path
        The HTML summary.
    attachments : tuple of Path
        Error report and table, exposure log.
    """

    subject: str
    text: str
    html: str
    page: Path
    attachments: tuple[Path, ...]


def write_reports(
    stage: Stage,
    night: Night,
    camera: Camera,
    *,
    ledger: Ledger,
    layout: Layout,
    reconciliation: Reconciliation | None = None,
) -> StageReport:
    """Write summary, error report and exposure log of a night, each file whole or not at all.

    Raises
    ------
    Retryable
        If the disk refuses.
    """
    entries = list(ledger.entries(night=night, camera=camera.name))
    facts = _facts(stage, night, camera, entries, ledger, layout, reconciliation)
    text, html = _text(facts), _page(facts)
    page = layout.report(camera.name, night, stage, ".html")
    _write(page, html)
    _write(layout.report(camera.name, night, stage, ".txt"), text)
    attachments = update_error_report(night, camera, entries=entries, layout=layout)
    log = layout.exposure_log(camera.name, night)
    _write(log, exposure_log(entries))
    for path in (page, log, *attachments):
        _record(path, f"{camera.name}/{night}/{path.name}", night, camera, ledger)
    return StageReport(subject=facts["subject"], text=text, html=html, page=page, attachments=(*attachments, log))


def update_error_report(night: Night, camera: Camera, *, entries: Sequence[Entry], layout: Layout) -> tuple[Path, Path]:
    """Write the cumulative error report as text by cause and as a table."""
    text, table = layout.errors(camera.name, night, ".txt"), layout.errors(camera.name, night, ".csv")
    _write(text, error_text(entries))
    _write(table, error_table(entries))
    return text, table


def _write(path: Path, content: str) -> None:
    with write_atomic(path) as part:
        part.write_text(content, encoding="utf-8")


def _record(path: Path, key: str, night: Night, camera: Camera, ledger: Ledger) -> None:
    from nightglass.fitsio import content_id

    product = Product(kind=ProductKind.REPORT, key=key, path=path, checksum=content_id(path), size=path.stat().st_size)
    ledger.add_product(product, night=night, camera=camera.name)


def _facts(
    stage: Stage,
    night: Night,
    camera: Camera,
    entries: Sequence[Entry],
    ledger: Ledger,
    layout: Layout,
    reconciliation: Reconciliation | None,
) -> dict[str, Any]:
    states = Counter(entry.state for entry in entries)
    reduced = [entry for entry in entries if entry.state is State.REDUCED]
    science = [entry for entry in reduced if entry.kind not in CALIBRATION_KINDS]
    latencies = [entry.latency_s for entry in reduced if entry.latency_s is not None]
    return {
        "subject": f"{camera.name} {night}: {stage.value}, {states[State.REDUCED]} of {len(entries)} exposures reduced",
        "stage": stage.value,
        "night": f"{night.date:%-d %B %Y}",
        "label": night.label,
        "camera": camera.name,
        "description": camera.description,
        "counts": [(state.value, states[state]) for state in State if states[state]],
        "kinds": sorted(Counter(entry.kind.value for entry in reduced if entry.kind).items()),
        "quality": sorted(Counter(entry.quality.value for entry in science if entry.quality).items()),
        "latency": _percentiles(latencies),
        "masters": requirements(night, camera, ledger),
        "trends": _trends(science),
        "waiting": sorted(ledger.waiting_reasons(night, camera.name).items()),
        "errors": _errors(entries),
        "differences": [str(item) for item in reconciliation.differences] if reconciliation else None,
        "pictures": _pictures(science, ledger),
        "rows": [_row(entry) for entry in entries[:_MOST_ROWS]],
        "left_out": max(0, len(entries) - _MOST_ROWS),
        "archive": _archive(night, camera, ledger),
        "place": str(layout.night(camera.name, night)),
    }


def _archive(night: Night, camera: Camera, ledger: Ledger) -> str:
    """Return how many exposures are archived, and how many fail to be; empty where nothing is."""
    parts = []
    for built, what in ((False, ""), (True, " by image builders")):
        counts = ledger.archive_counts(night, camera.name, built=built)
        parts += [f"{count} {state.value}{what}" for state, count in counts.items() if count]
    return ", ".join(parts)


def _percentiles(values: Sequence[float]) -> tuple[float, float] | None:
    if not values:
        return None
    ordered = sorted(values)
    return statistics.median(ordered), ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]


def _trends(science: Sequence[Entry]) -> list[tuple[str, str, str]]:
    found = []
    for name, title in _TRENDS:
        points = [
            (entry.ref.started_at.timestamp(), float(entry.measured[name]))
            for entry in science
            if entry.ref is not None and _is_number(entry.measured.get(name))
        ]
        picture = trend([time for time, _ in points], [value for _, value in points])
        if picture:
            values = [value for _, value in points]
            title += f", {_seeing_unit(science)}" if name == "seeing" else ""
            span = f"{min(values):.4g} to {max(values):.4g}, median {statistics.median(values):.4g}"
            found.append((title, span, picture))
    return found


def _seeing_unit(science: Sequence[Entry]) -> str:
    """Return the unit of the seeing: pixels where the camera's scale is not known."""
    known = any(entry.measured.get("seeing") != entry.measured.get("fwhm_pixels") for entry in science)
    return "arcseconds" if known else "pixels"


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and value == value  # not NaN


def _errors(entries: Sequence[Entry]) -> list[tuple[str, int, str]]:
    causes: dict[str, list[Entry]] = {}
    for entry in entries:
        if entry.state in ERROR_STATES or entry.cause:
            causes.setdefault(entry.cause or entry.state.value, []).append(entry)
    ordered = sorted(causes.items(), key=lambda item: (-len(item[1]), item[0]))
    return [(cause, len(members), members[0].reason) for cause, members in ordered]


def _pictures(science: Sequence[Entry], ledger: Ledger) -> list[tuple[str, str, str]]:
    pictures = []
    for entry in science[-_MOST_PICTURES:]:
        for product in ledger.products_of(entry.exposure_id):
            if product.kind is ProductKind.QUICKLOOK:
                uri = thumbnail(product.path)
                if uri:
                    pictures.append((entry.exposure_id.rsplit("/", 1)[-1], _verdict(entry), uri))
    return pictures


def _verdict(entry: Entry) -> str:
    return entry.quality.value if entry.quality else Quality.OK.value


def _row(entry: Entry) -> dict[str, str]:
    ref = entry.ref
    return {
        "exposure": (entry.exposure_id or entry.path.name).rsplit("/", 1)[-1],
        "time": f"{ref.started_at:%H:%M:%S}" if ref else "",
        "kind": entry.kind.value if entry.kind else "",
        "target": ref.target if ref else "",
        "filter": ref.filter if ref else "",
        "seconds": f"{ref.exposure_time_s:g}" if ref else "",
        "state": entry.state.value,
        "quality": _verdict(entry) if entry.quality else "",
        "seeing": _short(entry.measured.get("seeing")),
        "background": _short(entry.measured.get("background")),
        "sources": _short(entry.measured.get("sources")),
        "reason": entry.reason,
    }


def _short(value: object) -> str:
    return (
        f"{value:.3g}"
        if isinstance(value, float) and _is_number(value)
        else str(value)
        if isinstance(value, int)
        else ""
    )


def _page(facts: dict[str, Any]) -> str:
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    source = (resources.files("nightglass.report") / "summary.html.j2").read_text("utf-8")
    return environment.from_string(source).render(**facts)


def _text(facts: dict[str, Any]) -> str:
    lines = [facts["subject"], "", "Exposures: " + ", ".join(f"{count} {state}" for state, count in facts["counts"])]
    if facts["latency"]:
        lines.append("Seen to reduced: median {:.1f} s, 95 % within {:.1f} s".format(*facts["latency"]))
    if facts["quality"]:
        lines.append("Quality of science: " + ", ".join(f"{count} {verdict}" for verdict, count in facts["quality"]))
    if facts["archive"]:
        lines.append("Archive: " + facts["archive"])
    lines.append("")
    for need in facts["masters"]:
        state = (
            "still required" if need.master is None else ("tonight's" if need.tonight else f"of {need.master.night}")
        )
        lines.append(f"Master {need.kind.value} ({need.what}): {state}, for {need.exposures} exposures")
    lines += [f"Waiting: {reason} ({count})" for reason, count in facts["waiting"]]
    lines += [f"{cause}: {count}, for example: {reason}" for cause, count, reason in facts["errors"]]
    if facts["differences"] is not None:
        lines.append("")
        lines.append("Ledger, directory and products agree." if not facts["differences"] else "Differences:")
        lines += [f"  {item}" for item in facts["differences"]]
    lines += ["", f"Products: {facts['place']}", ""]
    return "\n".join(lines)
