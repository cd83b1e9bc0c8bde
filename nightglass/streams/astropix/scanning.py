"""Finding hits among the bytes of readouts, compiled; importing this module imports numba.

The numbers of roles and status bits are those of `nightglass.streams.astropix.readouts`, which explains them.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["scan"]

_HIT = 8
_IDLE, _PAD = 0xBC, 0xFF
_ROLE_PADDING, _ROLE_IDLE, _ROLE_START, _ROLE_HIT, _ROLE_EXTRA, _ROLE_ORPHAN, _ROLE_DROPPED = 1, 2, 3, 4, 5, 6, 7
_MATCHED, _DROPPED, _NOT_USED, _VALID_EXTRA, _INVALID_EXTRA, _INCOMPLETE = 1, 2, 4, 8, 16, 32
_LOST, _RESTORED = 256, 512

_Scanned = tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.uint16], NDArray[np.uint8], NDArray[np.uint8], int]
"""Bytes of the hits; for each its readout (-1: the one before the first) and its place in it; status of each readout;
role of each byte; what is left over; and how many hits the last readout had."""


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _starts(byte: int) -> bool:
    return byte >= 0xE0 and byte != _PAD


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _skip_quiet(data: NDArray[np.uint8], position: int, stop: int, roles: NDArray[np.uint8]) -> int:
    """Mark idle bytes and padding, and return the first other position."""
    while position < stop:
        if data[position] == _IDLE:
            roles[position] = _ROLE_IDLE
        elif data[position] == _PAD:
            roles[position] = _ROLE_PADDING
        else:
            break
        position += 1
    return position


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _ends_well(data: NDArray[np.uint8], position: int, stop: int) -> bool:
    """Tell whether the end of a hit is followed, after idle bytes and padding, by a start or by nothing."""
    while position < stop and (data[position] == _IDLE or data[position] == _PAD):
        position += 1
    return position >= stop or _starts(data[position])


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _next_start(data: NDArray[np.uint8], position: int, stop: int) -> int:
    while position < stop and not _starts(data[position]):
        position += 1
    return position


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _orphans_end(data: NDArray[np.uint8], first: int, stop: int, carried: int) -> int:
    """Return where the bytes before the first start end, given how many were carried over."""
    end: int = _next_start(data, first, stop)
    # idle bytes and padding behind them are none of them, unless they are what the hit lacks
    while end > first and (carried == 0 or carried + end - first > _HIT):
        if data[end - 1] != _IDLE and data[end - 1] != _PAD:
            break
        end -= 1
    whole = first + _HIT - carried
    if carried > 0 and end < whole <= stop and _ends_well(data, whole, stop):
        end = whole  # a byte of the hit looks like a start
    return end


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _mark(roles: NDArray[np.uint8], start: int, stop: int, role: int) -> None:
    # loops, here and below, because slices make the compiler take four times as long
    for position in range(start, stop):
        roles[position] = role


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _copy(source: NDArray[np.uint8], start: int, stop: int, target: NDArray[np.uint8], place: int) -> None:
    for position in range(start, stop):
        target[place + position - start] = source[position]


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _scan_one(
    data: NDArray[np.uint8],
    position: int,
    stop: int,
    places: NDArray[np.int64],
    roles: NDArray[np.uint8],
) -> tuple[int, int, int]:
    """Find the hits from a position on; return how many, the status, and where bytes that are carried over begin."""
    count = 0
    status = 0
    while True:
        position = _skip_quiet(data, position, stop, roles)
        if position >= stop:
            return count, status, stop
        if stop - position < _HIT:
            _mark(roles, position, stop, _ROLE_EXTRA)
            if _starts(data[position]):
                return count, status | _VALID_EXTRA, position
            return count, status | _INVALID_EXTRA, stop
        inner = _next_start(data, position + 1, position + _HIT)
        if not _starts(data[position]) or (inner < position + _HIT and not _ends_well(data, position + _HIT, stop)):
            # no hit begins here, or the hit was cut short by another
            after = _next_start(data, position + 1, stop)
            _mark(roles, position, after, _ROLE_DROPPED)
            status |= _INCOMPLETE
            position = after
            continue
        roles[position] = _ROLE_START
        _mark(roles, position + 1, position + _HIT, _ROLE_HIT)
        places[count] = position
        count += 1
        position += _HIT


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _claim(
    data: NDArray[np.uint8],
    first: int,
    stop: int,
    carry: NDArray[np.uint8],
    carried: int,
    roles: NDArray[np.uint8],
) -> tuple[int, int]:
    """Judge the bytes before the first start; return where they end, and the status.

    If they complete what was carried over, they are put behind it.
    """
    if first >= stop or _starts(data[first]):
        return first, _LOST if carried > 0 else 0
    end = _orphans_end(data, first, stop, carried)
    _mark(roles, first, end, _ROLE_ORPHAN)
    if carried == 0:
        return end, _NOT_USED
    if carried + end - first != _HIT:
        return end, _DROPPED | _LOST
    _copy(data, first, end, carry, carried)
    return end, _MATCHED


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _join(
    data: NDArray[np.uint8],
    begin: int,
    stop: int,
    carry: NDArray[np.uint8],
    carried: int,
    roles: NDArray[np.uint8],
    restore: bool,  # noqa: FBT001 - numba knows no keyword-only arguments
) -> tuple[int, int, int]:
    """Put together what was carried over and what a readout begins with.

    Returns
    -------
    tuple of int
        Where the search for hits begins; the status; whose hit `carry` now is: 1 this readout's, -1 that of the one
        before, 0 no hit.
    """
    first = _skip_quiet(data, begin, stop, roles)
    position, status = _claim(data, first, stop, carry, carried, roles)
    if status == _MATCHED:
        return position, status, 1
    if status == _LOST and restore:
        _mark(carry, carried, _HIT, _PAD)
        return position, _RESTORED, -1
    return position, status, 0


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def scan(
    data: NDArray[np.uint8],
    lengths: NDArray[np.int64],
    follows: NDArray[np.bool_],
    left: NDArray[np.uint8],
    before: int,
    restore: bool,  # noqa: FBT001 - numba knows no keyword-only arguments
) -> _Scanned:
    """Find the hits of readouts.

    Parameters
    ----------
    data : ndarray of uint8
        The readouts, one behind the other.
    lengths, follows : ndarray, (readouts,)
        Their bytes, and whether each comes right after the one before.
    left : ndarray of uint8
        What the one before the first left over; fewer than 8 bytes.
    before : int
        How many hits that one had.
    restore : bool
        Whether what nobody claims is completed with padding.
    """
    most = (data.size + left.size) // _HIT + lengths.size + 1
    raw = np.empty(most * _HIT, np.uint8)
    origin = np.empty((most, 2), np.int64)
    places = np.empty(data.size // _HIT + 1, np.int64)
    status = np.zeros(lengths.size, np.uint16)
    roles = np.zeros(data.size, np.uint8)
    carry = np.empty(_HIT, np.uint8)
    carried = left.size
    _copy(left, 0, carried, carry, 0)
    count = stop = 0
    for index in range(lengths.size):
        begin, stop = stop, stop + lengths[index]
        if not follows[index] and carried > 0:
            status[index] = _LOST
            carried = 0
        position, joined, whose = _join(data, begin, stop, carry, carried, roles, restore)
        if whose != 0:
            _copy(carry, 0, _HIT, raw, count * _HIT)
            origin[count, 0], origin[count, 1] = (index, 0) if whose > 0 else (index - 1, before)
            count += 1
        before = 1 if whose > 0 else 0
        hits, scanned, rest = _scan_one(data, position, stop, places, roles)
        for k in range(hits):
            _copy(data, places[k], places[k] + _HIT, raw, count * _HIT)
            origin[count, 0], origin[count, 1] = index, before
            count += 1
            before += 1
        carried = stop - rest
        _copy(data, rest, stop, carry, 0)
        status[index] |= joined | scanned
    return raw[: count * _HIT], origin[:count], status, roles, carry[:carried], before
