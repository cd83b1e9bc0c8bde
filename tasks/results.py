"""Where results of runs would go, if there were any."""

from __future__ import annotations

from pathlib import Path

from prefect.settings import get_current_settings

__all__ = ["NOWHERE"]

NOWHERE: Path = get_current_settings().results.local_storage_path
"""For flows that keep no result.

Prefect's own default, named here because a flow that names none asks the server for one at the start of each run: a
synchronous call, which holds up the other runs of the process.
"""
