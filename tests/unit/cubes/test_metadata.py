from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.time import Time
from hypothesis import given
from hypothesis import strategies as st

from nightglass.cubes.bintables import TableRows, lay_out_rows, read_rows
from nightglass.cubes.metadata import column_values, gaps_table, keyword_column, metadata_table, mjd, wrong_rows
from nightglass.cubes.names import file_names, file_path
from nightglass.cubes.records import Problem, Survey, TablePlan
from nightglass.cubes.scanning import scan_file
from nightglass.errors import Rejected
from tests.unit.cubes.oracles import assert_sound
from tests.unit.cubes.tables import LIMITS, frame, header, plane, survey_of_headers, written

START = datetime(2024, 3, 1, 22, 0, 0, 123456, tzinfo=UTC)


def tabulate(survey: Survey, keywords: Sequence[str] = ("*",), times: Sequence[datetime | None] = ()) -> TablePlan:
    starts = times or [START + timedelta(seconds=n) for n in range(len(survey.planes))]
    return metadata_table("CAMT", survey.planes, survey, keywords, starts)


@pytest.fixture
def read(tmp_path: Path) -> Any:
    def reader(table: TablePlan) -> TableRows:
        path = written(tmp_path / "table.fits", table)
        return read_rows(path, scan_file(path, LIMITS).hdus[1])

    return reader


def test_a_row_says_what_the_headers_of_its_frame_say(tmp_path: Path) -> None:
    survey = survey_of_headers(
        *(
            header(
                f"EXPTIME = {1.5 + n:20} / [s] exposure time",
                f"COUNT   = {n:20}",
                f"GUIDING = {'T' if n else 'F':>20}",
                f"OBJECT  = 'M {n}'",
                f"HIERARCH ESO DET TEMP = {-60.5 - n}",
            )
            for n in range(3)
        )
    )
    path = written(tmp_path / "t.fits", tabulate(survey))
    assert_sound(path)
    with fits.open(path) as hdus:
        rows, described = hdus["CAMT"].data, hdus["CAMT"].header
        assert rows["FRAME"].tolist() == [0, 1, 2]
        assert rows["START"][1] == "2024-03-01T22:00:01.123456"
        assert rows["FILE"].tolist() == ["frame0000.fits", "frame0001.fits", "frame0002.fits"]
        assert rows["EXPTIME"].tolist() == [1.5, 2.5, 3.5]
        assert rows["COUNT"].tolist() == [0, 1, 2]
        assert rows["GUIDING"].tolist() == [False, True, True]
        assert rows["OBJECT"].tolist() == ["M 0", "M 1", "M 2"]
        assert rows["ESO_DET_TEMP"].tolist() == [-60.5, -61.5, -62.5]
        keywords = {described[f"TTYPE{n}"]: described.get(f"TCOMM{n}") for n in range(1, described["TFIELDS"] + 1)}
    assert keywords["ESO_DET_TEMP"] == "ESO DET TEMP"
    assert keywords["EXPTIME"] == "EXPTIME"
    assert keywords["FRAME"] is None


def test_a_missing_or_undefined_keyword_is_null(read: Any, tmp_path: Path) -> None:
    survey = survey_of_headers(
        header("A       =                    1", "B       =                  1.5", "C       = 'x'", "D       = T"),
        header("A       =                     ", "B       = /nothing"),
        header("A       =                    3", "E       = 'only here'", "C       = ''"),
    )
    table = tabulate(survey)
    rows = read(table)
    assert column_values(rows, "A") == [1, None, 3]
    assert column_values(rows, "B") == [1.5, None, None]
    assert column_values(rows, "C") == ["x", None, ""]
    assert column_values(rows, "D") == [True, None, None]
    assert column_values(rows, "E") == [None, None, "only here"]
    assert_sound(written(tmp_path / "nulls.fits", table))
    with fits.open(tmp_path / "nulls.fits") as hdus:
        assert np.isnan(hdus[1].data["B"]).tolist() == [False, True, True]
        assert hdus[1].header[f"TNULL{hdus[1].columns.names.index('A') + 1}"] == -(2**63)


