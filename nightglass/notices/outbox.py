"""The outbox: a notice stays on disk until every channel took it or gave up, and a key is told once."""

from __future__ import annotations

import contextlib
import enum
import fcntl
import json
import logging
import os
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from nightglass.config import Notices
from nightglass.errors import NightglassError
from nightglass.model import content_key
from nightglass.notices.channels import Channel, Refused, channels
from nightglass.notices.message import Notice

__all__ = ["Delivery", "Outbox", "Outcome", "send"]

log = logging.getLogger(__name__)

_KEPT = 1000
"""Told notices whose keys are remembered; a night has a handful."""


class Outcome(enum.StrEnum):
    """How a delivery stands."""

    PENDING = "pending"
    SENT = "sent"
    FAILED = "failed"
    """Every attempt was refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One notice over one channel.

    Attributes
    ----------
    recipients : tuple of str
        Of a mail: those who have not got it yet.
    due_at : float
        Epoch seconds of the next attempt.
    error : str
        Why the last attempt failed.
    """

    channel: str
    subject: str = ""
    outcome: Outcome = Outcome.PENDING
    recipients: tuple[str, ...] = ()
    attempts: int = 0
    due_at: float = 0.0
    error: str = ""


@dataclass(slots=True)
class _Record:
    """One file of the outbox."""

    name: str
    notice: Notice
    deliveries: list[Delivery] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return {"notice": self.notice.to_json(), "deliveries": [asdict(item) for item in self.deliveries]}

    @classmethod
    def load(cls, path: Path) -> _Record:
        values = json.loads(path.read_text())
        deliveries = [
            Delivery(**{**item, "outcome": Outcome(item["outcome"]), "recipients": tuple(item["recipients"])})
            for item in values["deliveries"]
        ]
        return cls(path.stem, Notice.from_json(values["notice"]), deliveries)


class Outbox:
    """Notices that wait, as ``*.json`` in a directory; safe between processes.

    Parameters
    ----------
    directory : Path
        ``<root>/run/outbox``; made when it is needed.
    config : Notices
        Who is told, and how often it is tried.

    Raises
    ------
    Misconfigured
        If an address of the configuration has no meaning.
    """

    def __init__(self, directory: Path, config: Notices) -> None:
        self._directory = directory
        self._told = directory / "told"
        self._config = config
        self._channels = {channel.name: channel for channel in channels(config)}

    def put(self, notice: Notice) -> None:
        """Keep a notice for the next `drain`; one whose key is there already, or was told, is dropped."""
        if not self._channels:
            return
        name = content_key(notice.key) if notice.key else uuid.uuid4().hex
        with self._locked():
            if (self._directory / f"{name}.json").exists() or (self._told / f"{name}.json").exists():
                return
            deliveries = [
                Delivery(channel=channel.name, subject=notice.subject, recipients=channel.recipients)
                for channel in self._channels.values()
            ]
            self._write(_Record(name, notice, deliveries))

    def drain(self, now: float) -> tuple[Delivery, ...]:
        """Try every delivery that is due, once; may block for as long as a mail server does.

        Parameters
        ----------
        now : float
            Epoch seconds.

        Returns
        -------
        tuple of Delivery
            Those that were tried. Empty while another process drains.
        """
        if not self._channels or not self._directory.is_dir():
            return ()
        tried: list[Delivery] = []
        with contextlib.suppress(BlockingIOError), self._locked("drain", fcntl.LOCK_EX | fcntl.LOCK_NB):
            for path in sorted(self._directory.glob("*.json"), key=_age):
                tried += self._drain_one(path, now)
        return tuple(tried)

    def pending(self) -> tuple[Delivery, ...]:
        """Return the deliveries that were not made yet."""
        found: list[Delivery] = []
        for path in sorted(self._directory.glob("*.json")):
            with contextlib.suppress(FileNotFoundError):  # told just now
                found += [item for item in _Record.load(path).deliveries if item.outcome is Outcome.PENDING]
        return tuple(found)

    def _drain_one(self, path: Path, now: float) -> list[Delivery]:
        try:
            record = _Record.load(path)
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("the notice %s can't be read and is put aside: %s", path, error)
            path.replace(path.with_suffix(".unreadable"))
            return []
        tried: list[Delivery] = []
        for index, delivery in enumerate(record.deliveries):
            if delivery.outcome is not Outcome.PENDING or delivery.due_at > now:
                continue
            channel = self._channels.get(delivery.channel)
            if channel is None:
                done = replace(delivery, outcome=Outcome.FAILED, error="the channel is no longer configured")
            else:
                done = _attempt(channel, record, delivery, self._config, now)
            record.deliveries[index] = done
            tried.append(done)
            self._write(record)  # after each: a crash must not repeat what was sent
        if all(delivery.outcome is not Outcome.PENDING for delivery in record.deliveries):
            self._told.mkdir(exist_ok=True)
            path.replace(self._told / path.name)
            self._prune()
        return tried

    def _prune(self) -> None:
        told = sorted(self._told.glob("*.json"), key=_age)
        for path in told[:-_KEPT]:
            path.unlink(missing_ok=True)

    def _write(self, record: _Record) -> None:
        path = self._directory / f"{record.name}.json"
        part = path.with_suffix(f".{os.getpid()}.part")
        with part.open("w") as stream:
            json.dump(record.to_json(), stream)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)

    @contextlib.contextmanager
    def _locked(self, name: str = "put", operation: int = fcntl.LOCK_EX) -> Iterator[None]:
        self._directory.mkdir(parents=True, exist_ok=True)
        with (self._directory / f".{name}.lock").open("w") as stream:
            fcntl.flock(stream, operation)
            yield


def send(notice: Notice, config: Notices) -> tuple[Delivery, ...]:
    """Send a notice now, one attempt over each channel, and say how it went; for a test of the configuration.

    Raises
    ------
    Misconfigured
        If an address of the configuration has no meaning.
    """
    record = _Record(uuid.uuid4().hex, notice)
    once = config.model_copy(update={"attempts": 1})
    return tuple(
        _attempt(channel, record, Delivery(channel=channel.name, recipients=channel.recipients), once, 0.0)
        for channel in channels(config)
    )


def _attempt(channel: Channel, record: _Record, delivery: Delivery, config: Notices, now: float) -> Delivery:
    attempts = delivery.attempts + 1
    try:
        channel.deliver(record.notice, record.name, delivery.recipients)
    except Exception as error:  # noqa: BLE001 - a boundary: whatever a channel does, the night goes on
        last = attempts >= config.attempts
        outcome = Outcome.FAILED if last else Outcome.PENDING
        log.log(
            logging.ERROR if last else logging.WARNING,
            "notice %r was not delivered by %s, attempt %d of %d: %s",
            record.notice.subject,
            channel.name,
            attempts,
            config.attempts,
            _told_as(error),
        )
        left = error.recipients if isinstance(error, Refused) else delivery.recipients
        wait_s = config.retry_s * 2 ** (attempts - 1)
        return replace(
            delivery, outcome=outcome, attempts=attempts, due_at=now + wait_s, error=_told_as(error), recipients=left
        )
    log.info("notice %r was delivered by %s", record.notice.subject, channel.name)
    return replace(delivery, outcome=Outcome.SENT, attempts=attempts, error="", recipients=())


def _told_as(error: Exception) -> str:
    return str(error) if isinstance(error, NightglassError) else f"{type(error).__name__}: {error}"


def _age(path: Path) -> tuple[float, str]:
    try:
        return path.stat().st_mtime, path.name
    except FileNotFoundError:  # told just now
        return 0.0, path.name
