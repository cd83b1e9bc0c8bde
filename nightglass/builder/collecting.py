"""Extensions that are fetched: all sources of a frame at the same time, each again and again until the deadline."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx

from nightglass.builder.clockwork import Clockwork
from nightglass.builder.pulling import Wanted, fetch, make_client
from nightglass.builder.records import FrameState, FrameView
from nightglass.builder.spool import Body, Spool
from nightglass.config import BuilderOptions
from nightglass.errors import NightglassError, Rejected, Retryable
from nightglass.model import Night

__all__ = ["Collector"]

_log = logging.getLogger(__name__)

_AT_ONCE = 16
_LONGEST_WAIT_S = 8.0


class Collector:
    """Fetches what is assigned and has a place to be fetched from.

    Parameters
    ----------
    find : callable
        Returns a frame as it is now, or None.
    deliver : callable
        Takes what was fetched: exposure, frame, source, body.
    remark : callable
        Told exposure, frame and why a source has not delivered.
    """

    def __init__(
        self,
        spool: Spool,
        clockwork: Clockwork,
        *,
        options: Callable[[], BuilderOptions],
        find: Callable[[int, int], FrameView | None],
        deliver: Callable[[int, int, str, Body], None],
        remark: Callable[[int, int, str], None],
    ) -> None:
        self._spool = spool
        self._clockwork = clockwork
        self._options = options
        self._find = find
        self._deliver = deliver
        self._remark = remark
        self._pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="pull")
        self._lock = threading.Lock()
        self._busy: set[tuple[int, int, str]] = set()
        self._closed = False
        self._client = make_client(options().pull_timeout_s)

    def collect(self, view: FrameView, night: Night) -> None:
        """Begin to fetch what is missing of a frame."""
        places = self._options().pull
        for source in view.missing:
            if source in places:
                self._submit(Wanted(view.expid, view.frame, source, night, places[source]), 0)

    def renew(self) -> None:
        """Take over options that were changed."""
        with self._lock:
            self._client, former = make_client(self._options().pull_timeout_s), self._client
        former.close()

    def close(self) -> None:
        """End; what is being fetched is cut off."""
        with self._lock:
            self._closed = True
        self._client.close()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _submit(self, wanted: Wanted, attempt: int) -> None:
        key = (wanted.expid, wanted.frame, wanted.source)
        with self._lock:
            if self._closed or (attempt == 0 and key in self._busy):
                return
            self._busy.add(key)
            self._pool.submit(self._attempt, wanted, attempt)

    def _attempt(self, wanted: Wanted, attempt: int) -> None:
        """Try once; where that fails and there is time, be called again."""
        if not self._is_wanted(wanted):
            self._end(wanted)
            return
        try:
            body = fetch(
                wanted,
                self._spool,
                client=self._client,
                callables=self._options().callables,
                is_wanted=lambda: self._is_wanted(wanted),
            )
            self._deliver(wanted.expid, wanted.frame, wanted.source, body)
        except Rejected as error:
            # it may be an answer of a camera that is being set up: the next one can be right
            self._again(wanted, attempt, f"{wanted.source}: {error}")
        except Retryable as error:
            self._again(wanted, attempt, str(error))
        except NightglassError as error:
            self._remark(wanted.expid, wanted.frame, str(error))
            self._end(wanted)
        except (httpx.HTTPError, RuntimeError) as error:  # the client was renewed or closed under it
            self._again(wanted, attempt, f"{wanted.source}: {error}")
        except Exception as error:  # noqa: BLE001 - a boundary: whatever one source does, the others are fetched
            _log.exception("%s of %s/%s cannot be fetched", wanted.source, wanted.expid, wanted.frame)
            self._remark(wanted.expid, wanted.frame, f"{wanted.source}: {type(error).__name__}: {error}")
            self._end(wanted)
        else:
            self._end(wanted)

    def _again(self, wanted: Wanted, attempt: int, why: str) -> None:
        if attempt == 0:
            self._remark(wanted.expid, wanted.frame, why)
        wait = min(self._options().pull_retry_s * 2**attempt, _LONGEST_WAIT_S)
        view = self._find(wanted.expid, wanted.frame)
        if self._closed or view is None or view.state is not FrameState.OPEN:
            self._end(wanted)
            return
        self._clockwork.after(wait, lambda: self._submit(wanted, min(attempt + 1, 16)))

    def _is_wanted(self, wanted: Wanted) -> bool:
        view = self._find(wanted.expid, wanted.frame)
        return not self._closed and view is not None and view.state is FrameState.OPEN and wanted.source in view.missing

    def _end(self, wanted: Wanted) -> None:
        with self._lock:
            self._busy.discard((wanted.expid, wanted.frame, wanted.source))
