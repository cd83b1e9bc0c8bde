"""``nightglass check``."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from rich.text import Text

from deployments.cli.screen import output
from deployments.cli.session import open_session
from deployments.logs import logging_to
from deployments.preflight import Verdict, preflight

__all__ = ["check_command"]

_STYLES = {Verdict.OK: ("✓", "green"), Verdict.WARN: ("!", "yellow"), Verdict.FAIL: ("✗", "bold red")}


def check_command(*, config: Path | None, root: Path | None) -> int:
    """Print each check as it is made; return 1 if one failed."""
    session, console = open_session(config, root), output()
    found: list[Verdict] = []
    # a cluster that is started to be looked at has much to say of itself
    with logging_to(logging.StreamHandler(sys.stderr), level="WARNING"), console.status("looking..."):
        for check in preflight(session.observatory):
            sign, style = _STYLES[check.verdict]
            line = Text.assemble((f"{sign} {check.verdict.value:<5}", style), f"{check.name:<15}")
            for number, part in enumerate(Text(check.detail).wrap(console, max(20, console.width - len(line)))):
                console.print((line if number == 0 else Text(" " * len(line))) + part)
            found.append(check.verdict)
    failed, warned = found.count(Verdict.FAIL), found.count(Verdict.WARN)
    style = "bold red" if failed else "yellow" if warned else "green"
    console.print(Text(f"\n{len(found)} checks: {failed} failed, {warned} with a warning", style))
    return 1 if failed else 0
