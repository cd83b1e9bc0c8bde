"""Streams over TCP: this side connects, and connects again."""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import time
from typing import TypeVar

from nightglass.sensors.receiver import ReceiverState, ThreadedReceiver

__all__ = ["TcpReceiver"]

M = TypeVar("M")

_TICK_MS = 200
_TICK = struct.pack("@ll", 0, _TICK_MS * 1000)
"""As the system's `struct timeval`."""
_KEEPALIVE = (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))
"""Seconds, seconds, probes: a sender whose host is gone is noticed after a minute, however quiet it was."""


class TcpReceiver(ThreadedReceiver[M]):
    """Receives one connection; bytes go from the system right into the decoder's buffer."""

    def _attend(self) -> str:
        self._state = ReceiverState.CONNECTING
        connection = self._connect()
        if connection is None:
            return "stopped"
        try:
            self._begun(connection.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF))
            return self._receive(connection)
        finally:
            connection.close()
            if self._tap is not None:
                self._tap(memoryview(b""))
            self._deliver(self._decoder.finish(), str(self._endpoint))

    def _receive(self, connection: socket.socket) -> str:
        decoder, tap, idle_s, peer = self._decoder, self._tap, self._settings.idle_timeout_s, str(self._endpoint)
        # the system waits, and is asked once; Python's own time-out would ask it before each call whether to call
        connection.settimeout(None)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TICK)
        heard = time.monotonic()
        while not self._stopping.is_set():
            buffer = decoder.get_buffer()
            try:
                count = connection.recv_into(buffer)
            except BlockingIOError:
                if 0 < idle_s < time.monotonic() - heard:
                    return f"nothing came for {idle_s:g} s"
                continue
            if not count:
                return "the sender closed the connection"
            if idle_s:
                heard = time.monotonic()
            if tap is not None:
                tap(buffer[:count])
            if messages := decoder.buffer_updated(count):
                self._deliver(messages, peer)
        return "stopped"

    def _connect(self) -> socket.socket | None:
        """Return a connection; None if there is no more need of one."""
        host, port = self._endpoint.host, self._endpoint.port
        trouble: OSError = ConnectionError(errno.EHOSTUNREACH, f"{host} has no address")
        for family, kind, number, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            connection = socket.socket(family, kind, number)
            try:
                # the window that TCP offers is settled by the first packet
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._settings.receive_buffer_kib * 1024)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                for name, value in _KEEPALIVE:
                    connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
                connection.settimeout(0)
                if self._wait_for(connection, address):
                    return connection
            except OSError as error:
                trouble = error
            connection.close()
            if self._stopping.is_set():
                return None
        raise trouble

    def _wait_for(self, connection: socket.socket, address: object) -> bool:
        """Wait until a connection is made; False if this shall end first."""
        code = connection.connect_ex(address)  # type: ignore[arg-type]
        poller = select.poll()
        poller.register(connection, select.POLLOUT)
        limit = time.monotonic() + self._settings.connect_timeout_s
        while code == errno.EINPROGRESS and not poller.poll(_TICK_MS):
            if self._stopping.is_set():
                return False
            if time.monotonic() > limit:
                raise TimeoutError(errno.ETIMEDOUT, f"no answer within {self._settings.connect_timeout_s:g} s")
        if code == errno.EINPROGRESS:
            code = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))
        if connection.getsockname() == connection.getpeername():
            raise OSError(errno.ECONNREFUSED, "nobody listens there")  # a port of this host that answered itself
        return True
