"""Whether a notice would get out, asked without sending one."""

from __future__ import annotations

import os
import shutil
import smtplib
from pathlib import Path

from nightglass.config import Notices
from nightglass.errors import NightglassError
from nightglass.notices.channels import channels, mail_session

__all__ = ["probe"]


def probe(config: Notices) -> dict[str, str]:
    """Return each configured channel with what speaks against it; empty: nothing does.

    A mail server is greeted, TLS and log-in included; a file and a program are looked for. Chat services are not
    asked, because they know no question that is no message.

    Raises
    ------
    Misconfigured
        If an address of the configuration has no meaning.
    """
    return {channel.name: _problem(channel.name, config) for channel in channels(config)}


def _problem(name: str, config: Notices) -> str:
    if name == "mail":
        try:
            with mail_session(config.smtp) as session:
                session.noop()
        except (OSError, smtplib.SMTPException, NightglassError) as error:
            return f"{config.smtp.host}:{config.smtp.port}: {error}"
    if name.startswith("file ") and config.file is not None:
        place = next(path for path in (config.file, *config.file.absolute().parents) if path.exists())
        return "" if os.access(place, os.W_OK) and not config.file.is_dir() else f"{place} can't be written"
    if name.startswith("command "):
        return "" if shutil.which(config.command[0]) else f"there is no program {Path(config.command[0])}"
    return ""
