"""The ways in which a notice leaves: SMTP, Apprise, a file, a program. Each raises if it did not."""

from __future__ import annotations

import ipaddress
import logging
import os
import smtplib
import socket
import ssl
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from nightglass.config import Notices, Smtp
from nightglass.errors import Misconfigured, Retryable
from nightglass.model import content_key
from nightglass.notices.message import Notice, mail_message, one_line, printable

__all__ = ["Channel", "Refused", "channels", "mail_session"]

log = logging.getLogger(__name__)

_COMMAND_S = 60.0
_CHAT_LIMIT = 4000
"""Characters of a text that chat services get; the mail and the report have the whole."""


class Refused(Retryable):
    """A mail server took the mail for some recipients and refused it for others.

    Attributes
    ----------
    recipients : tuple of str
        Those who may be tried again.
    """

    def __init__(self, message: str, *, remedy: str = "", recipients: Sequence[str] = ()) -> None:
        super().__init__(message, remedy=remedy)
        self.recipients = tuple(recipients)


@dataclass(frozen=True, slots=True)
class Channel:
    """One way out.

    Attributes
    ----------
    name : str
        Stable, and without secrets.
    deliver : callable
        Takes the notice, its message id and the recipients (mail only); raises `NightglassError`.
    recipients : tuple of str
        Of a mail.
    """

    name: str
    deliver: Callable[[Notice, str, Sequence[str]], None]
    recipients: tuple[str, ...] = ()


def channels(config: Notices) -> tuple[Channel, ...]:
    """Return the channels that are configured.

    Raises
    ------
    Misconfigured
        If an address has no meaning, before anything is sent.
    """
    found: list[Channel] = []
    if config.mail_from:
        for address in (config.mail_from, *config.mail_to):
            _check_address(address)
        found.append(Channel("mail", _Mail(config), config.mail_to))
    for url in config.urls:
        found.append(_apprise(url.get_secret_value()))
    if config.file is not None:
        found.append(Channel(f"file {config.file}", _File(config.file)))
    if config.command:
        found.append(Channel(f"command {Path(config.command[0]).name}", _Command(config.command)))
    return tuple(found)


def _check_address(address: str) -> None:
    _, at, domain = address.rpartition("@")
    if not at or not domain or address != one_line(address) or "," in address:
        message = f"{address!r} is no mail address"
        raise Misconfigured(message, remedy="write each address as name@host")


@dataclass(frozen=True, slots=True)
class _Mail:
    config: Notices

    def __call__(self, notice: Notice, message_id: str, recipients: Sequence[str]) -> None:
        smtp = self.config.smtp
        message = mail_message(
            notice,
            sender=self.config.mail_from,
            recipients=self.config.mail_to,
            message_id=message_id,
            sent_at=datetime.now(UTC),
            attachment_limit_kib=self.config.attachment_limit_kib,
        )
        peer = f"mail server {smtp.host}:{smtp.port}"
        try:
            with mail_session(smtp) as session:
                refused = session.send_message(message, self.config.mail_from, list(recipients))
        except smtplib.SMTPRecipientsRefused as error:
            refused = error.recipients
        except smtplib.SMTPNotSupportedError as error:
            text = f"{peer} does not offer what is asked of it: {error}"
            raise Retryable(text, remedy="set notices.smtp.security, or leave the password out") from error
        except ssl.SSLError as error:
            text = f"{peer}: {error.reason or error}"
            raise Retryable(text, remedy="for a private authority set SSL_CERT_FILE to its certificate") from error
        except (OSError, smtplib.SMTPException) as error:
            text = f"{peer}: {type(error).__name__}: {error}"
            raise Retryable(text) from error
        if refused:
            reasons = "; ".join(f"{who}: {code} {_decoded(why)}" for who, (code, why) in sorted(refused.items()))
            text = f"{peer} refused {reasons}"
            raise Refused(text, recipients=sorted(refused))


def mail_session(smtp: Smtp) -> smtplib.SMTP:
    """Open a session with a mail server, TLS and log-in included; the caller closes it.

    Raises
    ------
    Misconfigured
        If the password would go over the network in the clear.
    OSError, smtplib.SMTPException
        As the server or the network say.
    """
    password = smtp.password.get_secret_value()
    if password and smtp.security == "none" and not _is_loopback(smtp.host):
        message = f"the password for {smtp.host} is not sent in the clear"
        raise Misconfigured(message, remedy="set notices.smtp.security to starttls or tls")
    context = ssl.create_default_context()
    if smtp.security == "tls":
        session: smtplib.SMTP = smtplib.SMTP_SSL(smtp.host, smtp.port, timeout=smtp.timeout_s, context=context)
    else:
        session = smtplib.SMTP(smtp.host, smtp.port, timeout=smtp.timeout_s)
    try:
        if smtp.security == "starttls":
            session.starttls(context=context)
        if smtp.user:
            session.login(smtp.user, password)
    except BaseException:
        session.close()
        raise
    return session


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(socket.gethostbyname(host)).is_loopback
    except OSError:
        return False


def _decoded(text: bytes | str) -> str:
    return one_line(text.decode(errors="replace") if isinstance(text, bytes) else text)


def _apprise(url: str) -> Channel:
    from apprise import Apprise, NotifyFormat

    service = Apprise()
    scheme = url.partition("://")[0]
    if not service.add(url):
        message = f"notices.urls: an address that begins with {scheme}:// has no meaning for Apprise"
        raise Misconfigured(message, remedy="see the services that Apprise knows, and how their addresses are written")
    name = f"{scheme} {content_key(url)[:6]}"

    def deliver(notice: Notice, message_id: str, recipients: Sequence[str]) -> None:
        del message_id, recipients
        body = printable(notice.text[:_CHAT_LIMIT])
        if not service.notify(body=body, title=one_line(notice.subject), body_format=NotifyFormat.TEXT):
            text = f"the {scheme}:// service did not take the notice"
            raise Retryable(text, remedy="the log has what Apprise says about it")

    return Channel(name, deliver)


@dataclass(frozen=True, slots=True)
class _File:
    path: Path

    def __call__(self, notice: Notice, message_id: str, recipients: Sequence[str]) -> None:
        del message_id, recipients
        stamp = datetime.now(UTC).isoformat(timespec="seconds")
        attached = "".join(f"\n  attached: {path}" for path in notice.attachments)
        text = f"== {stamp} {one_line(notice.subject)}\n{notice.text.rstrip()}{attached}\n\n"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(printable(text))
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            message = f"the notice could not be appended to {self.path}: {error}"
            raise Retryable(message) from error


@dataclass(frozen=True, slots=True)
class _Command:
    command: tuple[str, ...]

    def __call__(self, notice: Notice, message_id: str, recipients: Sequence[str]) -> None:
        del message_id, recipients
        environment = {**os.environ, "NIGHTGLASS_SUBJECT": one_line(notice.subject)}
        environment.pop("NIGHTGLASS_SMTP_PASSWORD", None)
        try:
            done = subprocess.run(
                list(self.command),
                input=printable(notice.text),
                text=True,
                capture_output=True,
                timeout=_COMMAND_S,
                check=False,
                env=environment,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            message = f"the program {self.command[0]} did not take the notice: {error}"
            raise Retryable(message) from error
        if done.returncode:
            message = f"the program {self.command[0]} ended with {done.returncode}: {one_line(done.stderr)}"
            raise Retryable(message)
