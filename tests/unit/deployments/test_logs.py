"""Log lines: their form, and the file of the night to which they go."""

from __future__ import annotations

import logging
import re
from datetime import UTC, datetime
from pathlib import Path

from deployments.logs import NightFiles, logging_to, night_paths
from nightglass.config import Observatory, Site
from nightglass.model import Night
from nightglass.nights import night_of

LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (DEBUG  |INFO   |WARNING|ERROR  ) [\w.]+: .*")


def test_lines_have_moment_level_and_module(tmp_path: Path) -> None:
    path = tmp_path / "lynx" / "logs" / "n.log"
    with logging_to(NightFiles(lambda: (path,)), level="INFO"):
        logging.getLogger("nightglass.watch").info("42 reduced in %.2f s", 0.61)
        logging.getLogger("nightglass.watch").debug("not asked for")
        logging.getLogger("httpx").info("says nothing about the night")
        logging.getLogger("nightglass").error("bad name \udcff")
        # read while it is open: whoever follows a night must not wait for a buffer
        lines = path.read_text().splitlines()
    assert all(LINE.fullmatch(line) for line in lines), lines
    assert [line.partition(": ")[2] for line in lines] == ["42 reduced in 0.61 s", r"bad name \udcff"]
    logging.getLogger("nightglass").error("after the end")
    assert len(path.read_text().splitlines()) == 2


def test_the_file_changes_with_the_night(tmp_path: Path) -> None:
    now, nights = [0.0], [Night("20260821")]
    handler = NightFiles(lambda: (tmp_path / f"{nights[0]}.log",), clock=lambda: now[0])
    with logging_to(handler, level="INFO"):
        logging.info("evening")
        nights[0] = nights[0].shifted(1)
        logging.info("still in the first file until it is asked again")
        now[0] = 60.0
        logging.info("next evening")
    assert len((tmp_path / "20260821.log").read_text().splitlines()) == 2
    assert "next evening" in (tmp_path / "20260822.log").read_text()


def test_lines_before_the_first_night_are_kept_for_it(tmp_path: Path) -> None:
    now, paths = [0.0], list[Path]()
    with logging_to(NightFiles(lambda: tuple(paths), clock=lambda: now[0]), level="INFO"):
        logging.info("starting")
        paths.append(tmp_path / "n.log")
        now[0] = 1.0
        logging.info("opened")
        paths.clear()
        now[0] = 60.0
        logging.info("closed, and still said")
    lines = (tmp_path / "n.log").read_text().splitlines()
    assert [line.rpartition(": ")[2] for line in lines] == ["starting", "opened", "closed, and still said"]


def test_there_is_one_file_a_camera_and_a_named_night_stays(tmp_path: Path) -> None:
    site = Site(timezone="America/Santiago")
    observatory = Observatory(root=tmp_path, site=site)
    tonight = night_of(datetime.now(UTC), site).label
    names = [str(path.relative_to(tmp_path)) for path in night_paths(observatory, ["lynx", "owl"], None)()]
    assert names == [f"{camera}/{tonight}/logs/{tonight}.log" for camera in ("lynx", "owl")]
    assert night_paths(observatory, ["lynx"], Night("20260101"))()[0].name == "20260101.log"
