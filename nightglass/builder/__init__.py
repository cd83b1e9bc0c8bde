"""The image builder: exposures under construction, collected, built, written, sent and archived."""

from __future__ import annotations

from nightglass.builder.client import Client

__all__ = ["Client"]
