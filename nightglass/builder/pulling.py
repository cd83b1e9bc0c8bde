"""One attempt to fetch the extension of one source: by HTTP, from a Python function, or from a directory.

A place is ``http://host/path``, ``module:function``, or a path; ``{expid}``, ``{frame}``, ``{source}`` and ``{night}``
are filled in, with a width as in ``{expid:08d}``. Without any of them, an address gets ``expid`` and ``frame`` as its
query, and in a directory these names are looked for: ``GUIDE0-00000123-0004``, ``00000123-0004-GUIDE0``, also in small
letters, and with ``.fits`` or ``.fits.fz``.

A function is called with exposure, frame and source, and returns a FITS file as bytes or path, an array, or a pair of
array and header; None: not yet.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import httpx
import numpy as np

from nightglass.builder.authorities import packaged_authorities
from nightglass.builder.bodies import pixel_form
from nightglass.builder.callables import find_callable, is_callable_name
from nightglass.builder.spool import Body, Spool
from nightglass.config import Limits
from nightglass.errors import Misconfigured, Rejected, Retryable
from nightglass.fitsio.headers import scan_headers
from nightglass.model import Night

__all__ = ["Wanted", "fetch", "make_client"]

_FIELD: Final = re.compile(r"\{(expid|frame|source|night)(?::0?(\d{1,2})d)?\}")
_SUFFIXES: Final = ("", ".fits", ".fits.fz")
_CONNECT_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is fetched, and where."""

    expid: int
    frame: int
    source: str
    night: Night
    place: str

    def filled(self, text: str, *, within: Callable[[str], str] = str) -> str:
        """Fill in numbers and names."""

        def fill(match: re.Match[str]) -> str:
            value = getattr(self, match[1])
            return within(f"{value:0{match[2]}d}" if match[2] and isinstance(value, int) else str(value))

        return _FIELD.sub(fill, text)


def make_client(timeout_s: float) -> httpx.Client:
    """Return what speaks HTTP with sources; a source that is silent for so long is asked again."""
    # not through a proxy that the environment names: cameras are near
    timeout = httpx.Timeout(timeout_s, connect=min(timeout_s, _CONNECT_S))
    return httpx.Client(timeout=timeout, trust_env=False, verify=packaged_authorities())


def fetch(
    wanted: Wanted,
    spool: Spool,
    *,
    client: httpx.Client,
    callables: Sequence[str],
    is_wanted: Callable[[], bool] = lambda: True,
) -> Body:
    """Fetch an extension into the spool.

    Parameters
    ----------
    is_wanted : callable
        Asked while an answer comes: one that drips for ever is cut off when nobody waits for it any more.

    Raises
    ------
    Retryable
        If it is not there yet, or the source cannot be reached.
    Rejected
        If what came is no image.
    Misconfigured
        If the place is none.
    """
    if wanted.place.startswith(("http://", "https://")):
        return _from_http(wanted, spool, client, is_wanted)
    if is_callable_name(wanted.place):
        return _from_function(wanted, spool, find_callable(wanted.place, callables))
    return _from_directory(wanted, spool)


def _from_http(wanted: Wanted, spool: Spool, client: httpx.Client, is_wanted: Callable[[], bool]) -> Body:
    address = wanted.filled(wanted.place, within=lambda text: quote(text, safe=""))
    named = _FIELD.search(wanted.place) is not None
    query = None if named else {"expid": wanted.expid, "frame": wanted.frame}
    try:
        with client.stream("GET", address, params=query) as response:
            if response.status_code != httpx.codes.OK:
                message = f"{address}: {wanted.source} answers {response.status_code} {response.reason_phrase}"
                raise Retryable(message, remedy="it is asked again until the deadline of the frame")
            size = response.headers.get("content-length", "")
            with spool.receive(
                size=int(size) if size.isdecimal() and "content-encoding" not in response.headers else None
            ) as incoming:
                for chunk in response.iter_bytes():
                    if not is_wanted():
                        message = f"{address}: {wanted.source} was still sending when its frame was built"
                        raise Retryable(message, remedy="see why it takes so long, or raise timeout_s")
                    incoming.write(chunk)
                return incoming.finish()
    except httpx.HTTPError as error:
        message = f"{address}: {wanted.source} cannot be reached: {type(error).__name__}: {error}"
        raise Retryable(message, remedy="it is asked again until the deadline of the frame") from error
    except httpx.InvalidURL as error:
        message = f"{address!r} is no address: {error}"
        raise Misconfigured(message, remedy=f"correct pull.{wanted.source}") from error


def _from_function(wanted: Wanted, spool: Spool, function: Callable[..., Any]) -> Body:
    try:
        answer = function(wanted.expid, wanted.frame, wanted.source)
    except Exception as error:
        message = f"{wanted.place} of {wanted.source} failed: {type(error).__name__}: {error}"
        raise Retryable(message, remedy="it is called again until the deadline of the frame") from error
    if answer is None:
        message = f"{wanted.place} has nothing of {wanted.source} yet"
        raise Retryable(message, remedy="it is called again until the deadline of the frame")
    if isinstance(answer, Path):
        return spool.receive_file(answer)
    if isinstance(answer, (bytes, bytearray, memoryview)):
        return spool.receive_bytes(bytes(answer))
    pixels, header = answer if isinstance(answer, tuple) and len(answer) == 2 else (answer, {})
    if not isinstance(pixels, np.ndarray) or not isinstance(header, Mapping):
        message = f"{wanted.place} returned {type(answer).__name__}"
        raise Rejected(message, remedy="return bytes or a path of a FITS file, an array, or an array and a header")
    form = pixel_form({**header, "dtype": pixels.dtype.str, "shape": list(pixels.shape)})
    with spool.receive(form=form) as incoming:
        incoming.write(np.ascontiguousarray(pixels).reshape(-1).view(np.uint8).data)
        return incoming.finish()


def _from_directory(wanted: Wanted, spool: Spool) -> Body:
    if _FIELD.search(wanted.place):
        candidates = [Path(wanted.filled(wanted.place)).expanduser()]
    else:
        directory = Path(wanted.place).expanduser()
        number = f"{wanted.expid:08d}-{wanted.frame:04d}"
        stems = (f"{wanted.source}-{number}", f"{number}-{wanted.source}")
        names = [each for stem in stems for each in (stem, stem.lower())]
        candidates = [directory / f"{name}{suffix}" for name in names for suffix in _SUFFIXES]
    found = next((path for path in candidates if path.is_file()), None)
    if found is None:
        message = f"{wanted.source} is not there yet: {candidates[0]}"
        raise Retryable(message, remedy="it is looked for until the deadline of the frame")
    scan_headers(found, Limits())  # raises Retryable while it grows
    return spool.receive_file(found)
