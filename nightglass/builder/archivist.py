"""Exposures that become cubes: one at a time, in a thread of its own, and again after a kill."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Final

from nightglass.builder.bulletin import Bulletin
from nightglass.builder.clockwork import Clockwork
from nightglass.builder.cubeaccounts import CubeAccount
from nightglass.builder.finishing import Finisher
from nightglass.builder.holdings import Holdings
from nightglass.builder.records import ArchiveOrder, ExposureState, ExposureView, FrameState, FrameView, HookStage
from nightglass.builder.stages import StageLine
from nightglass.builder.structure import marked
from nightglass.config import BuilderOptions
from nightglass.errors import Rejected, Retryable, Waiting

__all__ = ["Archivist"]

_log = logging.getLogger(__name__)

_LOOK_S: Final = 0.1
_FIRST_WAIT_S: Final = 1.0
_LONGEST_WAIT_S: Final = 60.0


class Archivist:
    """Makes cubes of exposures whose frames are all built.

    Parameters
    ----------
    on_account : callable
        Told how each order fares; its end before it is noted as done, so that after a kill in between it is told again.
    """

    def __init__(
        self,
        name: str,
        holdings: Holdings,
        finisher: Finisher,
        line: StageLine,
        bulletin: Bulletin,
        clockwork: Clockwork,
        *,
        settings: Callable[[ExposureView], BuilderOptions],
        on_archived: Callable[[], None],
        on_account: Callable[[CubeAccount], None],
        account_of: Callable[[ExposureView], CubeAccount],
    ) -> None:
        self._on_account = on_account
        self._account_of = account_of
        self._accounts: dict[int, CubeAccount] = {}
        self._making: int | None = None
        self._holdings = holdings
        self._finisher = finisher
        self._line = line
        self._bulletin = bulletin
        self._clockwork = clockwork
        self._settings = settings
        self._on_archived = on_archived
        self._queue: queue.SimpleQueue[tuple[int, int] | None] = queue.SimpleQueue()
        self._waiting: dict[int, list[Future[Path | None]]] = {}
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"{name}-archive", daemon=True)

    def start(self) -> None:
        """Begin, with what an earlier process was asked for."""
        self._thread.start()
        for exposure in self._holdings.exposures():
            if exposure.asked is not None:
                self._put(exposure.expid)

    def submit(self, expid: int, order: ArchiveOrder) -> Future[Path | None]:
        """Ask for the cube of an exposure that is complete; what is asked for survives a kill.

        The same asked for again before it was begun is asked for once.

        The future has the path; or the first error, also where it is tried again.

        Raises
        ------
        Unknown
        """
        now = time.time()
        self._holdings.change_exposure(
            expid,
            lambda exposure: (
                exposure
                if exposure.asked == order and self._making != expid
                else replace(exposure, asked=order, asked_at=now)
            ),
        )
        future: Future[Path | None] = Future()
        with self._lock:
            self._waiting.setdefault(expid, []).append(future)
        self._put(expid)
        return future

    def close(self) -> None:
        """End after the cube that is just being made; what is asked for is done after the next start."""
        self._closing.set()
        self._queue.put(None)
        if self._thread.is_alive():
            self._thread.join()
        with self._lock:
            futures = [future for listed in self._waiting.values() for future in listed]
            self._waiting.clear()
        for future in futures:
            future.cancel()

    def _put(self, expid: int, attempt: int = 0) -> None:
        self._queue.put((expid, attempt))

    def _run(self) -> None:
        while (item := self._queue.get()) is not None and not self._closing.is_set():
            expid, attempt = item
            if not self._is_settled(expid):  # another one may be
                self._later(_LOOK_S, expid, attempt)
                continue
            with self._lock:  # before the order is read: who waits for another one comes later
                futures = self._waiting.pop(expid, [])
            try:
                path = self._archive(expid)
            except (Retryable, Waiting) as error:
                _tell(futures, lambda future, error=error: future.set_exception(error))  # type: ignore[misc]
                self._bulletin.alarm(f"archive {expid}", f"exposure {expid} cannot be archived yet: {error}")
                self._later(min(_FIRST_WAIT_S * 2 ** min(attempt, 16), _LONGEST_WAIT_S), expid, attempt + 1)
            except Exception as error:  # noqa: BLE001 - a boundary: whatever one exposure causes, the next ones go on
                _log.warning("exposure %s cannot be archived", expid, exc_info=error)
                self._failed(expid, error)
                if (account := self._accounts.get(expid)) is not None:  # it was cleared while it waited
                    self._tell_account(account.without(error, again=False))
                _tell(futures, lambda future, error=error: future.set_exception(error))  # type: ignore[misc]
            else:
                _tell(futures, lambda future, path=path: future.set_result(path))  # type: ignore[misc]

    def _later(self, wait_s: float, expid: int, attempt: int) -> None:
        self._clockwork.after(wait_s, lambda: self._put(expid, attempt))

    def _archive(self, expid: int) -> Path | None:
        """Make one cube, or return the one that was made already for everybody who asked."""
        exposure = self._holdings.exposure(expid)
        order = exposure.asked
        if order is None:
            return exposure.archive
        account, self._making = self._begin(exposure), expid
        try:
            path = self._make(exposure, order, account)
        except Exception as error:
            self._tell_account(account.without(error, again=isinstance(error, (Retryable, Waiting))))
            if not isinstance(error, (Retryable, Waiting)):
                self._withdraw(exposure)
            raise
        finally:
            self._making = None
        self._on_archived()
        return path

    def _make(self, exposure: ExposureView, order: ArchiveOrder, account: CubeAccount) -> Path:
        expid = exposure.expid
        with contextlib.ExitStack() as stack:
            frames = [stack.enter_context(self._holdings.lent(expid, number)) for number in exposure.frames]
            holding = [frame for frame in frames if frame.extensions]
            if not holding:
                message = f"no frame of exposure {expid} has extensions"
                raise Rejected(message, remedy="there is nothing to archive")
            options = self._settings(exposure)
            cube = self._finisher.outputs().archive(exposure, holding, options, order)
            for frame in holding:
                self._mark(frame)
        if changed := self._changed(expid, holding):
            message = f"frame {expid}/{changed[0]} changed while exposure {expid} was archived"
            raise Retryable(message, remedy="it is archived again, with what came")
        path = cube.path
        self._tell_account(account.archived(cube))
        self._note(expid, path, order, holding)
        self._bulletin.all_clear(f"archive {expid}")
        self._bulletin.set_ready("archive_ready", expid=expid, path=path, frames=len(holding))
        self._finisher.fire(HookStage.ARCHIVED, expid, None, options, path=str(path), frames=len(holding))
        return path

    def _begin(self, exposure: ExposureView) -> CubeAccount:
        """Return the account of an order: the one of its first attempt, if there was one."""
        account, before = self._account_of(exposure), self._accounts.get(exposure.expid)
        if before is not None and before.order == account.order:
            account = replace(account, began=before.began)
        self._tell_account(account)
        return account

    def _tell_account(self, account: CubeAccount) -> None:
        if account.is_over:
            self._accounts.pop(account.expid, None)
        else:
            self._accounts[account.expid] = account
        self._on_account(account)

    def _is_settled(self, expid: int) -> bool:
        """Tell whether all frames are built, by their deadlines at the latest, and written."""
        waiting = any(view.state is FrameState.OPEN for view in self._holdings.frames(expid))
        return not waiting and self._line.wait_idle(0.0, expid=expid)

    def _mark(self, frame: FrameView) -> None:
        self._holdings.change(
            frame.expid, frame.frame, lambda view: marked(view, time.time(), "archived", revision=frame.revision)
        )

    def _changed(self, expid: int, archived: Sequence[FrameView]) -> list[int]:
        """Return the frames to which something came since they were archived."""
        revisions = {view.frame: view.revision for view in self._holdings.frames(expid)}
        return [view.frame for view in archived if revisions.get(view.frame, view.revision) != view.revision]

    def _note(self, expid: int, path: Path, order: ArchiveOrder, archived: Sequence[FrameView]) -> None:
        def note(exposure: ExposureView) -> ExposureView:
            if self._changed(expid, archived):  # only now: the order stands
                self._later(_LOOK_S, expid, 0)
                return exposure
            asked = None if exposure.asked == order else exposure.asked
            return replace(exposure, state=ExposureState.ARCHIVED, archive=path, asked=asked)

        self._holdings.change_exposure(expid, note)

    def _failed(self, expid: int, error: Exception) -> None:
        self._bulletin.alarm(f"archive {expid}", f"exposure {expid} cannot be archived: {error}")
        self._bulletin.events.add("archive", what="failed", expid=expid, error=str(error))

    def _withdraw(self, failed: ExposureView) -> None:
        """Let go of an order that failed, unless it was given anew meanwhile."""
        with contextlib.suppress(Rejected, Retryable):
            self._holdings.change_exposure(
                failed.expid,
                lambda exposure: replace(exposure, asked=None) if exposure.asked_at == failed.asked_at else exposure,
            )


def _tell(futures: list[Future[Path | None]], tell: Callable[[Future[Path | None]], object]) -> None:
    for future in futures:
        tell(future)
