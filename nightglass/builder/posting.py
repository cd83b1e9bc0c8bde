"""Requests to receivers and subscribers: their answer is a status, and no more of it is read than one wants to know."""

from __future__ import annotations

import time
from typing import Any, Final

import httpx

from nightglass.errors import Rejected, Retryable

__all__ = ["post"]

_AGAIN: Final = frozenset({408, 425, 429})
"""Answers after which a request may be repeated, beside those of 500 and more."""
_ENOUGH: Final = 1 << 16
"""Bytes of an answer after which it is cut off; up to then it is read, so that the connection serves again."""
_ENOUGH_S: Final = 5.0
_TOLD: Final = 200


def post(client: httpx.Client, name: str, url: str, **request: Any) -> None:
    """Make a request, and take its answer for what it says.

    Parameters
    ----------
    name : str
        Of the other side, without secrets.
    request
        As `httpx.Client.post`.

    Raises
    ------
    Retryable
        If the other side cannot be reached, is busy or broken.
    Rejected
        If it does not want this.
    """
    try:
        with client.stream("POST", url, **request) as response:
            said = _beginning(response)
    except httpx.HTTPError as error:
        message = f"{name} cannot be reached: {type(error).__name__}: {error}"
        raise Retryable(message) from error
    if response.is_success:
        return
    message = f"{name} answered {response.status_code} {response.reason_phrase[:_TOLD]}: {said!r}"
    if response.status_code >= 500 or response.status_code in _AGAIN:
        raise Retryable(message)
    raise Rejected(message, remedy="correct the receiver or its address, then send it again")


def _beginning(response: httpx.Response) -> str:
    """Return how an answer begins; one that is long, or drips for ever, is cut off."""
    until, size, said = time.monotonic() + _ENOUGH_S, 0, b""
    for chunk in response.iter_raw():
        said = (said + chunk)[:_TOLD]
        size += len(chunk)
        if size > _ENOUGH or time.monotonic() > until:
            break
    return said.decode(errors="replace")
