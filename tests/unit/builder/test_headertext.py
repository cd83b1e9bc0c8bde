"""Headers from outside: whatever is in them, one keyword is one card."""

from __future__ import annotations

import pytest

from nightglass.builder.headertext import header_text
from nightglass.errors import Rejected


def test_a_comment_stays_in_its_card() -> None:
    assert header_text({"EXPTIME": (1.5, "seconds\nOBJECT  = 'forged'")}).count("\n") == 0


@pytest.mark.parametrize("keyword", ["END", "end", "CONTINUE", "HIERARCH"])
def test_what_is_no_keyword_with_a_value_is_refused(keyword: str) -> None:
    with pytest.raises(Rejected, match="no FITS keyword"):
        header_text({keyword: 5})


def test_a_number_that_no_card_holds_is_refused_and_not_cut() -> None:
    with pytest.raises(Rejected, match="digits"):
        header_text({"COUNT": 10**80})
    assert str(10**60) in header_text({"COUNT": 10**60})
