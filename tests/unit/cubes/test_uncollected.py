from __future__ import annotations

import gc

import pytest

from nightglass.cubes.uncollected import uncollected


def test_the_collector_rests_and_wakes_up_whatever_happens() -> None:
    @uncollected()
    def fail() -> None:
        with uncollected():
            pass
        assert not gc.isenabled()
        raise ValueError

    with pytest.raises(ValueError, match=r"^$"):
        fail()
    assert gc.isenabled()


def test_it_stays_off_where_it_was_off() -> None:
    gc.disable()
    try:
        with uncollected():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_around_a_function() -> None:
    @uncollected()
    def double(value: int) -> int:
        assert not gc.isenabled()
        return 2 * value

    assert [double(2), double(3)] == [4, 6]
    assert gc.isenabled()
