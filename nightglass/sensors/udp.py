"""Streams of datagrams, to one host or to a group."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import select
import socket
import struct
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from nightglass.config import StreamSource
from nightglass.errors import Misconfigured
from nightglass.sensors.backlog import Backlog
from nightglass.sensors.endpoints import Endpoint, interface_index
from nightglass.sensors.receiver import Tap, ThreadedReceiver
from nightglass.streams import DatagramDecoder, StreamProtocol

__all__ = ["UdpReceiver", "join_group"]

M = TypeVar("M")

_TICK_MS = 200
_BATCH = 256
_LAST_BATCHES = 1024
_LARGEST = 65536
_SO_RXQ_OVFL = 40
"""Linux: each datagram comes with the number of those that were dropped before it."""
_IP_MULTICAST_ALL = 49
"""Linux: 0 leaves out groups that only others on this host have joined."""
_ANCILLARY_BYTES = socket.CMSG_SPACE(4)
_LOOPBACK = "lo"
_MOST_NAMES = 1024


class UdpReceiver(ThreadedReceiver[M]):
    """Listens at an address of this host, or joins a group.

    Several receivers may join one group at one port, also in different programs; at an address of the host the system
    gives each datagram to one program alone, so a second one is refused.

    Raises
    ------
    Misconfigured
        If other hosts would reach it, and `bind_any` does not allow that.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        protocol: StreamProtocol[M],
        decoder: DatagramDecoder[M],
        backlog: Backlog[M],
        settings: StreamSource,
        *,
        on_alarm: Callable[[str], None] | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        tap: Tap | None = None,
    ) -> None:
        super().__init__(endpoint, protocol, decoder, backlog, settings, on_alarm=on_alarm, clock=clock, tap=tap)
        self._singles = decoder
        self._interface = settings.interface or ("" if settings.bind_any else _LOOPBACK)
        local = self._interface in (_LOOPBACK, "127.0.0.1") if endpoint.multicast else endpoint.loopback
        if not local and not settings.bind_any:
            message = f"stream {settings.name}: {endpoint} is reached by other hosts"
            raise Misconfigured(message, remedy="listen at 127.0.0.1 or on interface lo, or set bind_any = true")
        self._names: dict[object, str] = {}
        self._socket_number = 0
        self._told_drops = self._earlier_drops = 0

    def _attend(self) -> str:
        listener = self._open()
        try:
            self._told_drops = 0
            self._socket_number = os.fstat(listener.fileno()).st_ino
            self._begun(listener.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF))
            return self._receive(listener)
        finally:
            self._earlier_drops = self._kernel_drops()
            self._told_drops = self._socket_number = 0
            listener.close()

    def _receive(self, listener: socket.socket) -> str:
        poller = select.poll()
        poller.register(listener, select.POLLIN)
        buffer = bytearray(_LARGEST)
        while not self._stopping.is_set():
            if poller.poll(_TICK_MS):
                self._drain(listener, buffer)
        # what the system has taken is ours; a sender that never pauses does not keep this from ending
        for _ in range(_LAST_BATCHES):
            if not self._drain(listener, buffer):
                break
        return "stopped"

    def _drain(self, listener: socket.socket, buffer: bytearray) -> bool:
        """Take what is there, up to a batch, and pass it on sender by sender; say whether there may be more."""
        view, datagram, tap = memoryview(buffer), self._singles.datagram, self._tap
        messages: list[M] = []
        sender: object = None
        more = True
        for _ in range(_BATCH):
            try:
                count, ancillary, _, address = listener.recvmsg_into((buffer,), _ANCILLARY_BYTES)
            except BlockingIOError:
                more = False
                break
            if ancillary:
                self._note_drops(ancillary)
            if address != sender:
                self._deliver(messages, self._name(sender))
                messages, sender = [], address
            if tap is not None:
                tap(view[:count])
            messages += datagram(view[:count])
        self._deliver(messages, self._name(sender))
        return more

    def _note_drops(self, ancillary: list[tuple[int, int, bytes]]) -> None:
        for level, kind, data in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, _SO_RXQ_OVFL):
                self._told_drops = int(struct.unpack("=I", data[:4])[0])

    def _name(self, address: object) -> str:
        name = self._names.get(address)
        if name is None:
            if len(self._names) >= _MOST_NAMES:
                self._names.clear()
            name = str(Endpoint(address[0], address[1])) if isinstance(address, tuple) else ""
            self._names[address] = name
        return name

    def _kernel_drops(self) -> int:
        """Return what the system dropped; what it tells with datagrams, or, after the last of them, in its table."""
        table = "udp6" if ":" in self._endpoint.host else "udp"
        listed = 0
        if self._socket_number:
            with contextlib.suppress(OSError, ValueError):
                for line in Path("/proc/net", table).read_text(encoding="ascii").splitlines()[1:]:
                    fields = line.split()
                    if fields[9] == str(self._socket_number):
                        listed = int(fields[12])
        return self._earlier_drops + max(listed, self._told_drops)

    def _open(self) -> socket.socket:
        host, port = self._endpoint.host, self._endpoint.port
        family, kind, number, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        listener = socket.socket(family, kind, number)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._settings.receive_buffer_kib * 1024)
            listener.setsockopt(socket.SOL_SOCKET, _SO_RXQ_OVFL, 1)
            listener.settimeout(0)
            if self._endpoint.multicast:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                join_group(listener, host, port, self._interface)
            else:
                listener.bind(address)
        except OSError as error:
            listener.close()
            if error.errno == errno.EADDRINUSE:
                text = "another program listens there; several can join a group, as 239.1.1.1"
                raise OSError(error.errno, text) from error
            raise
        return listener


def join_group(listener: socket.socket, group: str, port: int, interface: str) -> None:
    """Bind a socket to a group, and join it on an interface.

    Parameters
    ----------
    interface : str
        Name, or an IPv4 address of the interface; empty: the one that the system chooses.

    Raises
    ------
    OSError
        If the system refuses.
    Misconfigured
        If there is no such interface.
    """
    if listener.family == socket.AF_INET6:
        index = interface_index(interface)
        listener.bind((group, port, 0, index))
        request = socket.inet_pton(socket.AF_INET6, group) + struct.pack("@I", index)
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, request)
        return
    # bound to the group, so that datagrams to other groups and to the host itself do not come here
    listener.bind((group, port))
    listener.setsockopt(socket.IPPROTO_IP, _IP_MULTICAST_ALL, 0)
    try:
        local, index = ipaddress.IPv4Address(interface).packed, 0
    except ValueError:
        local, index = bytes(4), interface_index(interface)
    request = struct.pack("=4s4si", socket.inet_aton(group), local, index)
    listener.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, request)
