"""Small pictures that fit into a mail."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path

__all__ = ["thumbnail", "trend"]

_SIDE = 240
_WIDTH, _HEIGHT, _MARGIN = 1040, 110, 8


def thumbnail(path: Path) -> str:
    """Return a picture as a small JPEG in a data URI; empty if it cannot be read."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            small = picture.convert("L")
            small.thumbnail((_SIDE, _SIDE))
    except (OSError, UnidentifiedImageError):
        return ""
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def trend(times: Sequence[float], values: Sequence[float]) -> str:
    """Return points over time as an SVG, scaled to fill it; empty for fewer than two points."""
    if len(values) < 2:
        return ""
    start, end = min(times), max(times)
    low, high = min(values), max(values)
    points = [
        (
            _MARGIN + (time - start) / ((end - start) or 1.0) * (_WIDTH - 2 * _MARGIN),
            _HEIGHT - _MARGIN - (value - low) / ((high - low) or 1.0) * (_HEIGHT - 2 * _MARGIN),
        )
        for time, value in sorted(zip(times, values, strict=True))
    ]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.4"/>' for x, y in points)
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img"><polyline points="{line}" fill="none" '
        f'stroke="currentColor" stroke-width="1" opacity=".45"/><g fill="currentColor">{dots}</g></svg>'
    )
