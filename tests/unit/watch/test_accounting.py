"""Accounts of image builders: written when an exposure is over, as soon as it is, and noted for Prefect meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nightglass.builder.accounts import CLEARED, read_account
from nightglass.builder.cubeaccounts import CubeAccount, newest_account, order_label, read_cube_account
from nightglass.builder.records import ExposureState, ExposureView, FrameState, FrameView
from nightglass.builder.service import Builder
from nightglass.errors import Misconfigured
from nightglass.layout import Layout
from nightglass.watch.accounting import Accountant, is_over
from nightglass.watch.jobs import JobKind
from nightglass.watch.telling import Note
from tests.unit.builder.desk import builder, image
from tests.unit.watch.puppet import NIGHT

VIEW = ExposureView(expid=17, night=NIGHT, state=ExposureState.OPEN, frames=(0,))
FRAME = FrameView(expid=17, frame=0, state=FrameState.BUILT, times={"built": 100.0, "done": 101.0})
PATIENCE_S = 60.0


@pytest.mark.parametrize(
    ("exposure", "frame", "now", "over"),
    [
        ({}, {}, 102.0, False),  # another frame may come
        ({}, {}, 131.0, True),
        ({"state": ExposureState.COMPLETE}, {}, 101.0, True),
        ({"state": ExposureState.ARCHIVED}, {}, 101.0, True),
        ({"state": ExposureState.COMPLETE}, {"times": {"built": 100.0}}, 102.0, False),  # it is being written
        ({"state": ExposureState.COMPLETE}, {"times": {"built": 100.0}}, 131.0, True),  # it cannot be written
        ({"state": ExposureState.COMPLETE}, {"state": FrameState.OPEN}, 1000.0, False),
    ],
)
def test_when_an_exposure_is_over(exposure: dict[str, Any], frame: dict[str, Any], now: float, over: bool) -> None:
    assert is_over(replace(VIEW, **exposure), [replace(FRAME, **frame)], idle_s=30.0, now=now) is over


class Notes:
    """Keeps notes as the teller does, and tells nobody."""

    def __init__(self) -> None:
        self.put_down: list[Note] = []
        self.left: dict[str, Note] = {}

    @property
    def notes(self) -> tuple[Note, ...]:
        return tuple(self.left.values())

    def start(self) -> None:
        pass

    def put(self, note: Note) -> None:
        self.put_down.append(note)
        self.left[note.key] = note

    def tell(self) -> None:
        self.left = {key: note for key, note in self.left.items() if note.progress}


class Desk:
    def __init__(self, root: Path, notes: Notes, made: Builder) -> None:
        self.notes, self.layout, self.complaints, self.given_up = notes, Layout(root), list[str](), list[str]()
        self.accountant = Accountant(
            {"guider": made},
            {"guider": "generic"},
            layout=self.layout,
            teller=notes,  # type: ignore[arg-type]
            complain=lambda name, text: self.complaints.append(f"{name}: {text}"),
            give_up=lambda account: self.given_up.append(account.error),
        )

    def until(self, condition: Callable[[], object]) -> None:
        end = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < end
            self.accountant.look()
            time.sleep(0.01)

    @property
    def said(self) -> list[str]:
        return [note.progress for note in self.notes.put_down]


def test_an_exposure_is_told_of_while_it_goes_on_at_once_when_it_is_over_and_once(tmp_path: Path) -> None:
    notes = Notes()
    with builder(tmp_path) as made:
        desk = Desk(tmp_path, notes, made)
        made.assign(17, 0, extensions=["A"])
        desk.accountant.look()
        desk.accountant.look()
        assert desk.said == ["1 frame so far"]
        made.accept(17, 0, "A", image(1))
        made.finalize(17)
        desk.until(lambda: desk.said == ["1 frame so far", ""])
        night = made.exposure(17).night
        path = desk.layout.account("generic", night, "guider", 17)
        account = read_account(path)
        assert (account.state, account.opened, len(account.frames)) == ("complete", notes.put_down[0].order, 1)
        assert {note.key for note in notes.put_down} == {f"build/guider/generic/{night}/17/{account.opened}"}
        notes.tell()
        for _ in range(3):
            desk.accountant.look()
        again = Desk(tmp_path, notes, made)  # as after a restart
        again.accountant.start()
        again.accountant.look()
        assert desk.said == ["1 frame so far", ""]
        # what changes is told under the same key
        made.set_primary(17, 0, {"OBJECT": "M31"})
        again.until(lambda: read_account(path).frames[0].revision == 2)
        assert notes.put_down[-1].key == notes.put_down[0].key


def test_one_that_nobody_finalises_is_over_when_it_is_idle_and_goes_on_when_more_comes(tmp_path: Path) -> None:
    notes = Notes()
    with builder(tmp_path, idle_s=0.2) as made:
        desk = Desk(tmp_path, notes, made)
        for frame in range(2):
            made.accept(17, frame, "A", image(1))
            made.build(17, frame)
            desk.until(lambda frame=frame: desk.said.count("") == frame + 1)  # type: ignore[misc]
            notes.tell()
    path = next(tmp_path.rglob("reports/guider-00000017.json"))
    assert len(read_account(path).frames) == 2


@pytest.mark.parametrize("restarted", [False, True])
def test_one_that_was_cleared_is_not_left_going_on(tmp_path: Path, restarted: bool) -> None:
    notes = Notes()
    with builder(tmp_path) as made:
        desk = Desk(tmp_path, notes, made)
        made.assign(17, 0, extensions=["A"])
        desk.accountant.look()
        night = made.exposure(17).night
        made.clear(17, unsaved="discard")
        if restarted:
            desk = Desk(tmp_path, notes, made)
            desk.accountant.start()
        desk.accountant.look()
        assert desk.said == ["1 frame so far", ""]
        assert read_account(desk.layout.account("generic", night, "guider", 17)).state == CLEARED
        made.assign(17, 0, extensions=["A"])  # another exposure of that number is another run
        desk.accountant.look()
        assert len({note.key for note in notes.put_down}) == 2


def cube(state: str, **changes: Any) -> CubeAccount:
    return CubeAccount(
        exposure=f"generic/{NIGHT}/17",
        builder="guider",
        camera="generic",
        night=NIGHT.label,
        expid=17,
        order=order_label(1_787_300_000.5),
        state=state,
        **changes,
    )


def test_a_cube_is_noted_while_it_is_made_and_its_account_written_at_the_end(tmp_path: Path) -> None:
    notes = Notes()
    with builder(tmp_path) as made:
        desk = Desk(tmp_path, notes, made)
        where = ("generic", NIGHT, "guider", 17)
        desk.accountant.take_cube(cube("making"))
        desk.accountant.take_cube(cube("waiting", error="the disk is full"))
        assert desk.said == ["making", "waiting: the disk is full"]
        with pytest.raises(Misconfigured, match="no account"):
            newest_account(desk.layout, *where)
        # nobody asks for it any more: it was cleared, and then all was killed
        again = Desk(tmp_path, notes, made)
        again.accountant.start()
        assert (desk.given_up, again.given_up) == ([], ["the exposure was cleared before its cube was made"])
        assert desk.said[-1] == ""
        account = read_cube_account(newest_account(desk.layout, *where))
        assert (account.state, account.order, account.is_over) == ("failed", cube("making").order, True)
        later = replace(cube("archived", path="/cube.fits"), order=order_label(1_787_300_001.5))
        desk.accountant.take_cube(later)
        assert desk.given_up == []
        assert read_cube_account(newest_account(desk.layout, *where)) == later
        assert {note.kind for note in notes.put_down} == {JobKind.CUBE}


def test_a_disk_that_refuses_is_complained_of(tmp_path: Path) -> None:
    notes = Notes()
    with builder(tmp_path) as made:
        desk = Desk(tmp_path, notes, made)
        desk.layout.account("generic", NIGHT, "guider", 17).parent.parent.mkdir(parents=True)
        desk.layout.account("generic", NIGHT, "guider", 17).parent.write_text("no directory")
        desk.accountant.take_cube(cube("archived", path="/cube.fits"))
        assert "reports" in desk.complaints[0]
