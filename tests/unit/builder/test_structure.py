"""The rules of frames: examples of each, and any order of events against a plain model."""

from __future__ import annotations

import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pytest
from astropy.io import fits
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from nightglass.builder.journal import read_exposure, read_frame
from nightglass.builder.records import ExposureState, FrameState, FrameView
from nightglass.builder.refusals import Complete, Exists, Unknown, Unsaved
from nightglass.builder.structure import closed, marked
from nightglass.builder.writing import write_frame
from nightglass.errors import Misconfigured, Rejected
from tests.unit.builder.desk import PATIENCE_S, builder, image, pixels


def test_the_last_extension_builds_a_frame_and_nothing_more_is_taken(tmp_path: Path) -> None:
    made = builder(tmp_path, preset="guider")
    view = made.assign(1, 0, extensions=["guide0", "GUIDE2"])
    assert (view.state, view.missing) == (FrameState.OPEN, ("GUIDE0", "GUIDE2"))
    made.accept(1, 0, "GUIDE2", image(2))
    assert made.frame(1, 0).missing == ("GUIDE0",)
    made.accept(1, 0, "guide0", image(0))
    view = made.frame(1, 0)
    assert (view.state, view.missing) == (FrameState.BUILT, ())
    assert [item.name for item in view.extensions] == ["GUIDE0", "GUIDE2"]  # as assigned, not as they came
    with pytest.raises(Complete):
        made.accept(1, 0, "GUIDE3", image(3))
    with pytest.raises(Complete):
        made.accept(1, 0, "GUIDE0", image(9), clobber=True)
    assert made.accept(1, 0, "GUIDE0", image(0))[1]  # the same again is acknowledged again


def test_an_extension_that_is_there_needs_clobber(tmp_path: Path) -> None:
    made = builder(tmp_path)
    made.accept(1, 0, "A", image(1))
    with pytest.raises(Exists, match="clobber=true"):
        made.accept(1, 0, "A", image(2))
    record, duplicate = made.accept(1, 0, "A", image(2), clobber=True)
    assert (duplicate, record.number, pixels(record.path)) == (False, 2, 2)
    assert [path.name for path in record.path.parent.glob("*.fits")] == [record.path.name]
    assert made.spool.held == record.size


def test_clobber_without_data_updates_the_header_alone(tmp_path: Path) -> None:
    made = builder(tmp_path)
    made.accept(1, 0, "A", image(1, OBJECT="M31"), header={"AIRMASS": 1.2})
    record, _ = made.accept(1, 0, "A", None, header={"AIRMASS": (1.3, "later")}, clobber=True)
    assert pixels(record.path) == 1
    header = made.get("exposure", expid=1, frame=0, extheader="A")
    assert (header["AIRMASS"], header["OBJECT"]) == (1.3, "M31")
    with pytest.raises(Rejected, match="without data"):
        made.accept(1, 0, "B", None, header={"AIRMASS": 1.0})


def test_nobody_assigned_it(tmp_path: Path) -> None:
    strict = builder(tmp_path / "strict", preset="sky")
    with pytest.raises(Unknown, match="assign it first"):
        strict.accept(5, 0, "SKYCAM0", image(1))
    assert list((tmp_path / "strict").rglob("*.fits")) == []
    assert strict.spool.held == 0
    free = builder(tmp_path / "free")
    free.accept(5, 0, "SKYCAM0", image(1))
    assert free.frame(5, 0).state is FrameState.OPEN
    assert free.build(5, 0).state is FrameState.BUILT


def test_a_list_that_comes_after_the_extensions(tmp_path: Path) -> None:
    made = builder(tmp_path)
    made.accept(1, 0, "A", image(1))
    made.accept(1, 0, "B", image(2))
    assert made.assign(1, 0, extensions=["B", "A"]).state is FrameState.BUILT
    assert made.assign(1, 0, extensions=["A", "B"]).revision == 1  # the same again
    with pytest.raises(Exists, match="was assigned B, A"):
        made.assign(1, 0, extensions=["A"])