@pytest.mark.parametrize(
    ("values", "form", "expected"),
    [
        ([1, 2.5], "1D", [1.0, 2.5]),
        ([1, 2**63], "19A", ["1", "9223372036854775808"]),
        ([2**60 + 1, 2.5], "19A", ["1152921504606846977", "2.5"]),
        ([True, 1], "1A", ["T", "1"]),
        ([True, None], "1L", [True, None]),
        (["a", 1.5], "3A", ["a", "1.5"]),
        ([None, None], "1A", [None, None]),
        ([-(2**63), None, 4], "1K", [-(2**63), None, 4]),
        (["", None], "1A", ["", None]),
    ],
)
def test_a_column_has_the_narrowest_type_that_loses_nothing(
    read: Any, values: list[Any], form: str, expected: list[Any]
) -> None:
    column = keyword_column("X", values, np.arange(len(values)), name="X")
    assert column.form == form
    assert column_values(read(lay_out_rows("T", [column], extra={})), "X") == expected


def test_keywords_of_the_primary_header_count_where_the_image_has_none(read: Any) -> None:
    primary = header("DATE-OBS= '2024-03-01'", "GAIN    =                  1.0")
    files = (frame(0, primary, header("GAIN    =                  2.0")), frame(1, primary, header("X       = 1")))
    survey = Survey(files, (plane(0, 1), plane(1, 1)))
    rows = read(tabulate(survey))
    assert column_values(rows, "GAIN") == [2.0, 1.0]
    assert column_values(rows, "DATE_OBS") == ["2024-03-01", "2024-03-01"]
    assert column_values(rows, "HDU") == [1, 1]


def test_planes_of_one_image_share_its_header(read: Any) -> None:
    survey = Survey((frame(0, header("GAIN    = 2.0")),), tuple(plane(0, number=n, frame=n + 5) for n in range(4)))
    rows = read(tabulate(survey))
    assert column_values(rows, "PLANE") == [0, 1, 2, 3]
    assert column_values(rows, "FRAME") == [5, 6, 7, 8]
    assert column_values(rows, "GAIN") == [2.0] * 4


def test_patterns_choose_keywords_and_the_layout_of_files_is_left_out(read: Any) -> None:
    survey = survey_of_headers(
        header("NAXIS1  = 10", "BZERO   = 0", "DETTEMP = 1.5", "DETGAIN = 2.5", "OTHER   = 1", "CHECKSUM= 'x'")
    )
    assert {"DETTEMP", "DETGAIN", "OTHER"} <= {*read(tabulate(survey)).columns}
    assert not {"NAXIS1", "BZERO", "CHECKSUM"} & {*read(tabulate(survey)).columns}
    assert [*read(tabulate(survey, ("DET*", "NAXIS1"))).columns][6:] == ["NAXIS1", "DETTEMP", "DETGAIN"]


def test_columns_never_share_a_name(read: Any) -> None:
    survey = survey_of_headers(
        header("FILE    = 'theirs'", "A-B     = 1", "A_B     = 2", "HIERARCH A B = 3", "FRAME   = 0"),
        header("FILE    = 'theirs'", "A-B     = 1", "A_B     = 2", "HIERARCH A B = 3", "FRAME   = 1"),
    )
    rows = read(tabulate(survey))
    assert rows.keywords == {"FILE_2": "FILE", "A_B": "A-B", "A_B_2": "A_B", "A_B_3": "A B"}
    assert column_values(rows, "FRAME") == [0, 1]


def test_a_keyword_frame_that_says_something_else_is_kept(read: Any) -> None:
    rows = read(tabulate(survey_of_headers(header("FRAME   = 7"))))
    assert column_values(rows, "FRAME_2") == [7]


def test_more_keywords_than_a_table_can_hold_are_counted(read: Any) -> None:
    table = tabulate(survey_of_headers(header(*(f"K{n:<7}= {n}" for n in range(1200)))))
    assert len(read(table).columns) == 999
    assert "207 further keywords" in str(table.header["COMMENT"])


def test_starts_are_exact_and_may_be_missing(read: Any) -> None:
    survey = survey_of_headers(header("A       = 1"), header("A       = 2"))
    rows = read(tabulate(survey, times=[START, None]))
    assert column_values(rows, "START") == ["2024-03-01T22:00:00.123456", None]
    first, second = column_values(rows, "START_MJD")
    assert second is None
    assert first == mjd(START)
    assert abs(first - Time(START).mjd) < 1e-11


