"""From the writer's first byte to a checked exposure: sensor, bench and the real look into the file, no ledger.

Every hostile writer works at the same time in one directory. The good ones arrive exactly once, each bad one has
exactly one clear reason, and none holds up another.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from nightglass.config import Limits, Source, load_camera
from nightglass.errors import NightglassError, Rejected
from nightglass.fitsio import Inspection, content_id, inspect
from nightglass.model import Sighting
from nightglass.sensors import FileSensor, TransferBench
from nightglass.simulate import NightPlan, hostile, write_night

pytestmark = pytest.mark.slow

WHOLE = hostile.multi_extension()
TIMEOUT_S = 2.0
RESCAN_S = 0.5
PATIENCE_S = 120.0


class Arrivals:
    """The way in, wired as the watch wires it, and a protocol of what came out."""

    def __init__(self, directory: Path, **settings: object) -> None:
        options = {"settle_s": 0.3, "rescan_s": RESCAN_S, "transfer_timeout_s": TIMEOUT_S} | settings
        source = Source.model_validate({"camera": "generic", "directory": str(directory)} | options)
        camera, limits = load_camera("generic"), Limits(image_mib=64)
        self.directory = directory
        self.complete: list[tuple[Sighting, Inspection]] = []
        self.failed: list[tuple[Sighting, NightglassError]] = []
        self.times: dict[str, float] = {}
        self.alarms: list[str] = []
        self.bench = TransferBench(
            partial(inspect, camera=camera, limits=limits),
            on_complete=self._complete,
            on_failed=lambda sighting, error: self.failed.append((sighting, error)),
            transfer_timeout_s=source.transfer_timeout_s,
        )
        self.sensor = FileSensor(source, directory, on_sighting=self.bench.offer, on_alarm=self.alarms.append)

    def _complete(self, sighting: Sighting, inspection: Inspection) -> None:
        self.times[sighting.path.name] = time.monotonic()
        self.complete.append((sighting, inspection))

    @property
    def arrived(self) -> Counter[str]:
        return Counter(sighting.path.name for sighting, _ in self.complete)

    @property
    def reasons(self) -> dict[str, list[str]]:
        reasons: dict[str, list[str]] = {}
        for sighting, error in self.failed:
            reasons.setdefault(sighting.path.name, []).append(str(error))
        return reasons

    def until_quiet(self, *, outcomes: int) -> None:
        """Wait for so many outcomes, and then until nothing more comes."""
        ends_at = time.monotonic() + PATIENCE_S
        quiet_since = time.monotonic()
        while time.monotonic() < ends_at:
            came = len(self.complete) + len(self.failed)
            if came < outcomes or self.bench.pending or not self.sensor.status.caught_up:
                quiet_since = time.monotonic()
            elif time.monotonic() - quiet_since > 2 * RESCAN_S:  # a scan, and the file has settled
                return
            time.sleep(0.02)
        pytest.fail(f"{self.bench.pending} files still pending; {self.sensor.status}")


@pytest.fixture(params=[False, True], ids=["events", "polling"])
def arrivals(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Arrivals]:
    directory = tmp_path / "raw"
    arrivals = Arrivals(directory, polling=request.param)
    arrivals.bench.start()
    arrivals.sensor.start()
    yield arrivals
    arrivals.sensor.stop()
    arrivals.bench.stop()
    arrivals.sensor.join(PATIENCE_S)
    arrivals.bench.join(PATIENCE_S)


def _zero_tail_of_long_ago(path: Path) -> None:
    """Pixels may be zeros: a file that rested is taken as it is."""
    hostile.zero_tail(path, hostile.tiny())
    os.utime(path, (1e9, 1e9))


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated.fits": (lambda path: hostile.truncated(path, WHOLE), "bytes came and nothing more"),
    "cut.fits": (lambda path: hostile.cut_at_hdu_edge(path, WHOLE, extensions=2), "2 of 4 extensions"),
    "primary-only.fits": (lambda path: hostile.cut_at_hdu_edge(path, WHOLE, extensions=0), "0 of 4 extensions"),
    "header-only.fits": (lambda path: path.write_bytes(hostile.tiny()[:1000]), "1000 bytes came"),
    "zeros.fits": (lambda path: hostile.zero_tail(path, WHOLE), "3 of 4 extensions"),
    "empty.fits": (hostile.empty, "0 bytes"),
    "garbage.fits": (hostile.garbage, "FITS"),
    "garbage.fits.gz": (hostile.garbage, "FITS"),
    "text.fits": (lambda path: path.write_text("<html>404 Not Found</html>"), "FITS"),
    "bomb.fits.gz": (partial(hostile.gzip_bomb, expanded_mib=200), "image_mib"),
    "quiet-bomb.fits": (partial(hostile.gzip_bomb, expanded_mib=400, announced_mib=1), "bomb"),
    "cut.fits.gz": (lambda path: path.write_bytes(hostile.compressed(WHOLE)[:-40]), "bytes came"),
}


def test_every_hostile_writer_at_once(arrivals: Arrivals) -> None:
    raw = arrivals.directory
    good: list[tuple[str, Callable[[Path], object]]] = [
        (f"{write.__name__}.fits", partial(write, content=WHOLE)) for write in hostile.GOOD_WRITERS
    ]
    good += [
        ("upper.FITS", lambda path: path.write_bytes(hostile.tiny(number=2))),
        ("packed.fits.gz", lambda path: path.write_bytes(hostile.compressed(hostile.tiny(number=3)))),
        ("packed-without-saying.fits", lambda path: path.write_bytes(hostile.compressed(hostile.tiny(number=4)))),
        ("nested.fits", partial(hostile.new_nested_directory, content=hostile.tiny(number=5))),
        ("moved.fits", partial(hostile.move_directory_from_outside, content=hostile.tiny(number=6))),
        ("zero-tail.fits", _zero_tail_of_long_ago),
    ]
    jobs = [partial(write, raw / name) for name, write in good]
    jobs += [partial(write, raw / name) for name, (write, _) in BAD.items()]
    jobs += [
        partial(function, raw / f"{function.__name__}.fits")
        for function in (hostile.named_like_a_file, hostile.symlink_loop)
    ]
    threads = [threading.Thread(target=job) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    arrivals.until_quiet(outcomes=len(good) + len(BAD))

    assert arrivals.arrived == dict.fromkeys((name for name, _ in good), 1)
    assert {name: len(reasons) for name, reasons in arrivals.reasons.items()} == dict.fromkeys(BAD, 1)
    for name, (_, expected) in BAD.items():
        reason = arrivals.reasons[name][0]
        assert expected in reason, reason
        assert str(raw / name) in reason
    assert all(isinstance(error, Rejected) and error.remedy for _, error in arrivals.failed)
    for sighting, inspection in arrivals.complete:
        assert (sighting.size, inspection.size) == (sighting.path.stat().st_size,) * 2
        assert inspection.content_id == content_id(sighting.path)
    assert not arrivals.alarms


def test_slow_files_hold_up_no_good_one(arrivals: Arrivals) -> None:
    raw = arrivals.directory
    for number in range(200):
        hostile.truncated(raw / f"slow-{number:03d}.fits", hostile.tiny(number=number))
    latencies = []
    plan = NightPlan(shape=(128, 128), biases=6, darks=0, flats=0, science=0)

    def note(path: Path, *_: int) -> None:
        closed_at = time.monotonic()
        while path.name not in arrivals.times and time.monotonic() < closed_at + PATIENCE_S:
            time.sleep(0.002)
        latencies.append(arrivals.times[path.name] - closed_at)

    write_night(raw, plan, seed=1, pace_s=0.1, progress=note)
    longest = 2.5 if arrivals.sensor.status.state == "polling" else 0.5
    assert sorted(latencies)[3] < longest
    assert max(latencies) < 2 * longest
    arrivals.until_quiet(outcomes=200 + len(latencies))
    assert len(arrivals.failed) == 200


def test_a_burst_of_thousands(arrivals: Arrivals) -> None:
    paths = hostile.burst(arrivals.directory, count=1000)
    ends_at = time.monotonic() + PATIENCE_S
    while len(arrivals.complete) < len(paths) and time.monotonic() < ends_at:
        time.sleep(0.05)
    arrivals.until_quiet(outcomes=len(paths))
    assert arrivals.arrived == dict.fromkeys((path.name for path in paths), 1)
    assert not arrivals.failed


def test_a_quarantined_file_is_taken_when_the_rest_of_it_comes(arrivals: Arrivals) -> None:
    path = arrivals.directory / "late.fits"
    hostile.cut_at_hdu_edge(path, WHOLE, extensions=3)
    arrivals.until_quiet(outcomes=1)
    assert list(arrivals.reasons) == ["late.fits"]
    with path.open("ab") as stream:
        stream.write(WHOLE[path.stat().st_size :])
    arrivals.until_quiet(outcomes=2)
    assert arrivals.arrived == {"late.fits": 1}
    assert len(arrivals.failed) == 1


@pytest.mark.parametrize("replace", [hostile.replace_in_place, hostile.replace_by_rename])
def test_replaced_and_copied_files_arrive_as_what_they_are_now(
    arrivals: Arrivals, replace: Callable[[Path, bytes], None]
) -> None:
    path = arrivals.directory / "a.fits"
    path.write_bytes(hostile.tiny(number=1))
    arrivals.until_quiet(outcomes=1)
    replace(path, hostile.tiny(number=2))
    hostile.copy_under_another_name(path)
    arrivals.until_quiet(outcomes=3)
    assert arrivals.arrived == {"a.fits": 2, "copy-of-a.fits": 1}
    first, *others = [inspection.content_id for _, inspection in arrivals.complete]
    assert len(set(others)) == 1, "the same bytes under another name have the same content id"
    assert first not in others


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_an_unreadable_file_is_named_and_taken_when_it_becomes_readable(arrivals: Arrivals) -> None:
    path = arrivals.directory / "secret.fits"
    hostile.unreadable(path, hostile.tiny())
    arrivals.until_quiet(outcomes=1)
    assert "Permission denied" in arrivals.reasons["secret.fits"][0]
    path.chmod(0o644)
    arrivals.until_quiet(outcomes=2)
    assert arrivals.arrived == {"secret.fits": 1}
