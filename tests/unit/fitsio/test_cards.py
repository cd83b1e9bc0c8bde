from __future__ import annotations

import re

import pytest
from astropy.io import fits
from hypothesis import assume, example, given
from hypothesis import strategies as st

from nightglass.fitsio.cards import BLOCK, comment_cards, format_card, pad_header, repair_cards


def header_of(*cards: str) -> fits.Header:
    block = "".join(card.ljust(80)[:80] for card in cards).encode("latin-1")
    return fits.Header.fromstring("".join(repair_cards(block)[0]))


@pytest.mark.parametrize(
    "card",
    [
        "EXPTIME =                 30.0 / [s]",
        "EQUINOX = 2000.0 / Epoch of celestial coordinate system used",
        "OBJECT  = 'it''s M 13'         / comment",
        "NOTHING =                      / undefined",
        "ONE     =                    T",
        "Z       = (1.0, -2.5E3)",
        "BIG     = 1.5D300",
        "COMMENT 'quotes' are = free here",
        "HIERARCH ESO DET NAME = 'ccd1' / long name",
        "        blank keyword",
        "TELALT  = +62.592 / Altitude",
    ],
)
def test_conforming_cards_stay_as_they_are(card: str) -> None:
    cards, repaired = repair_cards(card.ljust(80).encode())
    assert (cards, repaired) == ([card.ljust(80)], 0)


@pytest.mark.parametrize(
    ("card", "keyword", "value"),
    [
        ("exptime =                 30.0", "EXPTIME", 30.0),
        ("EXPTIME =30.0 / no space", "EXPTIME", 30.0),
        ("SEEING  = 1.5e0 / small e", "SEEING", 1.5),
        ("SEEING  = NaN / no number", "SEEING", "NaN"),
        ("OBJECT  = 'never closed", "OBJECT", "never closed"),
        ("OBSERVER= 'O'Brien' / quote", "OBSERVER", "O'Brien"),
        ("OBSERVER= Jane Doe / bare", "OBSERVER", "Jane Doe"),
        ("CCD.TEMP= -20", "CCD_TEMP", -20),
        ("SHUTTER = t", "SHUTTER", True),
        ("OBJECT  = 'M\xfcller'", "OBJECT", "M?ller"),
        ("OBJECT  = 'tab\there'", "OBJECT", "tab here"),
        ("LONGKEYWORD = 5", "LONGKEYWORD", 5),
        ("OBJECT  = 'text'junk", "OBJECT", "text'junk"),
    ],
)
def test_broken_cards_keep_their_meaning(card: str, keyword: str, value: object) -> None:
    assert header_of(card)[keyword] == value


@pytest.mark.parametrize(
    "card",
    ["CONTINUE  'of nothing'", "JUST SOME TEXT", "\xff" * 80, "= 5", "END     = 5", "CONTINUE= 5", "HIERARCH= 5"],
)
def test_what_is_no_keyword_becomes_a_comment(card: str) -> None:
    cards, repaired = repair_cards(card.ljust(80).encode("latin-1"))
    assert repaired == 1
    assert all(made.startswith("COMMENT ") and len(made) == 80 for made in cards)


def test_the_first_of_two_equal_keywords_counts() -> None:
    assert header_of("OBSTYPE = 'OBJECT'", "OBSTYPE =                    1")["OBSTYPE"] == "OBJECT"


def test_continued_text_is_read_whole() -> None:
    header = header_of("LONG    = 'abc&'", "CONTINUE  'def&'", "CONTINUE  'ghi' / done")
    assert header["LONG"] == "abcdefghi"


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=300))
def test_long_texts_survive(text: str) -> None:
    assume(re.search("' *(/|$)", text) is None)  # astropy takes a quote before a slash for the end of the text
    cards = format_card("TEXT", "'" + text.replace("'", "''") + "'", "comment")
    assert all(len(card) == 80 for card in cards)
    assert repair_cards("".join(cards).encode())[0] == cards
    header = fits.Header.fromstring("".join(cards))
    assert header["TEXT"].rstrip() == text.rstrip()


@given(st.lists(st.binary(min_size=80, max_size=80), max_size=4))
@example([b"A       = 'x&'".ljust(80), b"CONTINUE  'y'".ljust(80)])
@example([b"HIERARCH a = 'x&'".ljust(80), b"CONTINUE  5".ljust(80)])
@example([b"X       = " + b"9" * 70])
def test_any_bytes_become_cards_that_astropy_reads_without_a_word(blocks: list[bytes]) -> None:
    cards, _ = repair_cards(b"".join(blocks))
    assert repair_cards("".join(cards).encode())[0] == cards
    header = fits.Header.fromstring("".join(cards))
    for card in header.cards:
        assert (card.keyword, card.value, card.comment) is not None
        assert len(card.image) % 80 == 0


@given(st.text(alphabet="ABE19 ='/&TF.()+-_aeEndHIRCONU", min_size=1, max_size=80))
def test_card_like_text_is_read_without_a_word(text: str) -> None:
    header = header_of(text)
    for card in header.cards:
        assert card.image is not None
        str(card.value)


def test_text_is_spread_over_comment_cards() -> None:
    cards = list(comment_cards("HISTORY", "x" * 100))
    assert [card.rstrip() for card in cards] == ["HISTORY " + "x" * 72, "HISTORY " + "x" * 28]


def test_a_header_fills_its_block() -> None:
    header = pad_header(["A       =                    1".ljust(80)] * 36)
    assert len(header) == 2 * BLOCK
    assert header[BLOCK : BLOCK + 4] == b"END "


def test_a_comment_cannot_begin_another_card() -> None:
    (card,) = format_card("EXPTIME", "1.5", "seconds\nOBJECT  = 'forged'\xff")
    assert card == "EXPTIME =                  1.5 / seconds OBJECT  = 'forged'?".ljust(80)
