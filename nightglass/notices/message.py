"""A notice, and the mail that is made of it."""

from __future__ import annotations

import base64
import binascii
import gzip
import mimetypes
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nightglass.model import content_key

if TYPE_CHECKING:
    from datetime import datetime

__all__ = ["Notice", "mail_message", "one_line", "printable"]

_SUBJECT_LIMIT = 200
_TOTAL_LIMIT = 16 * 1024 * 1024
"""Bytes of all attachments together; mail servers refuse messages of 20 to 25 MB."""
_INLINE_IMAGE = re.compile(r'src="data:image/(png|jpeg);base64,([A-Za-z0-9+/=\s]+)"')


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """Something that people are told.

    Attributes
    ----------
    text, html : str
        The same twice; html may be empty.
    attachments : tuple of Path
        Read when the notice is sent, so that a late one carries the whole log; what is gone by then is said.
    key : str
        What it is about, as ``lynx/20260821/final``: a key is told once. Empty: told each time.
    """

    subject: str
    text: str
    html: str = ""
    attachments: tuple[Path, ...] = ()
    key: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the notice as plain JSON values."""
        return {
            "subject": self.subject,
            "text": self.text,
            "html": self.html,
            "attachments": [str(path) for path in self.attachments],
            "key": self.key,
        }

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Notice:
        """Make the notice from what `to_json` gave."""
        values = dict(record)
        values["attachments"] = tuple(Path(path) for path in record["attachments"])
        return cls(**values)


def mail_message(
    notice: Notice,
    *,
    sender: str,
    recipients: Sequence[str],
    message_id: str,
    sent_at: datetime,
    attachment_limit_kib: int,
) -> EmailMessage:
    """Return a notice as a mail: plain text, HTML beside it, attachments.

    Parameters
    ----------
    message_id : str
        Unique name of the notice: the mail that is sent again after a crash has the same one, so that
        mail programs show it once.
    sent_at : datetime
        Aware.
    attachment_limit_kib : int
        Larger attachments are compressed with gzip.
    """
    message = EmailMessage(policy=SMTP)
    message["Subject"] = one_line(notice.subject)
    message["From"] = one_line(sender)
    message["To"] = ", ".join(one_line(recipient) for recipient in recipients)
    message["Date"] = format_datetime(sent_at)
    message["Message-ID"] = f"<{content_key(message_id)}@nightglass>"
    message["Auto-Submitted"] = "auto-generated"
    parts, notes = _attachments(notice.attachments, attachment_limit_kib * 1024)
    message.set_content(printable("\n\n".join([notice.text, *notes]) + "\n"))
    if notice.html:
        _add_html(message, printable(notice.html))
    for name, content, (main, sub) in parts:
        message.add_attachment(content, maintype=main, subtype=sub, filename=name)
    return message


def one_line(text: str) -> str:
    """Return text without line breaks and control characters, so that it can't add a header, at most 200 characters."""
    cleaned = "".join(" " if unicodedata.category(char)[0] in "CZ" else char for char in text)
    return " ".join(cleaned.split())[:_SUBJECT_LIMIT]


def printable(text: str) -> str:
    """Return text with ``?`` for what UTF-8 can't carry: the bytes of a file name that was never text."""
    return text.encode(errors="replace").decode()


def _add_html(message: EmailMessage, html: str) -> None:
    """Add the HTML, its inlined pictures as parts: most mail programs show no ``data:`` addresses."""
    pictures: list[tuple[str, str, bytes]] = []

    def named(match: re.Match[str]) -> str:
        try:
            content = base64.b64decode(match[2], validate=False)
        except binascii.Error:
            return match[0]
        name = f"picture{len(pictures)}@nightglass"
        pictures.append((name, match[1], content))
        return f'src="cid:{name}"'

    message.add_alternative(_INLINE_IMAGE.sub(named, html), subtype="html")
    body = message.get_body(("html",))
    for name, subtype, content in pictures:
        body.add_related(content, maintype="image", subtype=subtype, cid=f"<{name}>")  # type: ignore[union-attr]


def _attachments(paths: Sequence[Path], limit: int) -> tuple[list[tuple[str, bytes, tuple[str, str]]], list[str]]:
    """Read the attachments; return them, and a sentence on each that is left out."""
    parts: list[tuple[str, bytes, tuple[str, str]]] = []
    notes: list[str] = []
    total = 0
    for path in paths:
        try:
            content = path.read_bytes()
        except OSError as error:
            notes.append(f"Not attached: {path} ({error.strerror or error}).")
            continue
        name, kind = one_line(path.name), mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        if path.suffix == ".log":
            kind = "text/plain"
        if len(content) > limit:
            # without a time stamp, so that the same content gives the same bytes
            content, name, kind = gzip.compress(content, mtime=0), f"{name}.gz", "application/gzip"
        if total + len(content) > _TOTAL_LIMIT:
            notes.append(f"Not attached, too large for mail: {path} ({len(content) // 1024} KiB compressed).")
            continue
        total += len(content)
        main, _, sub = kind.partition("/")
        parts.append((name, content, (main, sub)))
    return parts, notes
