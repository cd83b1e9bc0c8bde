"""The account of a cube: each order ends once, well or not, and says what a person wants to know."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from nightglass.builder.accountfiles import write_account
from nightglass.builder.cubeaccounts import CubeAccount, order_label, read_cube_account
from nightglass.builder.delivering import CameraOutputs
from nightglass.builder.records import ArchiveOrder
from nightglass.cubes import CubeSummary
from nightglass.errors import Misconfigured, NightglassError, Rejected, Retryable
from nightglass.layout import Layout
from nightglass.model import Night
from tests.unit.builder.desk import PATIENCE_S, builder, image, wait_for


class Told(list[CubeAccount]):
    """Accounts, and whether one of them was the last."""

    def __init__(self) -> None:
        super().__init__()
        self.over = threading.Event()

    def __call__(self, account: CubeAccount) -> None:
        self.append(account)
        if account.is_over:
            self.over.set()


def test_an_order_is_told_of_from_its_beginning_to_its_end(tmp_path: Path) -> None:
    told = Told()
    with builder(tmp_path, outputs=True, on_cube=told) as made:
        for frame in range(2):
            made.accept(17, frame, "A", image(frame, (20, 30)))
            made.build(17, frame)
        path = made.archive(17, wait=True)
        assert [account.state for account in told] == ["making", "archived"]
        made.archive(17, wait=True)
    first, last = told[1], told[3]
    assert (first.exposure.split("/")[0], first.expid, first.builder) == ("generic", 17, "guider")
    assert (first.planes, first.frames, first.path, first.size) == (2, 2, str(path), Path(str(path)).stat().st_size)
    assert (first.facts()["planes"], first.facts()["problems"]) == ("2 of 1 sources, 2 frames", "none")
    assert first.seconds > 0
    assert first.order != last.order  # two orders, two ends
    file = Layout(tmp_path).cube_account("generic", Night(first.night), "guider", 17, first.order)
    write_account(file, first)
    assert read_cube_account(file) == first


class Refusing(CameraOutputs):
    """Outputs that refuse as often as they are told to."""

    errors: list[Exception]

    def archive(self, *arguments: object) -> CubeSummary:
        if self.errors:
            raise self.errors.pop(0)
        return super().archive(*arguments)  # type: ignore[arg-type]


def test_one_that_is_tried_again_ends_once_and_one_that_fails_says_why(tmp_path: Path) -> None:
    told = Told()
    with builder(tmp_path, outputs=True, on_cube=told) as made:
        outputs = made._finisher.outputs()
        outputs.__class__ = Refusing
        assert isinstance(outputs, Refusing)
        outputs.errors = [Retryable("the disk is full", remedy="make room")]
        made.accept(17, 0, "A", image(1))
        made.build(17, 0)
        with pytest.raises(Retryable):
            made.archive(17, wait=True)
        assert told.over.wait(PATIENCE_S)
        assert [account.state for account in told] == ["making", "waiting", "making", "archived"]
        assert (told[1].error, told[1].remedy, told[1].is_over) == ("the disk is full", "make room", False)
        assert len({account.order for account in told}) == 1
        assert (told[-1].began, told[-1].error) == (told[0].began, "")
        outputs.errors = [Rejected("nothing of it can be used", remedy="push it again"), RuntimeError("a fault")]
        for kind in ("Rejected", "RuntimeError"):
            with pytest.raises((NightglassError, RuntimeError)):
                made.archive(17, ArchiveOrder(compress=True), wait=True)
            assert (told[-1].state, told[-1].kind) == ("failed", kind)
            assert told[-1].facts()["remedy"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_kill_between_cube_and_note_tells_the_same_order_again(tmp_path: Path) -> None:
    told = Told()

    def die(account: CubeAccount) -> None:
        told(account)
        if account.is_over:
            raise SystemExit  # ends the thread before it notes that the order is done

    before = builder(tmp_path, outputs=True, on_cube=die)
    with before:
        before.accept(17, 0, "A", image(1))
        before.build(17, 0)
        before.archive(17)
        assert told.over.wait(PATIENCE_S)
    again = Told()
    with builder(tmp_path, outputs=True, on_cube=again) as after:
        wait_for(after, "archive", "archive_ready")
        assert again.over.wait(PATIENCE_S)
        assert after.exposure(17).asked is None
    assert again[-1].order == told[-1].order
    with builder(tmp_path, outputs=True, on_cube=again):
        pass
    assert sum(account.is_over for account in again) == 1


def test_orders_are_told_apart_by_the_millisecond() -> None:
    assert order_label(1_787_300_000.1234) == "20260821T081320123"


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"sources": [{"name": 1}]}', b"\xff"])
def test_what_is_no_account_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.json"
    with pytest.raises(Misconfigured, match="no account"):
        read_cube_account(path)
    path.write_bytes(content)
    with pytest.raises(Misconfigured, match="no account"):
        read_cube_account(path)
