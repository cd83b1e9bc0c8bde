"""What stands in the primary header of a frame, and what does not."""

from __future__ import annotations

import pytest

from nightglass.builder.cards import HeaderRules, apply_extra, compose_primary, kept_header
from nightglass.builder.records import FrameView
from nightglass.config import BuilderOptions, Site
from nightglass.errors import Rejected
from tests.unit.builder.making import exposure, frame

OPTIONS = BuilderOptions(role="guide", module="GUIDER", mode="GUIDE")
SITE = Site(name="KPNO", latitude=31.96403, longitude=-111.59989, elevation_m=2097.0)
CONTROL_WORDS = {
    *("LOCAL_COPY", "EXPID", "IMAGE_DIR", "ARCHIVE_DIR", "SUB_DIR"),
    *("IMAGE_NAME", "MEM_PURGE_THRESHOLD", "FRAME_PURGE_THRESHOLD", "FILE_PURGE_THRESHOLD", "SEND_TO"),
    *("MEM_PURGE", "COMPRESS", "FILE_PURGE", "CB_FUNCTION", "CB_ARGS"),
    *("IB_SEND_TO", "IB_LOCAL_COPY", "ARCHIVE_PRIMARY", "ARCHIVE_SECONDARY", "ARCHIVE_METADATA"),
    *("SEND_COMMAND", "SEND_ARGS", "FRAME", "AUTOTRIEDDARK", "AUTOTRIEDBIAS"),
}


def composed(view: FrameView, rules: HeaderRules | None = None, options: BuilderOptions = OPTIONS):  # type: ignore[no-untyped-def]
    return compose_primary(exposure(), view, options, SITE, rules or HeaderRules())


def test_structure_night_and_constants_are_there() -> None:
    header = composed(frame([], number=7, primary={"FLAVOR": ("science", "kind"), "EXPTIME": 5.0}))
    assert (header["EXTNAME"], header["MODULE"], header["EXPID"], header["FRAME"]) == ("PRIMARY", "GUIDE", 70965, 7)
    assert (header["NIGHT"], header["FLAVOR"], header["EXPTIME"]) == (20260821, "science", 5.0)
    assert (header["OBSERVAT"], header["OBS-LAT"], header["OBS-LONG"]) == ("KPNO", "31.96403", "-111.59989")
    assert (header["OBS-ELEV"], header["TIMESYS"]) == (2097.0, "UTC")
    assert header["SOFTVER"].startswith("nightglass")
    assert "PARTIAL" not in header


def test_configured_constants_go_over_those_of_the_site_and_under_what_was_given() -> None:
    constants = {"DEFAULT": {"OBSERVAT": "Mayall", "TELESCOP": "KPNO 4.0-m telescope"}, "OTHER": {"OBSERVAT": "x"}}
    options = OPTIONS.model_copy(update={"constants": constants, "software_version": "trunk"})
    header = composed(frame([], primary={"TELESCOP": "mine"}), options=options)
    assert (header["OBSERVAT"], header["TELESCOP"], header["SOFTVER"]) == ("Mayall", "mine", "trunk")


def test_a_partial_frame_says_what_is_missing() -> None:
    header = composed(frame([], missing=("GUIDE5", "GUIDE8")))
    assert (header["PARTIAL"], header["MISSING1"], header["MISSING2"]) == (True, "GUIDE5", "GUIDE8")


def test_no_control_word_stays_unless_all_fields_are_wanted() -> None:
    given = dict.fromkeys(CONTROL_WORDS, 1) | {"KEEP": 1, "SECRET": 1}
    rules = HeaderRules(exclude=("SECRET",))
    header = composed(frame([], number=3, primary=given), rules)
    assert "KEEP" in header
    assert not set(header) & (CONTROL_WORDS - {"EXPID", "FRAME"} | {"SECRET"})
    assert (header["EXPID"], header["FRAME"]) == (70965, 3)  # ours
    every = composed(frame([], number=3, primary=given), HeaderRules(exclude=("SECRET",), all_fields=True))
    assert {"SECRET", "KEEP", "SEND_TO", "CB_ARGS"} <= set(every)
    assert (every["EXPID"], every["FRAME"], every.count("EXPID")) == (70965, 3, 1)


def test_a_wrong_night_in_the_header_is_kept_as_a_comment() -> None:
    header = composed(frame([], primary={"NIGHT": "20200101"}))
    assert header["NIGHT"] == 20260821
    assert any("20200101" in str(line) for line in header["COMMENT"])


def test_extra_headers_replace_what_is_there_only_when_told() -> None:
    view = frame([], primary={"OBJECT": "sky"})
    extra = {"OBJECT": "moon", "NEW": (5, "a number"), "NOTHING": None}
    kept = composed(view, HeaderRules(extra=extra))
    assert (kept["OBJECT"], kept["NEW"], kept.comments["NEW"]) == ("sky", 5, "a number")
    assert any("NOTHING has no value" in str(line) for line in kept["COMMENT"])
    assert composed(view, HeaderRules(extra=extra, clobber=True))["OBJECT"] == "moon"


@pytest.mark.parametrize(
    "keyword", ["NAXIS", "EXPID", "FRAME", "EXTNAME", "TOOLONGAKEY", "A B", "COMMENT", "", "CHECKSUM"]
)
def test_extra_headers_that_are_none_are_refused(keyword: str) -> None:
    with pytest.raises(Rejected, match="extra header"):
        apply_extra(composed(frame([])), {keyword: 1}, clobber=True)


def test_patterns_leave_out_what_fits_and_no_comment() -> None:
    header = composed(frame([], primary={"TELRA": 1, "TELDEC": 2, "RA": 3, "COMMENT": "hello"}))
    kept = kept_header(header, HeaderRules(exclude=("TEL*", "*")))
    assert list(kept) == ["COMMENT"]
