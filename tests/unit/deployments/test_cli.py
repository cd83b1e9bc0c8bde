"""The command line: quick to start, clear about mistakes, honest about a night."""

from __future__ import annotations

import getpass
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from deployments.cli import main
from nightglass.errors import Rejected
from nightglass.ledger import GroupRecord, Ledger
from nightglass.model import ExposureRef, Kind, Night, Product, ProductKind, Quality, Sighting

NIGHT = Night("20260821")
T0 = datetime(2026, 8, 22, 3, tzinfo=UTC)


class Result:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


Call = Callable[..., Result]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], root: Path) -> Call:
    """Call the command line in this process, under a root of its own."""
    for name in ("NIGHTGLASS_CONFIG", "NIGHTGLASS_MAIL_FROM", "NIGHTGLASS_MAIL_TO", "PREFECT_API_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NIGHTGLASS_ROOT", str(root))
    monkeypatch.setenv("COLUMNS", "140")

    def invoke(*arguments: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["nightglass", *arguments])
        try:
            main()
            code = 0
        except SystemExit as ended:
            code = int(ended.code or 0)
        out, err = capsys.readouterr()
        return Result(code, out, err)

    return invoke


@pytest.fixture
def night(root: Path, tmp_path: Path) -> Iterator[Ledger]:
    """A night of four: one reduced in 0.5 s, one rejected, one grouped, one only seen."""
    root.mkdir()
    with Ledger.open(root / "ledger.sqlite") as ledger:
        ledger.open_night(NIGHT, "lynx", midway_due=T0, final_due=T0 + timedelta(hours=9))
        keys = []
        for number in range(4):
            raw = tmp_path / f"{number}.fits"
            raw.write_bytes(b"raw")
            stat = raw.stat()
            sighting = Sighting(
                path=raw, size=stat.st_size, mtime_ns=stat.st_mtime_ns, inode=stat.st_ino, seen_at=datetime.now(UTC)
            )
            keys.append(ledger.see(sighting, camera="lynx", night=NIGHT).key)
        for number in (0, 2):
            name = f"lynx/20260821/{number}"
            ref = ExposureRef(
                exposure_id=name,
                night=NIGHT,
                camera="lynx",
                kind=Kind.SCIENCE,
                path=tmp_path / f"{number}.fits",
                size=3,
                content_id=f"c{number}",
                started_at=T0,
                filter="r",
            )
            ledger.complete(keys[number], ref)
            ledger.group(GroupRecord(group_id=name, night=NIGHT, camera="lynx", rule="", members=(name,)))
        (lease,) = ledger.claim(["lynx/20260821/0"], owner="test", lease_s=60)
        product = Product(
            kind=ProductKind.REDUCED, key=lease.exposure_id, path=tmp_path / "gone.fits", checksum="x", size=1
        )
        ledger.commit(lease, products=[product], quality=Quality.OK, measured={"seeing": 1.5}, publish=lambda: None)
        ledger.reject(keys[1], Rejected("1.fits: no EXPTIME", remedy="add it"))
        yield ledger


def test_help_comes_at_once_and_loads_nothing_heavy() -> None:
    probe = (
        "import sys, time; sys.argv = ['nightglass', 'run', '--help']; began = time.perf_counter()\n"
        "from deployments.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'prefect', 'dask', 'distributed', 'astropy', 'numpy', 'sqlalchemy', 'httpx'} & set(sys.modules)\n"
        "sys.exit(f'{heavy} in {time.perf_counter() - began:.2f} s' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--camera" in done.stdout


def test_every_command_has_help(call: Call) -> None:
    commands = [
        "run",
        "reduce",
        "demo",
        "status",
        "calibrations",
        "retry",
        "skip",
        "check",
        "deploy",
        "ledger",
        "camera",
        "notice",
    ]
    overview = call("--help")
    for command in commands:
        assert command in overview.out
        assert call(command, "--help").code == 0
    for command in (["ledger", "reconcile"], ["camera", "test"], ["camera", "list"], ["notice", "test"]):
        assert call(*command, "--help").code == 0
    assert call("--version").out.startswith("nightglass ")


SITE = """
[night]
midwy = "16h"
"""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run"], ["no directory to watch", "--camera"]),
        (["run", "raw"], ["which camera", "--camera NAME"]),
        (["run", "raw", "--camera", "lynz"], ["no camera 'lynz'", "did you mean 'lynx'", "generic"]),
        (["run", "raw", "--camera", "lynx", "--realtime", "quick"], ["no step list", "'quick'", "realtime"]),
        (["run", "raw", "--camera", "lynx", "--postprocess", "slow"], ["no step list", "'slow'", "postprocess"]),
        (["run", "raw", "--camera", "lynx", "--night", "tonight"], ["tonight", "YYYYMMDD"]),
        (["run", "raw", "--camera", "lynx", "--midway", "noon"], ["noon", "16h"]),
        (["run", "raw", "--camera", "lynx", "--mail-to", "a@b"], ["sender and recipients", "a@b"]),
        (["run", "raw", "--camera", "lynx", "--mail-from", "a@b"], ["sender and recipients", "a@b"]),
        (["run", "raw", "--camera", "lynx", "--mail-to", "nobody", "--mail-from", "a@b"], ["nobody", "mail address"]),
        (["run", "raw", "--camera", "lynx", "--log-level", "loud"], ["log_level"]),
        (["run", "raw", "--camera", "lynx", "--once"], ["raw", "not a directory"]),
        (["run", "--config", "site.toml"], ["unknown key 'night.midwy'", "did you mean 'midway'"]),
        (["status"], ["no night under", "--root"]),
        (["notice", "test"], ["no mail"]),
        (["deploy"], ["no Prefect server", "PREFECT_API_URL"]),
    ],
)
def test_a_mistake_is_one_clear_line_and_code_2(
    call: Call, arguments: list[str], words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "site.toml").write_text(SITE)
    result = call(*arguments)
    assert result.code == 2
    assert result.err.count("\n") == 1
    assert result.err.startswith("nightglass: ")
    for word in words:
        assert word in result.err
    assert "Traceback" not in result.err
    assert not root.exists(), "a mistake touches nothing"


