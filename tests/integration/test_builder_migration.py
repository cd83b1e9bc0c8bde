"""docs/migration.md: nothing of DESI's Image Builder is left out, and every call of it works."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nightglass.builder.client import Client
from tests.integration.building import Received, Served, guide_pixels, receiving, served

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "migration.md"
ROW = re.compile(r"^\| (?P<name>`.*?) \| (?P<here>.*) \| `(?P<call>.*)` \|$")

COMMANDS = """configure get set assign build accept_extension write_image get_image send_image clear_image
finalize_exposure archive_exposure register_callback clear_callback set_primary write_archive send_archive get_archive
init main about_to_connect_to_instance did_connect_to_instance about_to_disconnect_from_instance
did_disconnect_from_instance"""
DEFAULTS = """add_frame add_on archive_dir archive_primary archive_secondary archive_metadata camib_version compress
constants_version exclude exposure_ready_mode file_purge file_purge_threshold frame_purge_threshold
mem_purge mem_purge_threshold image_dir image_name local_copy mode plot_mark_center plot_save
plot_save_ext plot_save_mode plot_show plot_show_ext plot_show_mode plot_subtitle plot_title png_dir
primary send_to sources specib_version sub_dir use_exp_dir use_obs_day use_plotter use_built_callback
use_saved_callback use_sent_callback watch OBSERVATORY HEADER_CONSTANTS"""
WORDS = """ib_instructions local_copy expid frame image_dir archive_dir sub_dir image_name mem_purge_threshold
frame_purge_threshold file_purge_threshold send_to mem_purge compress file_purge cb_function cb_args
ib_send_to ib_local_copy archive_primary archive_secondary archive_metadata send_command send_args
autotrieddark autotriedbias"""
GET = """status hostname mode myURI exclude image_name sub_dir image_dir png_dir archive_dir archive_primary
archive_secondary archive_metadata primary compress add_on add_frame add_frames local_copy send_to
mem_purge file_purge mem_purge_threshold frame_purge_threshold file_purge_threshold exposure_ready_mode
exposure_status processing_times exposure ib_instructions exp_ready image_ready archive_ready
plot_options use_built_callback use_saved_callback use_sent_callback builtCB"""
EXPOSURE = ("mode=all", "mode=list", "mode=detail", "extheader=", "extdata=", "expid=n", "frame=m")
SET = """image_name sub_dir image_dir png_dir archive_dir compress add_on add_frame primary local_copy add_send_to
remove_send_to mem_purge file_purge mem_purge_threshold frame_purge_threshold file_purge_threshold expsure_ready_mode
add_exclude remove_exclude plot_ use_obs_day use_exp_dir use_built_callback"""
VARIABLES = "STATUS EXPOSURE_READY ARCHIVE_READY IMAGE_READY _DISKSPACE"
KINDS = """CamIB FocusIB use_donut donutApp GuiderIB use_guider guiderApp accept_rois clear_rois finalize_rois
archive_rois send_rois get_rois write_rois SkyIB SpecIB FVCIB ImagePlotter"""
HOOKS = "image_built image_saved image_sent image_archived"

WANTED = {
    "Commands": COMMANDS,
    "User hooks": HOOKS,
    "Defaults": DEFAULTS,
    "Control words": WORDS,
    "get": GET,
    "set": SET,
    "Shared variables": VARIABLES,
    "Kinds of camera": KINDS,
}


def rows() -> dict[str, list[tuple[str, str]]]:
    """Return the tables of the document: heading -> name and call of each row."""
    found: dict[str, list[tuple[str, str]]] = {}
    heading = ""
    for line in DOCUMENT.read_text().splitlines():
        if line.startswith("## "):
            heading = line[3:]
        elif line.startswith("|") and not line.startswith(("| Image Builder", "|---")):
            row = ROW.match(line)
            assert row is not None, f"a row without a name or a call: {line}"
            found.setdefault(heading, []).append((row["name"], row["call"]))
    return found


TABLES = rows()
CALLS = [pytest.param(call, id=f"{heading}: {name}") for heading, table in TABLES.items() for name, call in table]


@pytest.mark.parametrize("heading", WANTED)
def test_nothing_of_the_image_builder_is_left_out(heading: str) -> None:
    names = " ".join(name for name, _ in TABLES[heading])
    missing = [word for word in WANTED[heading].split() if not re.search(rf"\b{re.escape(word)}|{word}\b", names)]
    assert missing == []


def test_every_way_to_get_an_exposure_is_there() -> None:
    names = " ".join(name for name, _ in TABLES["get"] if "exposure" in name)
    assert [word for word in EXPOSURE if word not in names] == []


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, Received]]:
    root = tmp_path_factory.mktemp("root")
    section = {"name": "guider", "preset": "guider", "timeout_s": 600.0, "image_dir": str(root / "images")}
    with served(root, section) as here, receiving() as there:
        yield here, there


@pytest.fixture
def names(place: tuple[Served, Received], tmp_path: Path) -> Iterator[dict[str, Any]]:
    """Return what the calls of the document name, with the exposures that it describes."""
    here, there = place
    with here.client("guider") as client:
        if not is_prepared(client):
            prepare(client)
        yield {"client": client, "pixels": guide_pixels(5), "folder": tmp_path, "receiver": there.url, "Path": Path}


def is_prepared(client: Client) -> bool:
    found = {view["expid"]: (view["state"], view["frames"]) for view in client.exposures()}
    return found.get(17) == ("open", [0, 1]) and found.get(16) == ("archived", [0])


def prepare(client: Client) -> None:
    client.configure(unsaved="discard")
    client.clear_rois()
    client.accept_rois([{"extension": "GUIDE0", "x": 40, "y": 30, "width": 20, "height": 20}])
    for expid in (16, 17):
        client.assign(expid, 0, sources=["GUIDE0", "GUIDE1"], header={"TILEID": 80605, "EXPTIME": 1.0})
        for number, name in enumerate(("GUIDE0", "GUIDE1")):
            client.push(expid, 0, name, guide_pixels(number), header={"EXPTIME": 1.0}, source=name)
        assert client.build(expid, 0, sources=["GUIDE0", "GUIDE1"])["state"] == "built"
    client.assign(17, 1, sources=["GUIDE0", "GUIDE1"])
    client.finalize(16)
    client.archive(16, wait=True, compress=False)


@pytest.mark.parametrize("call", CALLS)
def test_every_call_works(call: str, names: dict[str, Any]) -> None:
    exec(compile(call, str(DOCUMENT), "exec"), names)  # the document is ours, and this its test
