from __future__ import annotations

import math

import pytest
from astropy.io import fits
from hypothesis import given
from hypothesis import strategies as st

from nightglass.cubes.headers import HeaderStack, find_cards, read_header


def block(*cards: str) -> bytes:
    text = "".join(card.ljust(80) for card in (*cards, "END"))
    return text.encode("latin-1").ljust(-(-len(text) // 2880) * 2880)


NAMES = st.from_regex(r"[A-Z][A-Z0-9_-]{0,7}", fullmatch=True).filter(
    lambda name: name not in {"END", "COMMENT", "HISTORY", "CONTINUE", "HIERARCH", "SIMPLE", "XTENSION"}
)
TEXTS = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=150).filter(
    lambda text: "&" not in text and text == text.strip()
)
VALUES = st.one_of(st.booleans(), st.integers(-(2**60), 2**60), st.floats(-1e300, 1e300), TEXTS)


def written(cards: dict[str, object]) -> bytes:
    header = fits.Header()
    for name, value in cards.items():
        header[name] = value
    return bytes(header.tostring().encode("ascii"))


@given(st.dictionaries(NAMES, VALUES, max_size=20))
def test_values_are_those_that_astropy_reads(cards: dict[str, object]) -> None:
    text = written(cards)
    theirs = fits.Header.fromstring(text.decode("ascii"))
    ours = read_header(text)
    assert list(ours) == list(theirs)
    for name in cards:
        assert ours[name] == theirs[name]
        assert type(ours[name]) is type(theirs[name])


@given(st.lists(st.dictionaries(NAMES, VALUES, max_size=6), min_size=1, max_size=12), st.data())
def test_columns_are_what_each_header_says(rows: list[dict[str, object]], data: st.DataObject) -> None:
    # alike headers are what the stack is made for, so most rows are drawn from the same few
    chosen = data.draw(st.lists(st.sampled_from(rows), min_size=1, max_size=30))
    texts = [written(cards) for cards in chosen]
    stack = HeaderStack(texts)
    alone = [read_header(text) for text in texts]
    assert set(stack.keywords) == {name for values in alone for name in values}
    for name in (*stack.keywords, "NOT-IN-IT"):
        assert stack.column(name) == [values.get(name) for values in alone]
        assert stack.present(name) == [name in values for values in alone]
    assert {name for row in stack.firsts for name in alone[row]} == set(stack.keywords)


@given(st.lists(st.binary(min_size=80, max_size=80), max_size=40))
def test_nothing_from_outside_raises(cards: list[bytes]) -> None:
    text = b"".join(cards)
    values = read_header(text)
    expected = [values.get("A"), read_header(text[:80]).get("A"), values.get("A")]
    assert HeaderStack([text, text[:80], text]).column("A") == expected


@pytest.mark.parametrize(
    ("card", "value"),
    [
        ("A       =                    T / logical", True),
        ("A       = F", False),
        ("A       = -12", -12),
        ("A       = 1.5D3", 1500.0),
        ("A       = .5", 0.5),
        ("A       = 1.5e-3", 0.0015),
        ("A       = 'it''s'", "it's"),
        ("A       = '  led  '", "  led"),
        ("A       = ''", ""),
        ("A       = (1.0, -2)", "(1.0, -2)"),
        ("A       =  / nothing", None),
        ("A       = ", None),
        ("A       = 1E999", math.inf),
        ("A       = 'abc &'", "abc &"),
        ("A       = 'never closed", "never closed"),
        ("A       = 2026-11-21T03:00:00", "2026-11-21T03:00:00"),
        ("a       = 5", 5),
        ("A= 5", 5),
    ],
)
def test_one_card(card: str, value: object) -> None:
    assert read_header(block(card)) == {"A": value}
    other = block("A       =                    7 / another")
    assert HeaderStack([block(card), other, other]).column("A") == [value, 7, 7]


def test_the_first_of_repeated_keywords_counts() -> None:
    assert read_header(block("A       = 1", "COMMENT = 2", "A       = 3")) == {"A": 1}


def test_long_texts_go_on_and_may_differ_in_any_card() -> None:
    head = ("LONG    = 'first &'", "CONTINUE  ")
    one, two = block(head[0], head[1] + "'second'", "B       = 1"), block(head[0], head[1] + "'other'", "B       = 1")
    stack = HeaderStack([one, two])
    assert stack.column("LONG") == ["first second", "first other"]
    assert not stack.constant("LONG")
    assert stack.constant("B")
    assert find_cards(one)["LONG"] == one[:160]


def test_long_keywords_may_differ_in_their_names_only() -> None:
    one, two = block("HIERARCH ESO DET X = 5"), block("HIERARCH ESO DET Y = 5")
    stack = HeaderStack([one, two, one])
    assert stack.keywords == ("ESO DET X", "ESO DET Y")
    assert stack.column("ESO DET X") == [5, None, 5]


def test_what_follows_the_end_is_not_read() -> None:
    text = block("A       = 1") + block("B       = 2")
    assert read_header(text) == {"A": 1}
    assert HeaderStack([text]).keywords == ("A",)


def test_many_orders_of_keywords() -> None:
    texts = [block(f"K{number}      = {number}"[:8].ljust(8) + f"= {number}") for number in range(100)]
    stack = HeaderStack(texts)
    assert len(stack.keywords) == 100
    assert stack.column("K77")[77] == 77
