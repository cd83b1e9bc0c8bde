"""The lines between the watch and its runner: one JSON object each, ``kind`` and what belongs to it.

To the runner: ``job`` (a `Job`), ``cancel`` (job_id), ``ping`` (number), ``close``.
From it: ``ready`` (pid), ``report`` (a `JobReport`), ``pong`` (number), ``trouble`` (text).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from nightglass.errors import Misconfigured

__all__ = ["Line", "decode", "encode"]


@dataclass(frozen=True, slots=True)
class Line:
    """One decoded line."""

    kind: str
    content: dict[str, Any] = field(default_factory=dict)


def encode(kind: str, content: dict[str, Any] | None = None) -> str:
    """Return one line, with its end."""
    # ASCII, so that no character of a file name can be taken for the end of the line
    return json.dumps({"kind": kind, "content": content or {}}, ensure_ascii=True, separators=(",", ":")) + "\n"


def decode(text: str) -> Line:
    """Read what `encode` wrote.

    Raises
    ------
    Misconfigured
        If the line is of another form: something else wrote into the pipe.
    """
    try:
        record = json.loads(text)
        return Line(str(record["kind"]), dict(record["content"]))
    except (ValueError, KeyError, TypeError) as error:
        message = f"a line between watch and runner is not understood: {text[:200]!r}"
        raise Misconfigured(message, remedy="watch and runner must be of one version") from error
