"""Files of readouts and recordings with anything in them: read as far as they go, or refused for one reason."""

from __future__ import annotations

import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nightglass.errors import Rejected, Retryable
from nightglass.sensors.recordings import Recorder, read_recording
from nightglass.streams import find_protocol
from nightglass.streams.astropix import ApxWriter, RunSummary, decode_run, read_run

MOST_BYTES = 8 << 20
ASTROPIX = find_protocol("astropix")
LOG = b"""Voltages: {'vdd': 1.8, 'list': [1, 2, (3, 4)]}
Digital: {'a': True, 'b': None}
 Namespace(outdir='x', threshold=100.0, inject=[0, 9])
1\tb'bcbce0112233445566778899ff'
2\tb'e0112233445566778'
"""
MARKS = {
    ".apx": (b"%APXDF", b"\xff\xff\xff\xff", b"\xfe\xdc\xba", b"\xff\xff\xff\x7f", b"[" * 3000),
    ".log": (b"{" * 3000, b"Namespace(" * 500, b"9" * 400, b"\t", b"\n", b"'", b"__import__('os')", b"-" * 3000),
    ".rec": (b"\n", b"\xff\xff\xff\xff", b"{", b"[" * 3000, b'"', b"9" * 400),
}


def good(suffix: str) -> bytes:
    """Return a file that is as it ought to be."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / f"one{suffix}"
        if suffix == ".apx":
            with ApxWriter(path, {"readout_uid": 4000, "voltages": {"vdd": 1.8}}) as writer:
                writer.write([ASTROPIX.example(seed) for seed in range(5)])
        elif suffix == ".log":
            path.write_bytes(LOG)
        else:
            with Recorder(path, protocol="astropix", endpoints=("127.0.0.1:5007",)) as recorder:
                for seed in range(5):
                    recorder.write(0, ASTROPIX.encode(ASTROPIX.example(seed)))
        return path.read_bytes()


def read_hits(path: Path) -> int:
    summary = RunSummary()
    _, pieces = read_run(path, summary)
    return sum(len(hits) for hits in decode_run(pieces, summary))


def read_pieces(path: Path) -> int:
    recording = read_recording(path)
    return sum(len(piece.data) for piece in recording.pieces())


READERS: dict[str, Callable[[Path], int]] = {".apx": read_hits, ".log": read_hits, ".rec": read_pieces}
SUFFIXES = pytest.mark.parametrize("suffix", READERS)


def altered(whole: bytes, marks: tuple[bytes, ...]) -> st.SearchStrategy[bytes]:
    """Bytes of a file of which pieces are missing, repeated, overwritten, or put in between."""

    def put(item: tuple[float, float, bytes]) -> Callable[[bytes], bytes]:
        def change(data: bytes) -> bytes:
            first, last = sorted(int(len(data) * place) for place in item[:2])
            return data[:first] + item[2] + data[last:]

        return change

    places = st.floats(0, 1)
    filling = st.binary(max_size=30) | st.sampled_from(marks)
    changes = st.lists(
        st.tuples(places, places, filling) | places.flatmap(lambda place: _at(place, filling)), max_size=4
    )

    def changed(items: list[tuple[float, float, bytes]]) -> bytes:
        data = whole
        for item in items:
            data = put(item)(data)
        return data

    return changes.map(changed)


def _at(place: float, filling: st.SearchStrategy[bytes]) -> st.SearchStrategy[tuple[float, float, bytes]]:
    return filling.map(lambda data: (place, place, data))


@SUFFIXES
def test_a_good_file_is_read(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"one{suffix}"
    path.write_bytes(good(suffix))
    assert READERS[suffix](path) > 0


@SUFFIXES
@settings(max_examples=250)
@given(data=st.data())
def test_whatever_is_in_a_file_is_read_or_refused(suffix: str, data: st.DataObject) -> None:
    content = data.draw(st.binary(max_size=200) | altered(good(suffix), MARKS[suffix]))
    np.empty(0)  # imported before memory is counted
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / f"one{suffix}"
        path.write_bytes(content)
        tracemalloc.start()
        reason = str(path)
        try:
            READERS[suffix](path)
        except (Rejected, Retryable) as error:
            reason = str(error)
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
    assert path.name in reason
    assert peak < MOST_BYTES
