"""Frames, archives and stamps on their way to receivers: a durable lane each, so that a dead one holds up no other."""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import quote

import httpx

from nightglass.builder.authorities import authorities
from nightglass.builder.keeping import bytes_kept, keep_file, pieces_of, remove_file, sweep_files
from nightglass.builder.lanes import Delivered, Lane, Patience
from nightglass.builder.laneset import LaneSet
from nightglass.builder.passwords import has_password, without_passwords
from nightglass.builder.posting import post
from nightglass.builder.records import ExposureView, FrameView, SendOrder, SendReport
from nightglass.builder.targets import Target, find_target, kept_target
from nightglass.errors import Misconfigured, Rejected, Retryable
from nightglass.model import content_key, sanitize

__all__ = ["Dispatcher", "Queued", "Ticket", "sanitize_name"]

_MAX_HEADER: Final = 512
_MOST: Final = 256
"""Receivers for whom something may wait at the same time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """One file for one receiver.

    Attributes
    ----------
    receiver : str
        Its name, as it was asked for.
    what : str
        ``frame``, ``archive``, ``rois`` (stamps of a frame) or ``focus`` (a frame whose focus is to be measured).
    frame : int or None
        None: the whole exposure.
    command : str
        ``send_command``: the last part of the address, and told to functions.
    name : str
        Of the file, for the receiver.
    night, revision, content : str, int, str
        Of the frame: its number may come again in another night, and a revision goes over the one before.
    key : str
        The same for each attempt, and when it is queued again after a kill: who has had it needs no second one.
    source, file : str
        As `Target.source`, and where the file waits; filled in when it is queued.
    """

    receiver: str
    expid: int
    frame: int | None = None
    what: str = "frame"
    command: str = ""
    name: str = ""
    night: str = ""
    revision: int = 0
    content: str = ""
    key: str = ""
    source: str = ""
    file: str = ""

    @classmethod
    def of_frame(
        cls, exposure: ExposureView, frame: FrameView, order: SendOrder, *, receiver: str, **said: str
    ) -> Self:
        """Make one for a frame; with the key of an order it is the same whenever it is made."""
        key = content_key(order.key, receiver, *said.values()) if order.key else ""
        return cls(
            receiver=receiver,
            expid=exposure.expid,
            frame=frame.frame,
            night=exposure.night.label,
            revision=frame.revision,
            content=frame.content,
            key=key,
            **said,
        )


Queued = Sequence[tuple[Ticket, Lane, int]]
"""Tickets, each with its queue and number."""


class Dispatcher:
    """Sends what one builder has built.

    A file that is queued is linked beside its ticket, so that it is there when its turn has come, whatever was purged.

    Parameters
    ----------
    directory : Path
        Where tickets and files wait, ``<root>/run/outgoing-<name>``; on the file system of the spool.
    known : mapping of str to str
        Configured receivers, each with an address or ``module:function``.
    allowed : sequence of str
        Modules and functions that may be named.
    limit_bytes : int
        What may wait for all receivers together; beyond it the oldest of the longest queue is given up.
    on_report : callable, optional
        Told of each ticket at its end.
    """

    def __init__(
        self,
        directory: Path,
        *,
        known: Mapping[str, str] | None = None,
        allowed: Sequence[str] = (),
        patience: Patience | None = None,
        timeout_s: float = 30.0,
        limit_bytes: int = 4 << 30,
        on_report: Callable[[Ticket, SendReport], None] | None = None,
    ) -> None:
        self._directory = directory
        self._known = dict(known or {})
        self._allowed = tuple(allowed)
        self._patience = patience or Patience(limit=1000)
        self._limit_bytes = limit_bytes
        self._on_report = on_report
        timeout = httpx.Timeout(timeout_s, connect=5.0)
        self._client = httpx.Client(timeout=timeout, follow_redirects=False, verify=authorities())
        self._lock = threading.RLock()
        self._functions: dict[str, Callable[..., Any]] = {}
        self._targets: dict[str, Target] = {}
        self._lanes = LaneSet(self._make_lane)

    def register(self, name: str, function: Callable[..., Any]) -> None:
        """Let a function of this process be a receiver: it gets the path of the file, and a mapping of what it is."""
        with self._lock:
            self._functions[name] = function
            self._targets.pop(name, None)

    def know(self, known: Mapping[str, str], wanted: Sequence[str] = ()) -> None:
        """Take these for the configured receivers from now on, and see that everybody who is wanted is somebody.

        Raises
        ------
        Misconfigured
            If one is not; an empty name is nobody, and no error.
        """
        with self._lock:
            if known != self._known:
                self._known = dict(known)
                self._targets.clear()
        for receiver in filter(None, wanted):
            self.check(receiver)

    def check(self, receiver: str) -> Target:
        """Return who is meant by a name.

        Raises
        ------
        Misconfigured
            If nobody is; or if it is an address with a password: receivers are shown, and told of, by their names.
        """
        if has_password(receiver):
            message = f"the receiver {without_passwords(receiver)} was given with a password"
            raise Misconfigured(message, remedy="write it under `receivers`, and send to its name there")
        with self._lock:
            if receiver in self._functions:
                return Target(receiver, "", function=self._functions[receiver])
            if receiver not in self._targets:
                self._targets[receiver] = find_target(receiver, known=self._known, allowed=self._allowed)
            return self._targets[receiver]

    def keep(self, tickets: Sequence[Ticket], path: Path) -> Queued:
        """Queue a file for receivers; it may be deleted afterwards.

        Raises
        ------
        Misconfigured
            If there is no such receiver; nothing is sent then.
        Retryable
            If the file cannot be kept.
        """
        for ticket in tickets:
            self.check(ticket.receiver)
        queued = [(ticket, *self._put(ticket, path)) for ticket in tickets]
        self._trim()
        return queued

    def wait(self, queued: Queued, wait_s: float) -> tuple[SendReport, ...]:
        """Wait for what becomes of files that were queued; where that takes longer they are tried on."""
        until = time.monotonic() + wait_s
        reports = []
        for ticket, lane, number in queued:
            ended = lane.wait(number, max(until - time.monotonic(), 0.0))
            if ended is None:
                error = f"{ticket.receiver} has not taken it in {wait_s:g} s; it is tried on" if wait_s else ""
                reports.append(_report(ticket, delivered=False, attempts=0, error=error))
            else:
                reports.append(_report(ticket, delivered=not ended.error, attempts=ended.attempts, error=ended.error))
        return tuple(reports)

    def send(self, tickets: Sequence[Ticket], path: Path, wait_s: float) -> tuple[SendReport, ...]:
        """Queue a file for receivers, and wait for what becomes of it; see `keep` and `wait`."""
        return self.wait(self.keep(tickets, path), wait_s)

    def pending(self) -> dict[str, int]:
        """Return how many tickets wait for each receiver that has any."""
        counts = {name: lane.pending for name in self._lanes if (lane := self._lanes.get(name)) is not None}
        return {name: count for name, count in counts.items() if count}

    def start(self) -> None:
        """Begin to send, with what was left over from before."""
        kept = sorted(self._directory.glob("*/receiver")) if self._directory.is_dir() else ()
        self._lanes.start(path.read_text() for path in kept)

    def close(self) -> None:
        """Stop; what was not delivered is sent after the next start."""
        self._lanes.close()
        self._client.close()

    def wait_idle(self, timeout_s: float) -> bool:
        """Wait until nothing is left to send."""
        return self._lanes.wait_idle(timeout_s)

    def _put(self, ticket: Ticket, path: Path) -> tuple[Lane, int]:
        target = self.check(ticket.receiver)
        key = ticket.key or secrets.token_hex(10)
        kept = self._place(ticket.receiver) / f"{key}.fits"
        with self._lanes.held(ticket.receiver) as lane:
            try:
                known = lane.find_waiting("key", key) if kept.exists() else None
                known = lane.find_ended("key", key) if known is None else known
                if known is not None:
                    return lane, known
                kept.unlink(missing_ok=True)
                keep_file(path, kept)
                said = {"name": ticket.name or path.name, "key": key, "source": target.source, "file": str(kept)}
                return lane, lane.put({**asdict(ticket), **said})
            except OSError as error:
                message = f"{kept} cannot be written: {error.strerror or error}"
                raise Retryable(message, remedy="make room on the disk") from error

    def _place(self, receiver: str) -> Path:
        return self._directory / f"{sanitize(receiver)[:40]}-{content_key(receiver)[:8]}"

    def _trim(self) -> None:
        """Give up the oldest files until no more wait than may."""
        while True:
            sizes = {name: bytes_kept(self._place(name)) for name in self._lanes}
            if sum(sizes.values()) <= self._limit_bytes or not sizes:
                return
            lane = self._lanes.get(max(sizes, key=lambda name: sizes[name]))
            if lane is None or not lane.give_up_oldest(f"more than {self._limit_bytes >> 20} MiB wait to be sent"):
                return

    def _make_lane(self, receiver: str) -> Lane:
        self._make_room()
        directory = self._place(receiver)
        try:
            directory.mkdir(parents=True, exist_ok=True)
            part = directory / f"receiver.{os.getpid()}.part"
            part.write_text(receiver)
            part.replace(directory / "receiver")
        except OSError as error:
            message = f"{directory} cannot be written: {error.strerror or error}"
            raise Retryable(message, remedy="make room on the disk") from error
        sweep_files(directory)
        return Lane(
            receiver,
            directory,
            self._deliver,
            patience=self._patience,
            on_end=self._ended,
            on_forgotten=remove_file,
        )

    def _make_room(self) -> None:
        """Forget receivers for whom nothing waits: addresses may be others for each exposure."""
        for gone in self._lanes.make_room(_MOST):
            with contextlib.suppress(OSError):
                (self._place(gone) / "receiver").unlink(missing_ok=True)
                self._place(gone).rmdir()
        with self._lock:
            if len(self._targets) > _MOST:
                self._targets.clear()

    def _deliver(self, item: Mapping[str, Any]) -> None:
        ticket = Ticket(**item)
        try:
            target = self.check(ticket.receiver)
        except Misconfigured:
            if not ticket.source:
                raise
            target = kept_target(ticket.source, name=ticket.receiver, allowed=self._allowed)
        path = Path(ticket.file)
        if target.function is not None:
            target.function(path, _about(ticket))
        else:
            self._post(target, ticket, path)

    def _post(self, target: Target, ticket: Ticket, path: Path) -> None:
        try:
            headers = {
                "Content-Type": "application/fits",
                "Content-Length": str(path.stat().st_size),
                "Content-Disposition": f'attachment; filename="{sanitize_name(ticket.name)}"',
            }
            if ticket.key:  # draft-ietf-httpapi-idempotency-key-header: a string of structured fields
                headers["Idempotency-Key"] = f'"{ticket.key}"'
            for name, value in _about(ticket).items():
                if value is not None and name != "key":
                    headers[f"X-Nightglass-{name.title()}"] = str(value)[:_MAX_HEADER]
            post(
                self._client,
                target.name,
                _address(target.url, ticket.command),
                content=pieces_of(path),
                headers=headers,
            )
        except FileNotFoundError as error:
            message = f"{path} is gone: {error}"
            raise Rejected(message, remedy="send it again") from error
        except OSError as error:
            message = f"{path} cannot be read: {error.strerror or error}"
            raise Retryable(message) from error

    def _ended(self, ended: Delivered) -> None:
        if not ended.item:
            return
        ticket = Ticket(**ended.item)
        if self._on_report is None:
            return
        report = _report(ticket, delivered=not ended.error, attempts=ended.attempts, error=ended.error)
        self._on_report(ticket, report)


def sanitize_name(name: str) -> str:
    """Return a file name that can stand in a header."""
    return "".join(letter if letter.isascii() and (letter.isalnum() or letter in "._-+") else "_" for letter in name)


def _about(ticket: Ticket) -> dict[str, str | int | None]:
    return {
        "expid": ticket.expid,
        "frame": ticket.frame,
        "what": ticket.what,
        "command": ticket.command or None,
        "name": ticket.name,
        "night": ticket.night or None,
        "revision": ticket.revision or None,
        "key": ticket.key or None,
    }


def _address(url: str, command: str) -> str:
    return f"{url.rstrip('/')}/{quote(command, safe='')}" if command else url


def _report(ticket: Ticket, *, delivered: bool, attempts: int, error: str) -> SendReport:
    return SendReport(
        receiver=ticket.receiver,
        expid=ticket.expid,
        frame=ticket.frame,
        delivered=delivered,
        attempts=attempts,
        error=error,
        night=ticket.night,
        content=ticket.content,
    )
