"""Receivers against real sockets on loopback."""

from __future__ import annotations

import socket
import threading
import time
from typing import Any

import pytest

from nightglass.config import Overflow
from nightglass.errors import Misconfigured
from nightglass.sensors import Backlog, Endpoint, ReceiverState, make_source, open_receivers, parse_endpoint
from nightglass.sensors import parse_source as parse
from nightglass.streams import find_protocol
from tests.ports import free_port, needs_ipv6
from tests.unit.sensors.streams.site import (
    PATIENCE_S,
    collect,
    listening,
    readout,
    running,
    source,
    until,
)

AARTFAAC, ASTROPIX = find_protocol("aartfaac"), find_protocol("astropix")


def backlog(mib: int = 64, overflow: Overflow = Overflow.BLOCK) -> Backlog[Any]:
    return Backlog(mib << 20, overflow)


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("127.0.0.1:6666", Endpoint("127.0.0.1", 6666)),
        ("[::1]:5007", Endpoint("::1", 5007)),
        ("host.example:1", Endpoint("host.example", 1)),
    ],
)
def test_endpoints_are_read_and_written(text: str, endpoint: Endpoint) -> None:
    assert parse_endpoint(text) == endpoint
    assert str(endpoint) == text


@pytest.mark.parametrize(
    "text", ["", "host", ":1", "host:", "host:0", "host:65536", "::1:5", "[::1", "a/b:1", "h:٣", "[]:1"]
)
def test_what_is_no_endpoint_is_refused(text: str) -> None:
    with pytest.raises(Misconfigured, match="no endpoint"):
        parse_endpoint(text)


def test_sources_are_read() -> None:
    assert parse("aartfaac://a:1,[::1]:2").endpoints == (Endpoint("a", 1), Endpoint("::1", 2))
    with pytest.raises(Misconfigured, match="not known"):
        parse("lofar://a:1")
    with pytest.raises(Misconfigured, match="neither a source nor a file"):
        parse("nothing.apx")


@pytest.mark.parametrize("host", ["127.0.0.1", pytest.param("::1", marks=needs_ipv6)])
@pytest.mark.parametrize("piece", [1 << 20, 977])
def test_windows_come_over_tcp(host: str, piece: int) -> None:
    wires = [AARTFAAC.encode(AARTFAAC.example(seed)) for seed in range(8)]
    stream = b"garbage" + b"".join(wires)

    def serve(connection: socket.socket, number: int) -> None:
        for start in range(0, len(stream) if number == 0 else 0, piece):
            connection.sendall(stream[start : start + piece])
        connection.recv(1)

    waiting = backlog()
    with listening(serve, host) as endpoint:
        with running(source("aartfaac", endpoint), waiting) as (receiver,):
            found = collect(waiting, len(wires))
            status = receiver.status
        assert receiver.status.state is ReceiverState.STOPPED
    assert [AARTFAAC.encode(item.message) for item in found] == wires
    assert {item.peer for item in found} == {endpoint}
    assert all(item.size > item.message.pixels.nbytes for item in found)
    assert (status.messages, status.bytes, status.skipped) == (8, len(stream), len("garbage"))
    assert (status.resynchronised, status.faults["BAD_MAGIC"], status.kernel_drops) == (1, 1, None)
    assert status.connected_since is not None
    assert status.last_message_at is not None
    assert status.buffer_bytes > 0