def test_status_counts_and_explains(call: Call, night: Ledger) -> None:
    found = json.loads(call("status", "--json").out)
    assert found["night"] == "20260821"
    assert found["cameras"] == ["lynx"]
    assert {state: count for state, count in found["counts"].items() if count} == {
        "reduced": 1,
        "rejected": 1,
        "grouped": 1,
        "seen": 1,
    }
    assert 0 <= found["latency_s"]["p50"] <= found["latency_s"]["p95"] < 60
    assert found["lag"] >= 0
    assert found["disk"]["free_gib"] > 0
    assert [stage["stage"] for stage in found["stages"]] == ["midway", "final"]
    (error,) = found["errors"]
    assert (error["state"], error["cause"], error["count"]) == ("rejected", "Rejected", 1)
    assert "no EXPTIME" in error["reason"]

    screen = call("status", "--night", "20260821").out
    assert "1 of 4 exposures reduced" in screen
    assert "no EXPTIME" in screen
    assert "science" in screen
    assert '1.50"' in screen


def test_status_of_another_night_is_empty(call: Call, night: Ledger) -> None:
    found = json.loads(call("status", "--night", "20260101", "--json").out)
    assert found["total"] == 0
    assert found["latency_s"] == {"p50": None, "p95": None}


def test_exposures_are_skipped_and_retried_by_id_and_by_file(call: Call, night: Ledger, tmp_path: Path) -> None:
    result = call("skip", "lynx/20260821/2", str(tmp_path / "3.fits"))
    assert result.code == 0
    assert night.find("lynx/20260821/2").state.value == "skipped"
    assert night.find("lynx/20260821/2").reason == f"skipped by {getpass.getuser()}"
    assert night.find(str(tmp_path / "3.fits")).state.value == "skipped"
    result = call("retry", "2", str(tmp_path / "1.fits"))
    assert night.find("lynx/20260821/2").state.value == "grouped"
    assert night.find(str(tmp_path / "1.fits")).state.value == "seen"
    assert "lynx/20260821/2" in result.out
    assert "no watch runs" in result.out
    result = call("retry", "lynx/20260821/77")
    assert result.code == 2
    assert "77" in result.err


def test_reconcile_names_every_difference(call: Call, night: Ledger, root: Path, tmp_path: Path) -> None:
    stray = root / "lynx" / "20260821" / "reduced" / "99.fits"
    stray.parent.mkdir(parents=True)
    stray.write_bytes(b"")
    (tmp_path / "1.fits").unlink()
    result = call("ledger", "reconcile", "--night", "20260821")
    assert result.code == 1
    for words in ("unfinished", "product gone", "unknown product", "99.fits", "gone"):
        assert words in result.out
    assert call("ledger", "reconcile", "--night", "20260822").code == 2


def test_a_notice_goes_to_every_channel(call: Call, tmp_path: Path) -> None:
    site = tmp_path / "site.toml"
    site.write_text(f'[notices]\nfile = "{tmp_path / "told.txt"}"\ncommand = ["false"]\n')
    result = call("notice", "test", "--config", str(site))
    assert result.code == 1
    assert "sent" in result.out
    assert "failed" in result.out
    assert "Nightglass: test" in (tmp_path / "told.txt").read_text()


def test_cameras_are_listed(call: Call) -> None:
    result = call("camera", "list")
    assert result.code == 0
    for name in ("generic", "exotic", "kast", "feder", "lynx"):
        assert name in result.out