def test_a_source_fulfils_an_assignment_under_another_name(tmp_path: Path) -> None:
    made = builder(tmp_path)
    made.assign(1, 0, sources=["CAM0", "CAM1"])
    made.accept(1, 0, "CCDS0Z", image(1), source="cam1")
    assert made.frame(1, 0).missing == ("CAM0",)


def test_late_extensions_make_revisions_of_a_partial_frame(tmp_path: Path) -> None:
    made = builder(tmp_path, preset="guider")
    made.assign(1, 0, extensions=["A", "B", "C"], timeout_s=0.5)
    made.accept(1, 0, "A", image(1))
    time.sleep(0.51)
    made._engine._expire(1, 0, made.frame(1, 0).deadline)
    view = made.frame(1, 0)
    assert (view.state, view.missing, view.revision) == (FrameState.PARTIAL, ("B", "C"), 1)
    made.accept(1, 0, "C", image(3))
    view = made.frame(1, 0)
    assert (view.state, view.missing, view.revision) == (FrameState.PARTIAL, ("B",), 2)
    made.accept(1, 0, "B", image(2))
    view = made.frame(1, 0)
    assert (view.state, view.missing, view.revision) == (FrameState.BUILT, (), 3)
    assert "B came after the frame was built: revision 3" in view.notes
    assert [event.data["what"] for event in made.events() if event.name == "frame"].count("late") == 2


def test_deadlines_grow_with_the_exposure_time(tmp_path: Path) -> None:
    made = builder(tmp_path, timeout_s=10.0, timeout_factor=2.0)
    before = time.time()
    short = made.assign(1, 0, extensions=["A"], header={"EXPTIME": [1.0, "s"]}).deadline
    long = made.assign(2, 0, extensions=["A"], instructions={"exptime": 900}).deadline
    own = made.assign(3, 0, extensions=["A"], timeout_s=5).deadline
    after = time.time()
    for deadline, seconds in ((short, 12.0), (long, 1810.0), (own, 5.0)):
        assert before + seconds <= deadline + 0.01
        assert deadline - 0.01 <= after + seconds


def test_the_primary_is_updated_and_renamed(tmp_path: Path) -> None:
    made = builder(tmp_path, primary="main")
    made.assign(1, 0, extensions=["A", "MAIN"], header={"TILEID": 7, "FLAVOR": "dark"})
    record, duplicate = made.accept(1, 0, "PRIMARY", None, header={"FLAVOR": "science", "AIRMASS": 1.1})
    assert (record.name, duplicate) == ("MAIN", False)
    header = made.frame(1, 0).primary_header
    assert (header["TILEID"], header["FLAVOR"], header["AIRMASS"]) == (7, "science", 1.1)
    made.accept(1, 0, "A", image(1))
    assert made.frame(1, 0).state is FrameState.BUILT
    with pytest.raises(Complete):
        made.accept(1, 0, "PRIMARY", None, header={"FLAVOR": "flat"})
    view = made.set_primary(1, 0, {"FLAVOR": "flat"})
    assert (view.primary_header["TILEID"], view.primary_header["FLAVOR"], view.revision) == (7, "flat", 2)
    view = made.set_primary(1, 0, {"FLAVOR": "arc"}, clobber=True)
    assert list(view.primary_header) == ["FLAVOR"]


def test_a_complete_exposure_opens_no_frames(tmp_path: Path) -> None:
    made = builder(tmp_path)
    made.accept(1, 0, "A", image(1))
    assert made.finalize(1, why="slew").state is ExposureState.COMPLETE
    assert made.frame(1, 0).state is FrameState.BUILT
    with pytest.raises(Complete, match="exposure 1 is complete"):
        made.accept(1, 1, "A", image(1))
    with pytest.raises(Complete):
        made.assign(1, 2, extensions=["A"])
    assert made.events()[-1].data["details"] == {"why": "slew"}


