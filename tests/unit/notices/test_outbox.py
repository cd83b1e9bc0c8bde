"""The outbox: what is put in is delivered once over each channel, whatever dies or refuses in between."""

from __future__ import annotations

import fcntl
import json
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nightglass.config import Notices
from nightglass.notices import Notice, Outbox, Outcome

NOTICE = Notice(subject="lynx: summary for 20260821", text="40 exposures reduced", key="lynx/20260821/final")


@pytest.fixture
def box(tmp_path: Path) -> Path:
    return tmp_path / "run" / "outbox"


def outcomes(outbox: Outbox, now: float) -> list[Outcome]:
    return [delivery.outcome for delivery in outbox.drain(now)]


def test_a_key_is_told_once_and_a_notice_without_key_each_time(box: Path, tmp_path: Path) -> None:
    config = Notices(file=tmp_path / "told.txt")
    outbox = Outbox(box, config)
    outbox.put(NOTICE)
    outbox.put(NOTICE)
    assert outcomes(outbox, 0) == [Outcome.SENT]
    outbox.put(NOTICE)
    Outbox(box, config).put(replace(NOTICE, text="the same key after a restart"))
    assert outcomes(outbox, 1) == []
    for _ in range(2):
        outbox.put(replace(NOTICE, key=""))
    assert outcomes(outbox, 2) == [Outcome.SENT, Outcome.SENT]
    assert (tmp_path / "told.txt").read_text().count("40 exposures") == 3


def test_a_refused_mail_is_tried_again_later_and_by_another_process(
    box: Path, serve: Callable[[str], Notices], post: Any
) -> None:
    config = serve("starttls")
    post.refuse_data = 2
    Outbox(box, config).put(NOTICE)
    (first,) = Outbox(box, config).drain(100.0)
    assert (first.outcome, first.attempts, first.due_at) == (Outcome.PENDING, 1, 110.0)
    assert "451" in first.error
    after_restart = Outbox(box, config)
    assert after_restart.drain(109.9) == ()
    assert [delivery.due_at for delivery in after_restart.drain(110.0)] == [130.0]
    assert outcomes(after_restart, 130.0) == [Outcome.SENT]
    assert outcomes(after_restart, 1e9) == []
    assert len(post.messages) == 1


def test_only_those_who_were_refused_get_it_again(box: Path, serve: Callable[[str], Notices], post: Any) -> None:
    outbox = Outbox(box, serve("tls"))
    post.refuse = {"b@example.org"}
    outbox.put(NOTICE)
    (first,) = outbox.drain(0)
    assert (first.outcome, first.recipients) == (Outcome.PENDING, ("b@example.org",))
    assert "no such person" in first.error
    post.refuse = set()
    assert outcomes(outbox, 1e6) == [Outcome.SENT]
    assert post.recipients == [["a@example.org"], ["b@example.org"]]


def test_attempts_end_and_one_channel_does_not_hold_up_another(box: Path, tmp_path: Path) -> None:
    config = Notices(file=tmp_path / "told.txt", command=("/no/such/program",), attempts=2, retry_s=1)
    outbox = Outbox(box, config)
    outbox.put(NOTICE)
    assert outcomes(outbox, 0) == [Outcome.SENT, Outcome.PENDING]
    assert [delivery.channel for delivery in outbox.pending()] == ["command program"]
    assert outcomes(outbox, 10) == [Outcome.FAILED]
    assert outcomes(outbox, 1e9) == []
    assert outbox.pending() == ()


def test_a_broken_or_half_written_file_is_put_aside_and_stops_nothing(box: Path, tmp_path: Path) -> None:
    outbox = Outbox(box, Notices(file=tmp_path / "told.txt"))
    outbox.put(NOTICE)
    (box / "0broken.json").write_text('{"notice": {')
    (box / "1empty.json").write_text(json.dumps({"notice": {}, "deliveries": []}))
    (box / f"{'x' * 8}.1.part").write_text("{")
    assert outcomes(outbox, 0) == [Outcome.SENT]
    assert len(list(box.glob("*.unreadable"))) == 2


def test_nobody_drains_while_another_does_and_putting_goes_on(box: Path, tmp_path: Path) -> None:
    outbox = Outbox(box, Notices(file=tmp_path / "told.txt"))
    outbox.put(NOTICE)
    with (box / ".drain.lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert outbox.drain(0) == ()
        outbox.put(replace(NOTICE, key="another"))
    threads = [threading.Thread(target=outbox.drain, args=(0,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    outbox.drain(0)
    assert (tmp_path / "told.txt").read_text().count("40 exposures") == 2


def test_without_a_channel_nothing_is_kept(box: Path) -> None:
    outbox = Outbox(box, Notices())
    outbox.put(NOTICE)
    assert outbox.drain(0) == ()
    assert not box.exists()
