"""The server around the application: one port, in a thread, at this machine unless a token says otherwise."""

from __future__ import annotations

import errno
import socket
import threading
from types import TracebackType
from typing import Self

import uvicorn

from nightglass.errors import Misconfigured, Retryable
from nightglass.web.application import Site, make_app
from nightglass.web.guard import is_loopback
from nightglass.web.protocol import LargeReads

__all__ = ["WebServer", "check_place"]

_END_S = 5.0


class WebServer:
    """Serves a site while a block runs.

    Parameters
    ----------
    site : Site
    host : str
        Address to listen at.
    port : int
        0: any that is free.

    Raises
    ------
    Misconfigured
        If the address is reached from other machines and there is no token, or is none of this machine's.
    Retryable
        If the port is taken.
    """

    def __init__(self, site: Site, *, host: str = "127.0.0.1", port: int = 0) -> None:
        check_place(host, site.token)
        self._site, self._host = site, host
        self._socket = _listen(host, port)
        # web sockets are not spoken, and nobody else's logging is touched
        config = uvicorn.Config(
            make_app(site),
            http=LargeReads,
            log_config=None,
            access_log=False,
            ws="none",
            lifespan="off",
            timeout_graceful_shutdown=2,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, name="web", daemon=True)

    @property
    def url(self) -> str:
        """Address of the first page, without the token."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._socket.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._site.closing.set()
        self._server.should_exit = True
        self._thread.join(_END_S)
        self._socket.close()

    def _run(self) -> None:
        self._server.run(sockets=[self._socket])


def check_place(host: str, token: str) -> None:
    """Refuse to be reached from other machines without a token.

    Raises
    ------
    Misconfigured
        If so.
    """
    if not token and not is_loopback(host):
        message = f"{host} is reached from other machines, and no token is set"
        raise Misconfigured(message, remedy="set NIGHTGLASS_TOKEN, or stay at 127.0.0.1 and forward the port by ssh")


def _reason(error: OSError) -> str:
    # the module socket adds the address, which is said already, to what the system says
    return str(error.strerror or error).partition(" (while attempting")[0]


def _listen(host: str, port: int) -> socket.socket:
    try:
        (family, _, _, _, place), *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return socket.create_server(place[:2], family=family, backlog=128)
    except OSError as error:
        message = f"cannot listen at {host} port {port}: {_reason(error)}"
        if error.errno == errno.EADDRINUSE:
            remedy = "another program has the port; name another one by --port, or [web] port"
            raise Retryable(message, remedy=remedy) from error
        raise Misconfigured(message, remedy="name an address of this machine") from error