def test_a_lost_connection_is_made_again_and_costs_what_was_torn() -> None:
    wire = AARTFAAC.encode(AARTFAAC.example(0))
    told: list[str] = []

    def serve(connection: socket.socket, number: int) -> None:
        connection.sendall(wire + wire[: len(wire) // 2])

    waiting = backlog()
    with listening(serve) as endpoint, running(source("aartfaac", endpoint), waiting, on_alarm=told.append) as (one,):
        collect(waiting, 4)
        status = one.status
    assert status.reconnects >= 3
    assert status.truncated >= 3
    assert "closed the connection" in told[0]


def test_a_sender_that_is_not_there_yet_is_waited_for() -> None:
    told: list[str] = []
    port = free_port()
    waiting = backlog()
    with running(source("aartfaac", f"127.0.0.1:{port}"), waiting, on_alarm=told.append) as (receiver,):
        until(lambda: told)
        assert "refused" in receiver.status.trouble
        with socket.create_server(("127.0.0.1", port)) as server:
            connection, _ = server.accept()
            with connection:
                connection.sendall(AARTFAAC.encode(AARTFAAC.example(0)))
                collect(waiting, 1)
                assert receiver.status.trouble == ""
                assert len(told) == 1  # however many attempts there were


def test_silence_ends_a_connection_only_where_it_is_asked_for() -> None:
    def serve(connection: socket.socket, number: int) -> None:
        connection.recv(1)

    with listening(serve) as endpoint:
        with running(source("aartfaac", endpoint, idle_timeout_s=0.2), backlog()) as (receiver,):
            until(lambda: receiver.status.reconnects >= 1)
        with running(source("aartfaac", endpoint), backlog()) as (receiver,):
            until(lambda: receiver.status.state is ReceiverState.RECEIVING)
            time.sleep(0.6)
            assert receiver.status.reconnects == 0


def test_a_full_backlog_holds_the_sender_back() -> None:
    """The sender is stopped by TCP; memory stays within its limit, and nothing is lost."""
    wire = AARTFAAC.encode(AARTFAAC.example(0)) * 50
    sent = [0]

    def serve(connection: socket.socket, number: int) -> None:
        for _ in range(400):
            connection.sendall(wire)
            sent[0] += 50
        connection.recv(1)

    waiting = backlog(1)
    wanted = source("aartfaac", "x:1", receive_buffer_kib=64)
    with listening(serve) as endpoint, running(wanted.model_copy(update={"endpoints": (endpoint,)}), waiting):
        until(lambda: waiting.counts.blocked_s > 0 or waiting.counts.bytes > 1000_000)
        time.sleep(0.3)
        assert sent[0] < 20_000
        found = collect(waiting, 20_000)
    assert len(found) == 20_000
    assert waiting.counts.peak_bytes <= 1 << 20
    assert waiting.counts.dropped == 0


def sender(group: str = "") -> socket.socket:
    made = socket.socket(socket.AF_INET6 if ":" in group else socket.AF_INET, socket.SOCK_DGRAM)
    if group and ":" not in group:
        made.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
    return made


@pytest.mark.parametrize("host", ["127.0.0.1", pytest.param("::1", marks=needs_ipv6)])
def test_datagrams_come_and_losses_are_counted(host: str) -> None:
    port = free_port(host)
    waiting = backlog()
    name = f"[{host}]" if ":" in host else host
    numbers = [5, 6, 9, 8, 9, 12]
    with running(source("astropix", f"{name}:{port}"), waiting) as (receiver,), sender(host * (":" in host)) as out:
        until(lambda: receiver.status.state is ReceiverState.RECEIVING)
        for number in numbers:
            out.sendto(readout(number).to_bytes(), (host, port))
        out.sendto(b"hello", (host, port))
        found = collect(waiting, len(numbers))
        until(lambda: receiver.status.skipped)
        status = receiver.status
    assert [item.message.readout_id for item in found] == numbers
    losses = status.losses
    assert losses is not None
    assert (losses.received, losses.lost, losses.late, losses.duplicates) == (6, 3, 1, 1)
    assert (status.messages, status.skipped, status.kernel_drops) == (6, 5, 0)


def test_each_sender_has_its_own_numbers() -> None:
    port = free_port()
    waiting = backlog()
    with running(source("astropix", f"127.0.0.1:{port}"), waiting) as (receiver,), sender() as one, sender() as two:
        until(lambda: receiver.status.state is ReceiverState.RECEIVING)
        for number in range(50):
            one.sendto(readout(number).to_bytes(), ("127.0.0.1", port))
            two.sendto(readout(number + 1000).to_bytes(), ("127.0.0.1", port))
        found = collect(waiting, 100)
        assert receiver.status.losses is not None
        assert receiver.status.losses.lost == receiver.status.losses.restarts == 0
    assert len({item.peer for item in found}) == 2


def test_several_join_a_group_on_loopback_and_each_gets_all() -> None:
    port = free_port()
    first, second = backlog(), backlog()
    wanted = source("astropix", f"239.1.1.1:{port}")
    with running(wanted, first) as (one,), running(wanted, second) as (two,), sender("239.1.1.1") as out:
        until(lambda: one.status.connected_since and two.status.connected_since)
        for number in range(20):
            out.sendto(readout(number).to_bytes(), ("239.1.1.1", port))
        for waiting in (first, second):
            assert [item.message.readout_id for item in collect(waiting, 20)] == list(range(20))


def test_an_address_that_is_taken_is_told_and_tried_again() -> None:
    port = free_port()
    told: list[str] = []
    wanted = source("astropix", f"127.0.0.1:{port}")
    with running(wanted, backlog()) as (one,):
        until(lambda: one.status.connected_since)
        with running(wanted, backlog(), on_alarm=told.append) as (two,):
            until(lambda: told)
            assert "can join a group" in two.status.trouble
            one.stop()
            until(lambda: two.status.connected_since)


@pytest.mark.parametrize("endpoint", ["0.0.0.0:5007", "192.0.2.1:5007", "[::]:5007"])
def test_other_hosts_reach_a_receiver_only_by_permission(endpoint: str) -> None:
    with pytest.raises(Misconfigured, match="bind_any"):
        open_receivers(source("astropix", endpoint), backlog())
    assert open_receivers(source("astropix", endpoint, bind_any=True), backlog())
    with pytest.raises(Misconfigured, match="bind_any"):
        open_receivers(source("astropix", "239.1.1.1:5007", interface="eth9"), backlog())
    with pytest.raises(Misconfigured, match="twice"):
        open_receivers(source("aartfaac", "a:1", "a:1"), backlog())


def test_what_the_system_dropped_is_counted_also_at_the_end() -> None:
    """The receiver is held up by a full backlog while the system's small buffer runs over."""
    port, count = free_port(), 5000
    waiting: Backlog[Any] = Backlog(1, Overflow.BLOCK)
    with (
        running(source("astropix", f"127.0.0.1:{port}", receive_buffer_kib=4), waiting) as (receiver,),
        sender() as out,
    ):
        until(lambda: receiver.status.state is ReceiverState.RECEIVING)
        for number in range(count):
            out.sendto(readout(number, bytes(400)).to_bytes(), ("127.0.0.1", port))
        dropped = receiver.status.kernel_drops
        assert dropped is not None
        assert dropped > 0
        found = collect(waiting, count - dropped)
        out.sendto(readout(count).to_bytes(), ("127.0.0.1", port))
        found += collect(waiting, 1)
        losses = receiver.status.losses
        assert losses is not None
        assert losses.lost == receiver.status.kernel_drops == count + 1 - len(found)


@pytest.mark.timed
def test_stopping_is_quick_and_leaves_no_thread() -> None:
    before = set(threading.enumerate())

    def serve(connection: socket.socket, number: int) -> None:
        connection.recv(1)

    with listening(serve) as endpoint:
        receivers = [
            *open_receivers(source("aartfaac", endpoint), backlog()),
            *open_receivers(source("astropix", f"127.0.0.1:{free_port()}"), backlog()),
        ]
        assert all(receiver.join(0) for receiver in receivers)  # never started
        for receiver in receivers:
            receiver.start()
        until(lambda: all(receiver.status.state is ReceiverState.RECEIVING for receiver in receivers))
        began = time.monotonic()
        for receiver in receivers:
            receiver.stop()
        assert all(receiver.join(PATIENCE_S) for receiver in receivers)
        assert time.monotonic() - began < 2
    assert not set(threading.enumerate()) - before


def test_a_source_from_the_command_line_is_reached_as_it_was_named() -> None:
    assert not make_source(parse("astropix://127.0.0.1:5007")).bind_any
    assert not make_source(parse("astropix://239.1.1.1:5007")).bind_any
    assert make_source(parse("astropix://239.1.1.1:5007"), interface="eth0").bind_any
    assert make_source(parse("astropix://0.0.0.0:5007")).bind_any
