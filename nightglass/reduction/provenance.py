"""What a product says about its making: the same for the same inputs, whoever makes it, where and when."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC

from nightglass import __version__
from nightglass.image import Image
from nightglass.model import Quality, StepRecord, sanitize
from nightglass.reduction.spec import ReductionSpec, configuration_key
from nightglass.steps.step import CORRECTED

__all__ = ["history_lines", "provenance_cards", "raw_name"]

Value = str | int | float | bool


def raw_name(name: str) -> str:
    """Return the base name of a raw file with nothing but harmless characters."""
    cleaned = (sanitize(part, default="") for part in name.split("."))
    return ".".join(part for part in cleaned if part) or "unnamed"


def provenance_cards(spec: ReductionSpec, images: Sequence[Image], *, quality: Quality) -> dict[str, tuple[Value, str]]:
    """Return the cards of the primary header: what went in, which steps ran, with what settings.

    ``NGSTEPn`` names step n and its version, ``NGPARn`` holds its parameters as JSON, ``NGCALn`` the
    masters it used, ``NGNOTn`` what it noted. Steps are those of the first detector; those of the others stand in
    HISTORY.
    """
    ref = spec.ref
    cards: dict[str, tuple[Value, str]] = {
        "NIGHTGLS": (__version__, "version of Nightglass"),
        "EXPID": (ref.exposure_id, "exposure"),
        "NIGHT": (ref.night.label, "night, noon to noon, by the date of its evening"),
        "CAMERA": (ref.camera, "camera file"),
        "KIND": (ref.kind.value, "kind of exposure"),
        "DATE-BEG": (
            ref.started_at.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds"),
            "start of exposure",
        ),
        "TIMESYS": ("UTC", "scale of DATE-BEG"),
        "EXPTIME": (ref.exposure_time_s, "[s] exposure time"),
        "FILTER": (ref.filter, "filter"),
        "OBJECT": (ref.target, "target"),
        "RAWNAME": (raw_name(ref.path.name), "name of the raw file"),
        "RAWCID": (ref.content_id, "BLAKE2b-128 of the raw file"),
        "CFGHASH": (configuration_key(spec), "hash of the settings"),
        "NDETECT": (len(images), "detectors in this file"),
    }
    for master in spec.masters:
        cards[f"MST{master.kind.value.upper()}"] = (master.master_id, f"master {master.kind.value} used")
    cards["QUALITY"] = (quality.value, "verdict: ok, warning or bad")
    for kind, keyword in CORRECTED.items():
        said = [image.header[keyword] for image in images if keyword in image.header]
        if said:
            comment = f"master {kind.value} applied" if all(said) else f"no master {kind.value} was available"
            cards[keyword] = (all(said), comment)
    history = images[0].history if images else ()
    cards["NSTEPS"] = (len(history), "steps that ran")
    for number, record in enumerate(history, start=1):
        cards |= _step_cards(number, record)
    return cards


def _step_cards(number: int, record: StepRecord) -> dict[str, tuple[Value, str]]:
    cards: dict[str, tuple[Value, str]] = {f"NGSTEP{number}": (f"{record.step} {record.version}", "step and version")}
    if record.parameters:
        cards[f"NGPAR{number}"] = (json.dumps(record.parameters, sort_keys=True, separators=(",", ":")), "")
    if record.calibrations:
        cards[f"NGCAL{number}"] = (" ".join(record.calibrations), "")
    if record.note:
        cards[f"NGNOT{number}"] = (record.note, "")
    return cards


def history_lines(spec: ReductionSpec, images: Sequence[Image]) -> list[str]:
    """Return the same for people, one line a step, and what was noted for each detector."""
    lines = [f"Reduced by Nightglass {__version__}"]
    lines += [f"Calibrations: {note}" for note in spec.notes]
    for image in images:
        if len(images) > 1:
            lines.append(f"Detector {image.detector}:")
        lines += [_line(record) for record in image.history]
    return lines


def _line(record: StepRecord) -> str:
    masters = f" with {' '.join(record.calibrations)}" if record.calibrations else ""
    note = f": {record.note}" if record.note else ""
    return f"{record.step} {record.version}{masters}{note}"
