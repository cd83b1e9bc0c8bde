"""``nightglass notice test``."""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from pathlib import Path

from rich.text import Text

from deployments.cli.screen import add_row, output, table
from deployments.cli.session import open_session
from nightglass.errors import Misconfigured
from nightglass.notices import Notice, Outcome, send

__all__ = ["notice_test_command"]


def notice_test_command(*, config: Path | None, root: Path | None) -> int:
    """Send a notice over every channel, now; return 1 if one did not take it."""
    observatory = open_session(config, root).observatory
    text = (
        f"This is a test of the notices of Nightglass on {platform.node()}, sent at {datetime.now(UTC):%H:%M:%S} UTC.\n"
        "Summaries of midway and final, and alarms, will come the same way."
    )
    deliveries = send(Notice(subject="Nightglass: test", text=text, html=f"<p>{text}</p>"), observatory.notices)
    if not deliveries:
        message = "no mail, address, file or program is configured"
        raise Misconfigured(message, remedy="see [notices] of the observatory file, or NIGHTGLASS_MAIL_FROM and _TO")
    made = table("channel", "outcome", "")
    for delivery in deliveries:
        sent = delivery.outcome is Outcome.SENT
        add_row(made, delivery.channel, Text(delivery.outcome.value, "green" if sent else "red"), delivery.error)
    output().print(made)
    return 0 if all(delivery.outcome is Outcome.SENT for delivery in deliveries) else 1