def test_cards_that_are_no_standard_give_what_can_be_read(read: Any, tmp_path: Path) -> None:
    survey = survey_of_headers(
        header(
            b"OBSERVER= 'Andr\xe9'",
            "LONG    = 'begins &'",
            "CONTINUE  'goes on &'",
            "CONTINUE  'ends'",
            "SAME    = 1",
            "SAME    = 2",
            "lower   = 3",
            "COMMENT = 5",
            "COMMENT nothing",
            "",
        )
    )
    table = tabulate(survey)
    rows = read(table)
    assert column_values(rows, "OBSERVER") == ["Andr?"]
    assert column_values(rows, "LONG") == ["begins goes on ends"]
    assert column_values(rows, "SAME") == [1]
    assert column_values(rows, "LOWER") == [3]
    assert_sound(written(tmp_path / "odd.fits", table))


def test_a_change_of_the_table_is_found(read: Any) -> None:
    survey = survey_of_headers(header("A       = 1", "B       = 'x'"), header("A       = 2", "B       = 1.5"))
    table = tabulate(survey)
    assert wrong_rows(read(table), survey.planes, survey) == []
    other = survey_of_headers(header("A       = 1", "B       = 'x'"), header("A       = 3", "B       = 1.5"))
    assert wrong_rows(read(table), survey.planes, other) == ["row 2 of column A is 2, A was 3"]


cards = st.one_of(
    st.builds(
        lambda keyword, value: f"{keyword:<8}= {value}"[:80],
        st.text("ABCDE-_", min_size=1, max_size=3),
        st.one_of(
            st.integers(-(2**70), 2**70).map(str),
            st.floats(allow_nan=False, allow_infinity=False).map(repr),
            st.sampled_from(["T", "F", "", "''", "/ nothing", "'it''s'", "1.5D3", "(1, 2)"]),
            st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60).map(lambda text: f"'{text}'"),
        ),
    ),
    st.text(st.characters(max_codepoint=255), max_size=80),
)


@given(st.lists(st.lists(cards, max_size=6), min_size=1, max_size=4))
def test_any_headers_make_a_table_that_agrees_with_them(tmp_path_factory: Any, frames: list[list[str]]) -> None:
    survey = survey_of_headers(*(header(*(card[:80] for card in frame)) for frame in frames))
    path = written(tmp_path_factory.mktemp("any") / "t.fits", tabulate(survey))
    rows = read_rows(path, scan_file(path, LIMITS).hdus[1])
    assert wrong_rows(rows, survey.planes, survey) == []


def test_gaps_are_runs_of_numbers_and_files_that_were_left_out(tmp_path: Path) -> None:
    planes = [plane(0, frame=n) for n in (1, 2, 6, 2_000_000_000)] + [plane(0, source="SKY", frame=n) for n in (0, 2)]
    problems = (Problem(Path("/night/bad.fits"), "still growing"),)
    table = gaps_table(Survey((frame(0, header()),), tuple(planes), problems))
    assert table is not None
    path = written(tmp_path / "gaps.fits", table)
    assert_sound(path)
    with fits.open(path) as hdus:
        rows = hdus["GAPS"].data
        assert [*zip(rows["SOURCE"], rows["FIRST"], rows["LAST"], strict=True)][:-1] == [
            ("CAM", 0, 0),
            ("CAM", 3, 5),
            ("CAM", 7, 1_999_999_999),
            ("SKY", 1, 1),
            ("SKY", 3, 2_000_000_000),
        ]
        assert rows["FILE"][-1] == "bad.fits"
        assert rows["REASON"][-1] == "still growing"


def test_without_gaps_there_is_no_table_of_them() -> None:
    assert gaps_table(Survey((frame(0, header()),), (plane(0, frame=3), plane(0, frame=4)))) is None


def test_files_are_named_without_their_directories_where_that_is_enough() -> None:
    assert file_names([Path("/a/x.fits"), Path("/b/y.fits")]) == ["x.fits", "y.fits"]
    assert file_names([Path("/a/n/x.fits"), Path("/a/m/x.fits")]) == ["n/x.fits", "m/x.fits"]


@given(st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=20))
def test_any_file_name_goes_into_a_table_and_back(name: str) -> None:
    if name in (".", ".."):
        return
    (stored,) = file_names([Path("/a") / name])
    assert all(" " <= character <= "~" for character in stored)
    assert stored == stored.rstrip(" ")
    assert str(file_path(stored)) == name


@pytest.mark.parametrize("name", ["../x.fits", "/etc/x", "", "a/../../x", "%2e%2e/x", "a%00"])
def test_a_name_that_leads_elsewhere_is_refused(name: str) -> None:
    with pytest.raises(Rejected, match="leads elsewhere"):
        file_path(name)
