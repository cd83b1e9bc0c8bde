"""What a run leaves in the Prefect UI: tables, quick looks, progress."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from prefect.artifacts import acreate_image_artifact, acreate_markdown_artifact, acreate_table_artifact

from nightglass.ledger import Entry
from nightglass.model import Night, sanitize

__all__ = ["artifact_key", "data_uri", "exposure_rows", "show_quicklook", "show_summary", "show_table"]

_LARGEST_PICTURE = 2 * 1024 * 1024
"""Bytes: an artifact is a row of the server's database, and is sent whole to whoever looks at the run."""


def artifact_key(*parts: object) -> str:
    """Return a key as Prefect wants it: lower case, digits and dashes; one key is one series in the UI."""
    return sanitize("-".join(str(part) for part in parts)).lower().replace("_", "-").replace("+", "-")


def exposure_rows(entries: Iterable[Entry]) -> list[dict[str, Any]]:
    """Return one table row for each exposure."""
    return [
        {
            "exposure": entry.exposure_id or str(entry.path),
            "kind": entry.kind.value if entry.kind else "",
            "state": entry.state.value,
            "quality": entry.quality.value if entry.quality else "",
            "latency_s": round(entry.latency_s, 2) if entry.latency_s is not None else "",
            "reason": entry.reason,
        }
        for entry in entries
    ]


async def show_table(rows: Sequence[Mapping[str, Any]], *, key: str, description: str) -> None:
    """Leave a table with the run; no table where there are no rows."""
    if rows:
        await acreate_table_artifact([dict(row) for row in rows], key=key, description=description)


async def show_quicklook(picture: Path, *, night: Night, name: str) -> None:
    """Leave the quick look of an exposure with the run, if there is one of a reasonable size."""
    uri = await asyncio.to_thread(data_uri, picture)
    if uri:
        await acreate_image_artifact(image_url=uri, key=artifact_key("quicklook", night, name), description=name)


async def show_summary(title: str, facts: Mapping[str, Any], pictures: Mapping[str, Path], *, key: str) -> None:
    """Leave a page with the run: what a stage did, and quick looks of what it made."""
    lines = [f"# {title}", "", "| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in facts.items()), ""]
    for name, path in pictures.items():
        uri = await asyncio.to_thread(data_uri, path)
        if uri:
            lines += [f"### {name}", f"![{name}]({uri})", ""]
    await acreate_markdown_artifact("\n".join(lines), key=key, description=title)


def data_uri(picture: Path) -> str:
    """Return a PNG as a data URI, so that the browser needs no access to the file; empty if there is none."""
    try:
        if picture.stat().st_size > _LARGEST_PICTURE:
            return ""
        content = picture.read_bytes()
    except FileNotFoundError:
        return ""
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"
