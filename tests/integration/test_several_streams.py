"""Several streams in one watch: of different cameras, of one kind on one group, over IPv4 and IPv6."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

import nightglass.cameras
from nightglass.config import load_observatory
from nightglass.ledger import Ledger
from nightglass.model import State
from nightglass.simulate.emulator import DatagramEmulator, StreamEmulator
from nightglass.simulate.streams import SkyBands, synthetic_readouts, synthetic_sky
from tests.integration.receiving import beat, entries_of, eventually, live, states
from tests.ports import free_port, needs_ipv6

pytestmark = pytest.mark.slow
GROUP6 = "ff11::5007"
"""Interface-local: it stays on this host."""
ASTROPIX = Path(nightglass.cameras.__file__).parent / "astropix.toml"


def stream(name: str, camera: str, *endpoints: str, more: str = "", protocol: str = "") -> str:
    listed = ", ".join(f'"{endpoint}"' for endpoint in endpoints)
    what = f'protocol = "{protocol or camera}"'
    lines = (f'name = "{name}"', f'camera = "{camera}"', what, f"endpoints = [{listed}]", more)
    return "\n".join(("[[streams]]", "reconnect_s = 60", *lines, ""))


@contextlib.contextmanager
def watching(directory: Path, *streams: str) -> Iterator[Ledger]:
    root = directory / "out"
    configuration = directory / "observatory.toml"
    configuration.write_text(
        f'root = "{root}"\nlimits = {{ free_disk_gib = 0 }}\nreduction = {{ quicklook = false }}\n{"".join(streams)}'
    )
    with Ledger.open(root / "ledger.sqlite") as ledger, live(load_observatory(configuration, environment={}), ledger):
        yield ledger


def listens(root: Path, *names: str) -> bool:
    found = {state["name"]: {peer["state"] for peer in state["peers"]} for state in beat(root).streams}
    return all(found[name] == {"receiving"} for name in names)


def messages(root: Path) -> dict[str, int]:
    return {state["name"]: state["messages"] for state in beat(root).streams}


def readouts_in(ledger: Ledger, name: str) -> list[int]:
    found: list[int] = []
    for entry in entries_of(ledger):
        if entry.path.parent.name == name:
            with fits.open(entry.path, checksum=True) as hdus:
                assert hdus[0].header["STREAM"] == name
                found += hdus["READOUTS"].data["readout_id"].tolist()
    return found


@pytest.mark.parametrize("host", ["127.0.0.1", pytest.param("::1", marks=needs_ipv6)])
def test_of_different_cameras(tmp_path: Path, host: str) -> None:
    """A sky over TCP and hits as datagrams, both over one version of the internet protocol."""
    root, name = tmp_path / "out", f"[{host}]" if ":" in host else host
    sky, port = SkyBands(synthetic_sky((48, 64), sources=4), seed=1), free_port(host)
    packets = list(synthetic_readouts(count=200, rate_hz=100.0))
    with StreamEmulator(host, (0, 0), sky, period_s=0, steps=3) as emulator:
        with watching(
            tmp_path,
            stream("sky", "aartfaac", *(f"{name}:{port}" for port in emulator.ports)),
            stream("hits", "astropix", f"{name}:{port}", more="slice_s = 1.0\nwait_s = 0.3"),
        ) as ledger:
            eventually(lambda: listens(root, "hits"), what="a listener")
            DatagramEmulator(host, port, rate_hz=2000).run(packets)
            eventually(lambda: messages(root) == {"sky": 6, "hits": 200}, what="all messages")
            eventually(lambda: states(ledger).count(State.REDUCED) >= 5, what="time steps and slices, reduced")
        cameras = {entry.camera for entry in entries_of(ledger)}
        assert cameras == {"aartfaac", "astropix"}
        assert sorted(readouts_in(ledger, "hits")) == list(range(200))


def test_of_two_chips_on_one_group(tmp_path: Path) -> None:
    """Each gets every readout, and makes exposures of its own camera of them: the same file under another name."""
    root, port = tmp_path / "out", free_port()
    east = tmp_path / "east.toml"
    east.write_text(ASTROPIX.read_text().replace('name = "astropix"', 'name = "east"'))
    packets = list(synthetic_readouts(count=200, rate_hz=100.0))
    with watching(
        tmp_path,
        stream("one", "astropix", f"239.1.1.1:{port}", more="slice_s = 1.0\nwait_s = 0.3"),
        stream(
            "two",
            str(east),
            f"239.1.1.1:{port}",
            more="slice_s = 1.0\nwait_s = 0.3\nhit_map = [32, 32]",
            protocol="astropix",
        ),
    ) as ledger:
        eventually(lambda: listens(root, "one", "two"), what="two listeners")
        DatagramEmulator("239.1.1.1", port, rate_hz=2000).run(packets)
        eventually(lambda: messages(root) == {"one": 200, "two": 200}, what="all messages")
        eventually(lambda: states(ledger).count(State.REDUCED) >= 4, what="slices of both, reduced")
    entries = entries_of(ledger)
    assert {entry.camera for entry in entries} == {"astropix", "east"}
    assert len({entry.exposure_id for entry in entries}) == len(entries)
    for name, shape in (("one", (35, 16)), ("two", (32, 32))):
        assert sorted(readouts_in(ledger, name)) == list(range(200))
        maps = [fits.getdata(entry.path, "HITMAP") for entry in entries if entry.path.parent.name == name]
        assert {plane.shape for plane in maps} == {shape}
        assert np.sum(maps) > 200


@pytest.fixture
def interface6() -> tuple[int, str]:
    """Number and name of an interface on which an IPv6 group of this host can be reached; nothing leaves the host."""
    group = socket.inet_pton(socket.AF_INET6, GROUP6)
    for index, name in socket.if_nameindex():
        with contextlib.suppress(OSError), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.settimeout(1.0)
            probe.bind((GROUP6, 0, 0, index))
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group + struct.pack("@I", index))
            probe.sendto(b"?", (GROUP6, probe.getsockname()[1], 0, index))
            if probe.recv(10) == b"?":
                return index, name
    return pytest.skip("no interface here has datagrams to IPv6 groups")


def test_of_an_ipv6_group(tmp_path: Path, interface6: tuple[int, str]) -> None:
    root, port = tmp_path / "out", free_port()
    index, name = interface6
    packets = list(synthetic_readouts(count=100, rate_hz=100.0))
    options = f'slice_s = 1.0\nwait_s = 0.3\ninterface = "{name}"\nbind_any = true'
    with watching(tmp_path, stream("six", "astropix", f"[{GROUP6}]:{port}", more=options)) as ledger:
        eventually(lambda: listens(root, "six"), what="a listener")
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sender:
            for packet in packets:
                sender.sendto(packet, (GROUP6, port, 0, index))
        eventually(lambda: messages(root) == {"six": 100}, what="all messages")
    assert sorted(readouts_in(ledger, "six")) == list(range(100))
