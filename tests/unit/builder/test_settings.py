"""Options, presets, the observatory file, and everything that a control system may ask for or set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest

from nightglass.builder.instructions import is_control_word
from nightglass.builder.options import Effective, change_options, effective, settable
from nightglass.builder.presets import PRESETS, options_of
from nightglass.builder.records import Instructions
from nightglass.config import BuilderOptions, BuilderSource, Preset, load_observatory
from nightglass.errors import Misconfigured
from tests.unit.builder.desk import builder, image


def _words(text: str) -> list[str]:
    return text.split()


ASKED = _words(
    """
    status hostname mode myURI exclude image_name sub_dir image_dir png_dir archive_dir
    archive_primary archive_secondary archive_metadata primary compress add_on add_frame add_frames
    local_copy send_to mem_purge file_purge mem_purge_threshold frame_purge_threshold
    file_purge_threshold exposure_ready_mode exposure_status processing_times exposure
    ib_instructions exp_ready image_ready archive_ready plot_options use_built_callback
    use_saved_callback use_sent_callback builtCB
    """
)
"""Everything that DESI's Image Builder answers."""
SET: dict[str, Any] = {
    "image_name": "img",
    "sub_dir": "sub",
    "image_dir": "",
    "png_dir": "",
    "archive_dir": "",
    "compress": True,
    "add_on": "x",
    "add_frame": False,
    "primary": "main",
    "local_copy": True,
    "add_send_to": "http://127.0.0.1:1/",
    "mem_purge": False,
    "file_purge": True,
    "mem_purge_threshold": 7,
    "frame_purge_threshold": 8,
    "file_purge_threshold": 9,
    "exposure_ready_mode": "fits",
    "add_exclude": "secret",
    "plot_save": True,
    "plot_title": False,
    "use_obs_day": False,
    "use_exp_dir": False,
    "use_built_callback": False,
}
"""Everything that it lets be set; ``remove_send_to`` and ``remove_exclude`` follow below."""
DEFAULTS = _words(
    """
    add_frame add_on archive_dir archive_primary archive_secondary archive_metadata compress
    constants_version exclude exposure_ready_mode file_purge file_purge_threshold
    frame_purge_threshold mem_purge mem_purge_threshold image_dir image_name local_copy mode
    plot_mark_center plot_save plot_save_ext plot_save_mode plot_show plot_show_ext plot_show_mode
    plot_subtitle plot_title png_dir primary send_to sources sub_dir use_exp_dir use_obs_day
    use_plotter use_built_callback use_saved_callback use_sent_callback
    """
)
"""The keys of its defaults, less its versions and the applications that it watches."""


CONTROL_WORDS = _words(
    """
    local_copy expid image_dir archive_dir sub_dir image_name mem_purge_threshold frame_purge_threshold
    file_purge_threshold send_to mem_purge compress file_purge cb_function cb_args ib_send_to ib_local_copy
    archive_primary archive_secondary archive_metadata send_command send_args frame autotrieddark autotriedbias
    """
)
"""Its CAMERA_HEADERS, with the comma that is missing there between the words send_args and frame."""


def test_everything_is_answered_as_plain_json(tmp_path: Path) -> None:
    made = builder(tmp_path, outputs=True)
    made.address = "http://127.0.0.1:8000"
    with made:
        assert {name: json.loads(json.dumps(made.get(name))) is not ... for name in ASKED} == dict.fromkeys(ASKED, True)
        made.assign(4, 2, extensions=["A"], header={"OBJECT": "M31"}, instructions={"compress": True})
        made.accept(4, 2, "A", image(1, OBJECT="M32"))
        made.build(4, 2)
        for name in ASKED:
            json.dumps(made.get(name))
        assert made.get("myURI") == "http://127.0.0.1:8000"
        assert made.get("exposure", mode="list") == [4]
        assert made.get("exposure", mode="detail")["4"]["frames"] == {"2": ["A"]}
        assert made.get("exposure", mode="all")["4"]["frames"]["2"]["extensions"][0]["name"] == "A"
        assert made.get("exposure", expid=4)["night"]
        assert made.get("exposure", expid=4, frame=2)["state"] == "built"
        assert made.get("exposure", expid=4, frame=2, extheader="a")["OBJECT"] == "M32"
        assert made.get("exposure", expid=4, frame=2, extheader="PRIMARY")["OBJECT"] == "M31"
        data = made.get("exposure", expid=4, frame=2, extdata="A")
        assert (data["shape"], data["bitpix"], Path(data["path"]).exists()) == ([4, 6], 16, True)
        assert made.get("ib_instructions") == {"compress": True}
        assert made.get("ib_instructions", expid=4, frame=2)["compress"] is True
        assert made.get("exposure_status", expid=4)["frames"] == [2]


