"""A short run of the fuzzer; a long one is a command, see CONTRIBUTING."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("atheris", reason="atheris is not installed: it has no wheel for this platform")


@pytest.mark.slow
def test_a_fuzzer_finds_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.fuzz.decoders", str(tmp_path / "corpus"), "-runs=5000", "-seed=4"]
    result = subprocess.run(
        [*command, f"-artifact_prefix={tmp_path}/"],
        cwd=Path(__file__).resolve().parents[3],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert "Done 5000 runs" in result.stderr
    assert len(list((tmp_path / "corpus").iterdir())) > 20  # it got beyond the seeds
