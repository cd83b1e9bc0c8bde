"""Bodies of several parts, in whatever pieces they come; httpx is the one who makes them."""

from __future__ import annotations

import itertools

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightglass.errors import Rejected
from nightglass.web.parting import Splitter, find_boundary


def body_of(parts: list[tuple[str, bytes]]) -> tuple[bytes, str]:
    request = httpx.Request("PUT", "http://x/", files=[(name, ("f", content)) for name, content in parts])
    return request.read(), request.headers["content-type"]


def parted(body: bytes, content_type: str, cuts: list[int]) -> list[tuple[str, bytes]]:
    splitter, found, begun = Splitter(find_boundary(content_type)), [], True
    places = sorted({0, len(body), *(cut % (len(body) + 1) for cut in cuts)})
    for first, last in itertools.pairwise(places):
        for piece in splitter.feed(body[first:last]):
            if begun:
                found.append((piece.name, b""))
            found[-1] = (piece.name, found[-1][1] + piece.content)
            begun = piece.last
    assert splitter.ended
    return found


CONTENT = st.binary(max_size=300) | st.lists(st.sampled_from([b"\r\n", b"--", b"\r", b"-", b"x"]), max_size=40).map(
    b"".join
)


@given(
    parts=st.lists(st.tuples(st.sampled_from(["header", "data"]), CONTENT), min_size=1, max_size=4),
    cuts=st.lists(st.integers(0, 10_000), max_size=30),
)
def test_any_chunking_gives_the_same_parts(parts: list[tuple[str, bytes]], cuts: list[int]) -> None:
    body, content_type = body_of(parts)
    assert parted(body, content_type, cuts) == parts


def test_little_is_kept_whatever_comes() -> None:
    body, content_type = body_of([("data", bytes(1 << 20))])
    splitter = Splitter(find_boundary(content_type))
    sizes = [
        sum(len(piece.content) for piece in splitter.feed(body[at : at + 1024])) for at in range(0, len(body), 1024)
    ]
    given_, seen = 0, 0
    for number, size in enumerate(sizes):
        given_, seen = given_ + size, min(seen + 1024, len(body))
        assert seen - given_ < 512, number
    assert splitter.ended


@pytest.mark.parametrize(
    ("body", "about"),
    [
        (b"x" * 10_000, "boundary"),
        (b"--b\r\n" + b"x" * 10_000, "head"),
        (b"--b\r\nContent-Type: text/plain\r\n\r\nx", "no name"),
        (b'--b\r\nContent-Disposition: form-data; filename="name=x"\r\n\r\nx', "no name"),
    ],
)
def test_what_is_no_such_body_is_refused(body: bytes, about: str) -> None:
    with pytest.raises(Rejected, match=about):
        list(Splitter(b"b").feed(body))


@pytest.mark.parametrize("content_type", ["multipart/form-data", "multipart/form-data; boundary=", ""])
def test_a_type_without_a_boundary_is_refused(content_type: str) -> None:
    with pytest.raises(Rejected, match="boundary"):
        find_boundary(content_type)