@pytest.mark.parametrize(
    ("what", "options", "hint"),
    [
        ("statos", {}, "'status'"),
        ("status", {"expid": 1}, "option of status"),
        ("exposure", {"mod": "list"}, "'mode'"),
        ("exposure", {"mode": "lst"}, "'list'"),
        ("exposure", {"extdata": "A"}, "expid and frame"),
    ],
)
def test_wrong_questions_are_told_the_right_ones(tmp_path: Path, what: str, options: dict[str, Any], hint: str) -> None:
    with pytest.raises(Misconfigured, match=hint):
        builder(tmp_path).get(what, **options)


def test_everything_can_be_set(tmp_path: Path) -> None:
    made = builder(tmp_path)
    for name, value in SET.items():
        made.set(**{name: value})
    options = made.options
    assert (options.primary, options.exclude, options.send_to) == ("MAIN", ("SECRET",), ("http://127.0.0.1:1/",))
    assert (options.plot_save, options.mem_purge_threshold, options.add_frame) == (True, 7, False)
    made.set(remove_send_to="http://127.0.0.1:1/", remove_exclude=["secret"], sub_dir=None)
    assert (made.options.exclude, made.options.send_to, made.options.sub_dir) == ((), (), "")
    assert set(SET) | {"remove_send_to", "remove_exclude"} <= set(settable())
    assert set(DEFAULTS) <= set(BuilderOptions.model_fields)


@pytest.mark.parametrize(
    ("changes", "hint"),
    [
        ({"expsure_ready_mode": "fits"}, "'exposure_ready_mode'"),
        ({"compres": True}, "did you mean 'compress'"),
        ({"compress": "maybe"}, "compress"),
        ({"exposure_ready_mode": "later"}, "exposure_ready_mode"),
        ({"remove_exclude": "ABSENT"}, "entry of exclude"),
        ({"add_on": "../x"}, "cannot be part of a file name"),
        ({"mem_purge_threshold": -1}, "mem_purge_threshold"),
        ({"callables": ["os"]}, "cannot be changed by a command"),
        ({"pull": {"A": "/etc"}}, "cannot be changed by a command"),
        ({"directories": ["/"]}, "cannot be changed by a command"),
    ],
)
def test_what_does_not_fit_changes_nothing(changes: dict[str, Any], hint: str) -> None:
    options = BuilderOptions()
    with pytest.raises(Misconfigured, match=hint):
        change_options(options, {"compress": True, **changes})
    assert options == BuilderOptions()


@pytest.mark.parametrize("preset", get_args(Preset))
def test_every_preset_makes_options(preset: Any) -> None:
    options = options_of(BuilderSource(name="cam-1", camera="generic", preset=preset))
    assert preset in PRESETS
    assert options.module
    assert options.mode
    assert options.overwrite is False


def test_a_section_goes_over_its_preset() -> None:
    source = BuilderSource(name="spec", camera="generic", preset="spectrograph", compress=False, sources=("b0", "r0"))
    options = options_of(source)
    assert (options.compress, options.local_copy, options.add_frame) == (False, True, None)
    assert (options.sources, options.role, options.module) == (("B0", "R0"), "spec", "SPEC")


def test_builders_of_the_observatory_file(tmp_path: Path) -> None:
    path = tmp_path / "observatory.toml"
    text = '[[builders]]\nname = "guider"\ncamera = "generic"\npreset = "guider"\nsources = ["GUIDE0"]\n'
    path.write_text(f'{text}[builders.pull]\nGUIDE0 = "http://127.0.0.1:1/"\n')
    observatory = load_observatory(path, environment={})
    assert options_of(observatory.builders[0]).pull == {"GUIDE0": "http://127.0.0.1:1/"}
    assert "generic" in observatory.camera_texts
    for wrong, hint in {
        text.replace("sources", "sorces"): "did you mean 'sources'",
        text.replace('preset = "guider"', 'preset = "guide"'): "preset",
        text.replace('name = "guider"', 'name = "../x"'): "no name for an image builder",
        text
        + text.replace(
            'name = "guider"', 'name = "other"'
        ): "builders: two builders have the camera 'generic'; give each one of its own, a copy of the camera file",
    }.items():
        path.write_text(wrong)
        with pytest.raises(Misconfigured, match=hint):
            load_observatory(path, environment={})


def test_control_words_are_those_of_camera_headers() -> None:
    for word in CONTROL_WORDS:
        assert is_control_word(word)
        assert is_control_word(word.upper())
    for word in ("EXPTIME", "OBJECT", "ROIS", "USE_DONUT"):
        assert not is_control_word(word)


def test_instructions_are_remembered_with_the_options_that_they_go_over() -> None:
    blend, first, second = Effective(), BuilderOptions(sub_dir="a"), BuilderOptions(sub_dir="b")
    said = Instructions(image_name="x", archive_primary=("TILEID",), exptime_s=3.0)
    for options in (first, second, first):
        assert blend(options, said) == effective(options, said)
        assert blend(options, said) is blend(options, said)
        assert blend(options, Instructions(exptime_s=5.0)) is options
    for number in range(1000):
        assert blend(first, Instructions(image_name=f"x{number}")).image_name == f"x{number}"
