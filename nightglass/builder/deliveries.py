"""Which receivers have a frame, each by itself, in the record of the frame: after a restart only the others get it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from nightglass.builder.bulletin import Bulletin
from nightglass.builder.holdings import Holdings
from nightglass.builder.outputs import Outputs
from nightglass.builder.records import ExposureView, FrameView, SendOrder, SendReport
from nightglass.builder.refusals import Unknown
from nightglass.builder.structure import marked, noted
from nightglass.config import BuilderOptions
from nightglass.errors import Misconfigured, NightglassError
from nightglass.model import content_key

__all__ = ["Deliveries", "is_awaited", "reported"]

_WAITING: Final = "waiting"
_DELIVERED: Final = "delivered"
_GIVEN_UP: Final = "given up"


def is_awaited(view: FrameView) -> bool:
    """Tell whether some receiver neither has a frame nor was given up."""
    return _WAITING in view.sends.values()


def reported(view: FrameView, report: SendReport, now: float) -> FrameView:
    """Note what became of a send; the frame is sent when nobody is waited for and somebody has it.

    What is told of other contents changes nothing, and neither does what is told again.
    """
    if report.content not in ("", view.content) or view.sends.get(report.receiver) == _DELIVERED:
        return view
    state = _DELIVERED if report.delivered else _GIVEN_UP
    after = replace(view, sends={**view.sends, report.receiver: state})
    if not report.delivered:
        after = noted(after, f"not delivered to {report.receiver}")
    over = not is_awaited(after) and _DELIVERED in after.sends.values()
    return marked(after, now, "sent") if over else after


class Deliveries:
    """Sends frames, and remembers who has them.

    Parameters
    ----------
    outputs : callable
        Gives the outputs.
    on_sent : callable
        Told each frame that nobody is waited for any more, if somebody has it, and the last report.
    """

    def __init__(
        self,
        name: str,
        holdings: Holdings,
        bulletin: Bulletin,
        *,
        outputs: Callable[[], Outputs],
        on_sent: Callable[[FrameView, SendReport], None],
    ) -> None:
        self._name = name
        self._holdings = holdings
        self._bulletin = bulletin
        self._outputs = outputs
        self._on_sent = on_sent

    def queue(self, exposure: ExposureView, view: FrameView, options: BuilderOptions) -> None:
        """Queue a frame for those who are to get it and were not told of; the same again finds it queued.

        Raises
        ------
        Misconfigured
            If somebody is not known; the others get it.
        Retryable
            If the file system refuses.
        """
        receivers = tuple(view.sends) if "queued" in view.times else tuple(dict.fromkeys(options.send_to))
        wanted = tuple(name for name in receivers if view.sends.get(name, _WAITING) == _WAITING)
        if not wanted:
            return
        self._note(view, wanted)
        key = content_key(self._name, exposure.night.label, f"{view.expid}/{view.frame}", view.content)
        order = SendOrder(send_to=wanted, key=key)
        try:
            self._outputs().send(exposure, view, options, order, wait_s=0.0)
        except Misconfigured:
            self._queue_each(exposure, view, options, order)

    def send(
        self, exposure: ExposureView, view: FrameView, options: BuilderOptions, order: SendOrder, wait_s: float
    ) -> tuple[SendReport, ...]:
        """Send a frame because somebody asks for it, also to who has it."""
        wanted = options.send_to if order.send_to is None else order.send_to
        self._note(view, wanted)
        try:
            return self._outputs().send(exposure, view, options, order, wait_s=wait_s)
        except NightglassError:
            self._take_back(view, wanted)
            raise

    def on_report(self, report: SendReport) -> None:
        """Note what became of a send."""
        outcome: dict[str, Any] = {
            "receiver": report.receiver,
            "delivered": report.delivered,
            "attempts": report.attempts,
            "error": report.error,
        }
        if report.frame is None:
            self._bulletin.events.add("archive", what="sent", expid=report.expid, **outcome)
            return
        exposure = self._holdings.find_exposure(report.expid)
        if exposure is None or report.night not in ("", exposure.night.label):
            return  # it was cleared, or its number is another exposure's now
        try:
            before = self._holdings.frame(report.expid, report.frame)
            after = self._holdings.change(report.expid, report.frame, lambda view: reported(view, report, time.time()))
        except Unknown:
            return
        self._bulletin.frame("delivered" if report.delivered else "undelivered", after, **outcome)
        if before.sends != after.sends and not is_awaited(after) and _DELIVERED in after.sends.values():
            self._bulletin.frame("sent", after)
            self._on_sent(after, report)

    def _queue_each(self, exposure: ExposureView, view: FrameView, options: BuilderOptions, order: SendOrder) -> None:
        """Queue a frame for each by itself: one who is not known holds up nobody."""
        unknown: list[Misconfigured] = []
        for name in order.send_to or ():
            try:
                self._outputs().send(exposure, view, options, replace(order, send_to=(name,)), wait_s=0.0)
            except Misconfigured as error:
                unknown.append(error)
                self.on_report(_refused(exposure, view, name, str(error)))
        if unknown:
            raise unknown[-1]

    def _note(self, view: FrameView, receivers: Sequence[str]) -> None:
        """Note for whom it is, before it is queued: reports may come at once."""
        waiting = dict.fromkeys(receivers, _WAITING)
        self._holdings.change(
            view.expid, view.frame, lambda current: replace(current, sends={**current.sends, **waiting})
        )

    def _take_back(self, view: FrameView, receivers: Sequence[str]) -> None:
        before = {name: state for name, state in view.sends.items() if name in receivers}

        def taken_back(current: FrameView) -> FrameView:
            kept = {name: state for name, state in current.sends.items() if name not in receivers}
            return replace(current, sends={**kept, **before})

        with contextlib.suppress(NightglassError):
            self._holdings.change(view.expid, view.frame, taken_back)


def _refused(exposure: ExposureView, view: FrameView, receiver: str, error: str) -> SendReport:
    return SendReport(
        receiver=receiver,
        expid=view.expid,
        frame=view.frame,
        delivered=False,
        attempts=0,
        error=error,
        night=exposure.night.label,
        content=view.content,
    )
