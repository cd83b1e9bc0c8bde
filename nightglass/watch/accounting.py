"""The accounts of image builders: when an exposure is over, what is written of it, what Prefect is told meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from nightglass.errors import Misconfigured, NightglassError, Rejected
from nightglass.model import Night
from nightglass.watch.jobs import JobKind
from nightglass.watch.telling import Note

if TYPE_CHECKING:
    from nightglass.builder.accounts import Account
    from nightglass.builder.cubeaccounts import CubeAccount
    from nightglass.builder.records import ExposureView, FrameView
    from nightglass.builder.service import Builder
    from nightglass.layout import Layout
    from nightglass.watch.telling import Teller

__all__ = ["Accountant", "is_over"]

_NEWS_S = 15.0
"""Between two words about an exposure that goes on."""
_MANY = 4000
"""So many events at once, and some may have been dropped: all exposures are looked at."""

ComplainFunction = Callable[[str, str], None]
"""Told the name of a builder, and what is wrong."""
GiveUpFunction = Callable[["CubeAccount"], None]
"""Told the account of an order of which nothing more becomes, and no cube came."""


class Accountant:
    """Writes the accounts of exposures and cubes, and notes what is to be told.

    `start`, `look` and `close` are called from the one thread of the watch, `take_cube` from those of the builders.

    Parameters
    ----------
    cameras : mapping of str to str
        Builder -> name of its camera.
    teller : Teller, optional
        Without it accounts are written only.
    """

    def __init__(
        self,
        builders: Mapping[str, Builder],
        cameras: Mapping[str, str],
        *,
        layout: Layout,
        teller: Teller | None,
        complain: ComplainFunction,
        give_up: GiveUpFunction = lambda _: None,
    ) -> None:
        self._builders = builders
        self._cameras = cameras
        self._layout = layout
        self._teller = teller
        self._complain = complain
        self._give_up = give_up
        self._seen: dict[str, int] = {}
        self._marks: dict[tuple[str, int], object] = {}
        self._going_on: dict[tuple[str, int], ExposureView] = {}
        self._news_at: dict[tuple[str, int], float] = {}

    def start(self) -> None:
        """Take up what goes on by the notes of an earlier process; what was cleared since is over."""
        if self._teller is None:
            return
        self._teller.start()
        for note in self._teller.notes:
            builder = self._builders.get(note.builder)
            if not note.progress or builder is None or _is_known(note, builder.exposures()):
                continue
            if note.kind is JobKind.BUILD:
                self._write(_cleared(note), replace(note, progress=""))
            else:
                self.take_cube(_withdrawn(note))

    def look(self) -> None:
        """Tell what is over, and what goes on."""
        for name, builder in self._builders.items():
            views = {view.expid: view for view in builder.exposures()}
            for (owner, expid), before in tuple(self._going_on.items()):
                now = views.get(expid)
                if owner == name and (now is None or now.opened_at != before.opened_at):
                    self._end(name, before)
            touched = self._touched(name, builder, views) | {expid for owner, expid in self._going_on if owner == name}
            for expid in views:  # in the order in which they were opened
                if expid in touched:
                    self._judge(name, builder, views[expid])

    def take_cube(self, account: CubeAccount) -> None:
        """Take the account of an order to archive an exposure; the last one of it comes again after a kill."""
        from nightglass.builder.accountfiles import write_account

        note = Note(
            kind=JobKind.CUBE,
            exposure=account.exposure,
            builder=account.builder,
            camera=account.camera,
            night=account.night,
            order=account.order,
            progress="" if account.is_over else f"{account.state}: {account.error}" if account.error else account.state,
        )
        night = Night(account.night)
        path = self._layout.cube_account(account.camera, night, account.builder, account.expid, account.order)
        try:
            if account.is_over:
                write_account(path, account)
            self._put(note)
            if account.is_over and account.error:
                self._give_up(account)  # its exposure may have been cleared while it was to be tried again
        except NightglassError as error:  # the cube is there, whoever hears of it
            self._complain(account.builder, str(error))

    def _touched(self, name: str, builder: Builder, views: Mapping[int, ExposureView]) -> set[int]:
        """Return the exposures that something happened to since the last look."""
        after = self._seen.get(name)
        events = builder.events(after or 0)
        self._seen[name] = events[-1].number if events else after or 0
        if after is None or len(events) >= _MANY:
            return set(views)
        return {expid for event in events if isinstance(expid := event.data.get("expid"), int)}

    def _judge(self, name: str, builder: Builder, view: ExposureView) -> None:
        if not view.frames:
            return
        try:
            newest = builder.frame(view.expid, view.frames[-1])
            # of an exposure that goes on, the newest frame alone is looked at
            over = is_over(view, [newest], idle_s=builder.options.idle_s)
            frames = [builder.frame(view.expid, number) for number in view.frames] if over else []
        except Rejected:  # cleared just now
            return
        if not over or not is_over(view, frames, idle_s=builder.options.idle_s):
            self._go_on(name, view)
            return
        from nightglass.builder.accounts import make_account

        self._going_on.pop((name, view.expid), None)
        self._news_at.pop((name, view.expid), None)
        note = _note(name, self._cameras[name], view)
        self._write(make_account(name, self._cameras[name], view, frames), note)

    def _go_on(self, name: str, view: ExposureView) -> None:
        key = name, view.expid
        self._going_on[key] = view
        self._marks.pop(key, None)
        now = time.monotonic()
        if now < self._news_at.get(key, 0.0):
            return
        self._news_at[key] = now + _NEWS_S
        note = _note(name, self._cameras[name], view)
        count = len(view.frames)
        try:
            self._put(replace(note, progress=f"{count} frame{'s' if count > 1 else ''} so far"))
        except NightglassError as error:
            self._complain(name, str(error))

    def _end(self, name: str, view: ExposureView) -> None:
        """Tell of an exposure that went on, and was cleared."""
        self._going_on.pop((name, view.expid), None)
        self._news_at.pop((name, view.expid), None)
        note = _note(name, self._cameras[name], view)
        self._write(_cleared(note), note)

    def _write(self, account: Account, note: Note) -> None:
        """Write an account and note it, unless both was done already."""
        from nightglass.builder.accountfiles import write_account

        key, mark = (account.builder, account.expid), account.mark
        if self._marks.get(key) == mark:
            return
        path = self._layout.account(account.camera, Night(account.night), account.builder, account.expid)
        if _mark_of(path) != mark or self._goes_on(note):
            try:
                self._put(note)  # before the account: whoever finds that on the disk takes it for noted
                write_account(path, account)
            except NightglassError as error:
                self._complain(account.builder, str(error))
                return
        self._marks[key] = mark

    def _put(self, note: Note) -> None:
        if self._teller is not None:
            self._teller.put(note)

    def _goes_on(self, note: Note) -> bool:
        """Tell whether Prefect was told that it goes on, and nothing else since."""
        notes = self._teller.notes if self._teller is not None else ()
        return any(known.key == note.key and known.progress for known in notes)


def is_over(view: ExposureView, frames: Sequence[FrameView], *, idle_s: float, now: float | None = None) -> bool:
    """Tell whether nothing more is expected of an exposure, or of those of its frames that are given.

    One that is complete is over when its frames went through all stages, one that nobody finalised when nothing
    happened to it for so long. A frame that does not come through (a disk is full) ends the wait, too.
    """
    from nightglass.builder.records import ExposureState, FrameState

    if any(frame.state is FrameState.OPEN for frame in frames):
        return False
    through = all("done" in frame.times for frame in frames)
    newest = max((moment for frame in frames for moment in frame.times.values()), default=0.0)
    idle = (time.time() if now is None else now) - newest >= idle_s
    return idle or (through and view.state is not ExposureState.OPEN)


def _note(builder: str, camera: str, view: ExposureView) -> Note:
    from nightglass.builder.cubeaccounts import order_label

    return Note(
        kind=JobKind.BUILD,
        exposure=f"{camera}/{view.night}/{view.expid}",
        builder=builder,
        camera=camera,
        night=view.night.label,
        order=order_label(view.opened_at),
    )


def _is_known(note: Note, views: Sequence[ExposureView]) -> bool:
    """Tell whether a builder has what a note says goes on."""
    from nightglass.builder.cubeaccounts import order_label

    if note.kind is JobKind.BUILD:
        return any(_note(note.builder, note.camera, view).key == note.key for view in views)
    asked = {view.expid: order_label(view.asked_at) for view in views if view.asked is not None}
    return asked.get(_number(note)) == note.order


def _number(note: Note) -> int:
    return int(note.exposure.rpartition("/")[2])


def _withdrawn(note: Note) -> CubeAccount:
    from nightglass.builder.cubeaccounts import CubeAccount

    return CubeAccount(
        exposure=note.exposure,
        builder=note.builder,
        camera=note.camera,
        night=note.night,
        expid=_number(note),
        order=note.order,
        state="failed",
        error="the exposure was cleared before its cube was made",
        kind="Rejected",
        remedy="nothing, if that was meant",
    )


def _cleared(note: Note) -> Account:
    from nightglass.builder.accounts import CLEARED, Account

    return Account(
        exposure=note.exposure,
        builder=note.builder,
        camera=note.camera,
        night=note.night,
        expid=_number(note),
        state=CLEARED,
        opened=note.order,
    )


def _mark_of(path: Path) -> object:
    from nightglass.builder.accounts import read_account

    try:
        return read_account(path).mark
    except Misconfigured:  # none yet
        return None
