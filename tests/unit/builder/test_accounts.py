"""The account of an exposure: what happened to its frames, as a file and as a run shows it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from prefect.states import Completed

from nightglass.builder.accountfiles import write_account
from nightglass.builder.accounts import Account, make_account, read_account
from nightglass.builder.records import ExposureState, ExposureView, ExtensionRecord, FrameState, FrameView
from nightglass.config import Observatory
from nightglass.errors import Misconfigured
from nightglass.layout import Layout
from nightglass.model import Night
from tasks.building import conclude_account, find_account, show_step

NIGHT = Night("20260821")


def account() -> Account:
    record = ExtensionRecord(name="A", path=Path("a.fits"), size=1000)
    times = {"assigned": 100.0, "first": 100.5, "last": 101.0, "built": 101.25}
    frames = [
        FrameView(expid=17, frame=0, state=FrameState.BUILT, extensions=(record, record), times=times),
        FrameView(
            expid=17,
            frame=1,
            state=FrameState.PARTIAL,
            extensions=(record,),
            missing=("B",),
            times={**times, "built": 101.75, "saved": 102.0},
            files=(Path("x.fits"),),
        ),
    ]
    view = ExposureView(expid=17, night=NIGHT, state=ExposureState.COMPLETE, frames=(0, 1))
    return make_account("guider", "generic", view, frames)


def test_an_account_comes_back_as_it_was_written(tmp_path: Path) -> None:
    path = Layout(tmp_path).account("generic", NIGHT, "guider", 17)
    write_account(path, account())
    write_account(path, account())
    assert read_account(path) == account()
    assert path == tmp_path / "generic/20260821/reports/guider-00000017.json"
    assert account().partial == [1]


def test_steps_are_timed_where_they_happened() -> None:
    assert account().summary("collect") == {"frames": 2, "p50_s": 1.0, "p95_s": 1.0}
    assert account().summary("build") == {"frames": 2, "p50_s": 0.5, "p95_s": 0.725}
    assert account().summary("write") == {"frames": 1, "p50_s": 0.25, "p95_s": 0.25}
    assert account().summary("send") == {"frames": 0}


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"frames": [{"frame": 1}]}', b"\xff"])
def test_what_is_no_account_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.json"
    with pytest.raises(Misconfigured, match="no account"):
        read_account(path)
    path.write_bytes(content)
    with pytest.raises(Misconfigured, match=r"x\.json"):
        read_account(path)


async def test_a_run_finds_the_account_and_says_how_it_went(tmp_path: Path) -> None:
    observatory = Observatory(root=tmp_path)
    write_account(Layout(tmp_path).account("generic", NIGHT, "guider", 17), account())
    found = await find_account.fn("generic/20260821/17", "guider", "", observatory, "")
    assert found == account()
    for exposure in ("generic/20260821", "generic/20260821/x", "generic/20260821/18"):
        with pytest.raises(Misconfigured):
            await find_account.fn(exposure, "guider", "", observatory, "")
    done = await show_step.fn("write", found.summary("write"))
    assert "frames 1" in str(done.message)
    assert (await show_step.fn("send", found.summary("send"))).name == "NotDone"
    assert conclude_account(found).name == "Partial"
    whole = replace(found, frames=found.frames[:1])
    assert conclude_account(whole).type == Completed().type
