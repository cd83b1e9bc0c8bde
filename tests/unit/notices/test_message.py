"""What a mail looks like, and what must not get into its headers."""

from __future__ import annotations

import base64
import gzip
from datetime import UTC, datetime
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from nightglass.notices import Notice, mail_message

PNG = base64.b64encode(b"\x89PNG not really").decode()


def made(notice: Notice, *, limit_kib: int = 64) -> EmailMessage:
    message = mail_message(
        notice,
        sender="night@example.org",
        recipients=["a@example.org"],
        message_id="lynx/20260821/final",
        sent_at=datetime(2026, 8, 22, tzinfo=UTC),
        attachment_limit_kib=limit_kib,
    )
    parsed = message_from_bytes(message.as_bytes(), policy=default)
    assert isinstance(parsed, EmailMessage)
    return parsed


def test_text_and_html_are_alternatives_and_pictures_are_parts() -> None:
    html = f'<p>done</p><img src="data:image/png;base64,{PNG}">'
    message = made(Notice(subject="lynx: summary", text="done", html=html))
    plain, rich = message.get_body(("plain",)), message.get_body(("html",))
    assert plain is not None
    assert rich is not None
    assert plain.get_content().strip() == "done"
    assert "data:" not in rich.get_content()
    pictures = [part for part in message.walk() if part.get_content_maintype() == "image"]
    assert [part.get_content() for part in pictures] == [b"\x89PNG not really"]
    assert f'src="cid:{pictures[0]["Content-ID"].strip("<>")}"' in rich.get_content()


def test_large_attachments_are_compressed_small_ones_are_not(tmp_path: Path) -> None:
    log, table = tmp_path / "20260821.log", tmp_path / "errors.csv"
    log.write_text("all is well\n" * 100_000)
    table.write_text("cause,count\n")
    gone = tmp_path / "gone.csv"
    message = made(Notice(subject="s", text="t", attachments=(log, table, gone)))
    parts = {part.get_filename(): part for part in message.iter_attachments()}
    assert set(parts) == {"20260821.log.gz", "errors.csv"}
    packed = parts["20260821.log.gz"]
    assert packed.get_content_type() == "application/gzip"
    assert gzip.decompress(packed.get_content()) == log.read_bytes()
    assert parts["errors.csv"].get_content_type() == "text/csv"
    body = message.get_body(("plain",))
    assert body is not None
    assert f"Not attached: {gone}" in body.get_content()


@given(st.text(max_size=300))
def test_no_subject_adds_a_header_or_breaks_the_mail(subject: str) -> None:
    message = made(Notice(subject=f"{subject}\r\nBcc: thief@example.org\n\nbody", text=f"{subject}\udcff"))
    assert message["Bcc"] is None
    assert message["To"] == "a@example.org"
    assert "\n" not in message["Subject"]


def test_the_same_notice_has_the_same_message_id() -> None:
    first, second = (made(Notice(subject=text, text=text))["Message-ID"] for text in ("x", "y"))
    assert first == second
