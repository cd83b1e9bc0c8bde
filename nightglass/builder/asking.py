"""Requests to the interface of an image builder, and what its answers mean."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

from nightglass.builder.authorities import authorities
from nightglass.errors import Misconfigured, NightglassError, Rejected, Retryable, Waiting

__all__ = ["Asking"]

_CHUNK = 1 << 20
_KINDS: Mapping[str, type[NightglassError]] = {
    "rejected": Rejected,
    "waiting": Waiting,
    "retryable": Retryable,
    "misconfigured": Misconfigured,
}
_QUIET_S = 60.0
"""Streams of events say every 15 s that they are still there."""


class Asking:
    """Makes requests of one builder; errors are raised as the builder itself would raise them.

    Parameters
    ----------
    address : str
        Of the server.
    builder : str
        Empty: the first one of the server.
    token : str
        Empty: NIGHTGLASS_TOKEN of the environment, if there is one.
    """

    def __init__(self, address: str, *, builder: str, token: str, timeout_s: float) -> None:
        token = token or os.environ.get("NIGHTGLASS_TOKEN", "")
        self._timeout_s = timeout_s
        self._http = httpx.Client(
            base_url=f"{address.rstrip('/')}/v1{f'/builders/{builder}' if builder else ''}",
            headers={"X-Nightglass": "client", **({"Authorization": f"Bearer {token}"} if token else {})},
            timeout=timeout_s,
            verify=authorities(),
        )

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def ask(
        self,
        method: str,
        place: str,
        body: Mapping[str, Any] | None = None,
        *,
        query: Mapping[str, Any] | None = None,
        wait_s: float = 0.0,
    ) -> Any:
        """Make a request, and return the value of its answer.

        Raises
        ------
        NightglassError
            Of the kind that the builder raised; Retryable if it does not answer.
        """
        params = {name: value for name, value in (query or {}).items() if value is not None}
        try:
            answer = self._http.request(
                method,
                place,
                json=dict(body) if body is not None else None,
                params=params,
                timeout=self._within(wait_s),
            )
        except httpx.TransportError as error:
            raise self._silent(error) from error
        return _value(answer)

    def push(
        self,
        place: str,
        data: NDArray[Any] | bytes | Path | None,
        cards: Mapping[str, Any],
        query: Mapping[str, Any],
    ) -> Any:
        """Send a body as it is read, and return the value of the answer.

        Raises
        ------
        NightglassError
            As `ask`.
        """
        kind, length = "application/fits", 0
        if isinstance(data, np.ndarray):
            kind, length = "application/octet-stream", data.nbytes
            cards = {**cards, "dtype": data.dtype.str, "shape": list(data.shape)}
        elif data is not None:
            length = data.stat().st_size if isinstance(data, Path) else len(data)
        headers = {"Content-Type": kind, "Content-Length": str(length)}
        if cards:
            headers["X-Nightglass-Header"] = json.dumps(cards)
        try:
            answer = self._http.put(place, content=_chunks(data), headers=headers, params=dict(query))
        except httpx.TransportError as error:
            raise self._silent(error) from error
        return _value(answer)

    def fetch(self, method: str, place: str, path: Path, body: Mapping[str, Any] | None = None) -> Path:
        """Stream an answer to a file, which appears when it is whole.

        Raises
        ------
        NightglassError
            As `ask`.
        """
        part = path.with_name(f".{path.name}.part")
        try:
            with self._http.stream(method, place, json=body) as answer:
                if answer.is_error:
                    answer.read()
                    _value(answer)
                with part.open("wb") as stream:
                    for chunk in answer.iter_bytes(_CHUNK):
                        stream.write(chunk)
            return part.replace(path)
        except httpx.TransportError as error:
            raise self._silent(error) from error
        finally:
            part.unlink(missing_ok=True)

    def listen(self, place: str, query: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Give server-sent events as they come.

        Raises
        ------
        NightglassError
            As `ask`.
        """
        params = {name: value for name, value in query.items() if value is not None}
        try:
            with self._http.stream("GET", place, params=params, timeout=_QUIET_S) as answer:
                if answer.is_error:
                    answer.read()
                    _value(answer)
                event: dict[str, Any] = {}
                for line in answer.iter_lines():
                    key, _, value = line.partition(": ")
                    match key:
                        case "id":
                            event["number"] = int(value)
                        case "event":
                            event["name"] = value
                        case "data":
                            event |= json.loads(value)
                        case "" if event:
                            yield event
                            event = {}
        except httpx.TransportError as error:
            raise self._silent(error) from error

    def _within(self, wait_s: float) -> float:
        return self._timeout_s + wait_s

    def _silent(self, error: httpx.TransportError) -> Retryable:
        message = f"{self._http.base_url} does not answer: {type(error).__name__}: {error}"
        return Retryable(message, remedy="see whether nightglass serve or nightglass run is there, and send it again")


def _chunks(data: NDArray[Any] | bytes | Path | None) -> Iterator[bytes]:
    if isinstance(data, Path):
        with data.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                yield chunk
    elif data is not None:
        content: Any = np.ascontiguousarray(data).reshape(-1) if isinstance(data, np.ndarray) else data
        view = memoryview(content).cast("B")
        for at in range(0, len(view), _CHUNK):
            yield bytes(view[at : at + _CHUNK])


def _value(answer: httpx.Response) -> Any:
    if answer.is_success:
        return answer.json() if answer.content else None
    try:
        problem = answer.json()
        kind, error, remedy = problem["kind"], str(problem["error"]), str(problem.get("remedy", ""))
    except (ValueError, KeyError, TypeError):  # the guard speaks plain text
        kind, error, remedy = "", f"{answer.request.url}: {answer.status_code} {answer.text[:200].strip()}", ""
    fallback = Retryable if answer.status_code >= httpx.codes.INTERNAL_SERVER_ERROR else Rejected
    raise _KINDS.get(kind, fallback)(error, remedy=remedy)