@pytest.mark.parametrize(
    ("expid", "frame", "name"),
    [(-1, 0, "A"), (10**8, 0, "A"), (1, 10_000, "A"), (True, 0, "A"), (1, 0, "../A"), (1, 0, ""), (1, 0, "A" * 33)],
)
def test_numbers_and_names_that_are_none(tmp_path: Path, expid: int, frame: int, name: str) -> None:
    made = builder(tmp_path)
    with pytest.raises(Rejected):
        made.accept(expid, frame, name, image(1))
    assert made.exposures() == ()
    assert list(tmp_path.rglob("*.fits")) == []


def test_what_is_not_saved_is_not_cleared(tmp_path: Path) -> None:
    made = builder(tmp_path)
    for frame in range(2):
        made.accept(1, frame, "A", image(frame))
        made.accept(1, frame, "B", image(frame + 5))
    with pytest.raises(Unsaved, match="2 frames lie nowhere else"):
        made.clear(1)
    with pytest.raises(Unsaved):
        made.configure()
    assert made.clear(1, 0, "B", unsaved="discard") == 1
    assert [item.name for item in made.frame(1, 0).extensions] == ["A"]
    assert made.clear(1, 0, unsaved="discard") == 1
    assert made.exposure(1).frames == (1,)
    with pytest.raises(Unknown):
        made.clear(2)
    made.configure(unsaved="discard")
    assert made.exposures() == ()
    assert made.spool.held == 0
    assert list(tmp_path.rglob("*.fits")) == []


def test_instructions_are_typed(tmp_path: Path) -> None:
    made = builder(tmp_path)
    with pytest.raises(Misconfigured, match="did you mean 'compress'"):
        made.assign(1, 0, extensions=["A"], instructions={"compres": True})
    with pytest.raises(Misconfigured, match="local_copy"):
        made.assign(1, 0, extensions=["A"], instructions={"local_copy": "perhaps"})
    assert made.exposures() == ()
    view = made.assign(1, 0, extensions=["A"], header={"IB_SEND_TO": ["x", "y"], "COMPRESS": "T", "SEND_ARGS": "q"})
    assert (view.instructions.send_to, view.instructions.compress) == (("x", "y"), True)
    assert made.get("ib_instructions", expid=1)["compress"] is True


NAMES = ("A", "B", "C")
FRAMES = (0, 1)


class Model:
    """What one frame ought to be: contents by name, the list if there was one, whether it was closed."""

    def __init__(self) -> None:
        self.held: dict[str, int] = {}
        self.expected: tuple[str, ...] = ()
        self.assigned = False
        self.closed = False
        self.revision = 1

    @property
    def missing(self) -> set[str]:
        return set(self.expected) - set(self.held)

    @property
    def complete(self) -> bool:
        return self.closed and bool(self.expected) and not self.missing

    def settle(self) -> None:
        self.closed = self.closed or bool(self.expected and not self.missing)


