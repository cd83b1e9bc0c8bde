"""Real files of every odd kind, through the same look as on the night, in a process whose memory is bounded.

Each gives either a described exposure with its pixels or exactly one clear rejection; none crashes, hangs or swells.
"""

from __future__ import annotations

import json
import re
import resource
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

SETS = ("astropy_io_fits", "panoptes", "lsst_multiamp_raw")
HEADROOM_MIB = 1024
"""Address space beyond what the imports take: some of these files expand 800-fold."""


@pytest.fixture(scope="module", params=SETS)
def outcomes(request: pytest.FixtureRequest, real_data: Path) -> tuple[Path, dict[str, Any]]:
    directory = real_data / str(request.param)
    command = [sys.executable, "-W", "error", __file__, str(directory)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert result.returncode == 0, result.stderr[-4000:]
    return directory, json.loads(result.stdout)


@pytest.mark.real
@pytest.mark.slow
def test_each_file_is_described_or_rejected_for_one_reason(outcomes: tuple[Path, dict[str, Any]]) -> None:
    directory, report = outcomes
    files = sorted(path.name for path in directory.iterdir())
    assert sorted(report["files"]) == files
    problems = {name: found for name in files if not _is_one_clear_outcome(name, found := report["files"][name])}
    assert not problems
    assert report["swollen_mib"] < HEADROOM_MIB


def _is_one_clear_outcome(name: str, found: list[dict[str, Any]]) -> bool:
    if len(found) != 1:
        return False
    if found[0]["kind"] == "exposure":
        return bool(found[0]["sums"])
    return found[0]["kind"] == "Rejected" and name in found[0]["text"] and "fault of Nightglass" not in found[0]["text"]


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::astropy.utils.exceptions.AstropyWarning")
def test_pixels_and_wrong_sums_are_those_that_astropy_finds(outcomes: tuple[Path, dict[str, Any]]) -> None:
    directory, report = outcomes
    for name, (outcome,) in report["files"].items():
        if outcome["kind"] == "exposure":
            assert outcome["sums"] == pytest.approx(_sums(directory / name), rel=1e-4), name
        elif match := re.search(r"DATASUM of HDU (\d+)", outcome["text"]):
            with fits.open(directory / name, disable_image_compression=True) as hdus:
                assert not hdus[int(match[1])].verify_datasum(), name


@pytest.mark.real
@pytest.mark.slow
def test_good_files_among_them_are_good(outcomes: tuple[Path, dict[str, Any]]) -> None:
    directory, report = outcomes
    good = {name for name, outcome in report["files"].items() if outcome[0]["kind"] == "exposure"}
    expected = {
        "astropy_io_fits": {"m13.fits", "m13_gzip.fits", "m13_rice.fits", "m13_hcomp.fits", "test0.fits", "scale.fits"},
        "panoptes": {"noheader.fits", "solved.fits.fz"},
        "lsst_multiamp_raw": {"7024032100720-R22-S11-det094.fits.fz"},
    }[directory.name]
    assert expected <= good, {name: report["files"][name] for name in expected - good}


def _sums(path: Path) -> list[float]:
    with fits.open(path) as hdus:
        pixels = [hdu.data for hdu in hdus if isinstance(hdu, (fits.PrimaryHDU, fits.ImageHDU, fits.CompImageHDU))]
        frames = [np.squeeze(data) for data in pixels if data is not None]
        return [float(np.nansum(frame, dtype=float)) for frame in frames if frame.ndim == 2 or frame.size == 1]


def _look_at_all(directory: Path) -> dict[str, Any]:
    """Run in the bounded process: the transfer bench with the production check, and the reading of the pixels."""
    from nightglass.config import Limits, Site, load_camera
    from nightglass.dialects import describe
    from nightglass.fitsio import inspect, read_raw
    from nightglass.model import Sighting
    from nightglass.sensors import TransferBench

    camera, limits = load_camera("generic"), Limits()
    files: dict[str, list[dict[str, Any]]] = {}
    lock = threading.Lock()

    def check(path: Path) -> dict[str, Any]:
        inspection = inspect(path, camera, limits)
        status = path.stat()
        ref = describe(
            path,
            inspection.headers,
            camera,
            site=Site(),
            night=None,
            content_id=inspection.content_id,
            size=status.st_size,
            mtime=status.st_mtime,
        )
        images = read_raw(path, camera, limits)
        return {
            "kind": "exposure",
            "id": ref.exposure_id,
            "sums": [float(image.data.sum(dtype=float)) for image in images],
        }

    def tell(sighting: Sighting, outcome: Any) -> None:
        if isinstance(outcome, Exception):
            outcome = {"kind": type(outcome).__name__, "text": str(outcome)}
        with lock:
            files.setdefault(sighting.path.name, []).append(outcome)

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    bound = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + (HEADROOM_MIB << 20)
    resource.setrlimit(resource.RLIMIT_AS, (bound, bound))
    bench = TransferBench(check, on_complete=tell, on_failed=tell, slots=1, transfer_timeout_s=0.3)
    bench.start()
    for path in sorted(directory.iterdir()):
        status = path.stat()
        bench.offer(
            Sighting(
                path=path,
                size=status.st_size,
                mtime_ns=status.st_mtime_ns,
                inode=status.st_ino,
                seen_at=datetime.now(UTC),
            )
        )
    while bench.pending:
        time.sleep(0.02)
    bench.stop()
    bench.join()
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"files": files, "swollen_mib": (after - before) / 1024}


if __name__ == "__main__":
    json.dump(_look_at_all(Path(sys.argv[1])), sys.stdout)