class AnyOrder(RuleBasedStateMachine):
    """Pushes, duplicates, late ones, lists, deadlines, purges, clears and restarts, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        self.builder = builder(self.root)
        self.frames: dict[int, Model] = {}
        self.final = False

    def teardown(self) -> None:
        self.builder.close()
        shutil.rmtree(self.root)

    @rule(frame=st.sampled_from(FRAMES), name=st.sampled_from(NAMES), value=st.integers(0, 2), clobber=st.booleans())
    def push(self, frame: int, name: str, value: int, clobber: bool) -> None:
        model = self.frames.get(frame, Model())
        try:
            _, duplicate = self.builder.accept(1, frame, name, image(value), clobber=clobber)
        except Exists:
            assert name in model.held
            assert model.held[name] != value
            assert not clobber
            return
        except Complete:
            assert model.complete or (frame not in self.frames and self.final)
            assert model.held.get(name) != value
            return
        assert duplicate == (model.held.get(name) == value)
        assert duplicate or not model.complete
        self.frames[frame] = model
        if not duplicate:
            model.held[name] = value
            model.revision += model.closed
            model.settle()

    @rule(frame=st.sampled_from(FRAMES), names=st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True))
    def assign(self, frame: int, names: list[str]) -> None:
        model = self.frames.get(frame, Model())
        try:
            self.builder.assign(1, frame, extensions=names)
        except Exists:
            assert model.assigned
            assert set(names) != set(model.expected)
            return
        except Complete:
            assert frame not in self.frames
            assert self.final
            return
        self.frames[frame] = model
        if not model.assigned:
            model.assigned, model.expected = True, tuple(names)
            if model.closed and model.missing:
                model.closed, model.revision = False, model.revision + 1
            model.settle()

    @rule(frame=st.sampled_from(FRAMES))
    def deadline(self, frame: int) -> None:
        if frame in self.frames:
            self.builder._engine.holdings.change(1, frame, lambda view: closed(view, time.time()))
            self.frames[frame].closed = True

    @rule(frame=st.sampled_from(FRAMES))
    def purge(self, frame: int) -> None:
        holdings = self.builder._engine.holdings
        self.deadline(frame)
        if frame not in self.frames or holdings.frame(1, frame).purged:
            return
        view = holdings.frame(1, frame)
        path = self.root / "written" / f"{frame}.fits"
        write_frame(view.extensions, fits.Header({"EXPID": 1, "FRAME": frame}), path, overwrite=True)
        holdings.change(1, frame, lambda item: marked(replace(item, files=(path,)), time.time(), "saved"))
        until = time.monotonic() + PATIENCE_S
        while not holdings.frame(1, frame).purged:  # after a restart stages may just be reading it
            assert time.monotonic() < until
            holdings.give_back(1, frame)

    @rule(frame=st.sampled_from(FRAMES))
    def clear_frame(self, frame: int) -> None:
        if frame in self.frames:
            self.builder.clear(1, frame, unsaved="discard")
            del self.frames[frame]

    @rule(frame=st.sampled_from(FRAMES), name=st.sampled_from(NAMES))
    def clear_extension(self, frame: int, name: str) -> None:
        if frame in self.frames and name in self.frames[frame].held:
            self.builder.clear(1, frame, name, unsaved="discard")
            del self.frames[frame].held[name]

    @rule()
    def finalize(self) -> None:
        if self.builder.exposures():
            self.builder.finalize(1)
            self.final = True
            for model in self.frames.values():
                model.closed = model.closed or not model.expected

    @rule()
    def clear_all(self) -> None:
        self.builder.clear(unsaved="discard")
        self.frames, self.final = {}, False

    @rule()
    def restart(self) -> None:
        self.builder.close()
        self.builder = builder(self.root)
        self.builder.start()

    @staticmethod
    def contents(view: FrameView) -> dict[str, int]:
        """Return the value of each extension, out of its file where the spool gave it back."""
        if not view.purged:
            return {item.name: pixels(item.path) for item in view.extensions}
        with fits.open(view.files[0]) as hdus:
            return {item.name: int(hdus[item.name].data.flat[0]) for item in view.extensions}

    @invariant()
    def everything_acknowledged_is_there(self) -> None:
        size = 0
        for frame, model in self.frames.items():
            view = self.builder.frame(1, frame)
            assert self.contents(view) == model.held
            assert set(view.missing) == model.missing
            assert (view.state is FrameState.OPEN) == (not model.closed)
            assert (view.state is FrameState.PARTIAL) == (model.closed and bool(model.missing))
            assert view.revision == model.revision
            stored = read_frame(view.directory)
            assert (stored.state, stored.extensions, stored.missing) == (view.state, view.extensions, view.missing)
            there = [] if view.purged else [item.path for item in view.extensions]
            assert sorted(view.directory.glob("*.fits")) == sorted(there)
            size += sum(path.stat().st_size for path in there)
        assert self.builder.spool.held == size
        assert list(self.builder.spool.incoming.glob("*.part")) == []
        for exposure in self.builder.exposures():
            assert set(exposure.frames) == set(self.frames)
            assert (exposure.state is ExposureState.OPEN) == (not self.final)
            assert read_exposure(exposure.directory).state is exposure.state


AnyOrder.TestCase.settings = settings(
    max_examples=40, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
TestAnyOrder = pytest.mark.slow(AnyOrder.TestCase)
