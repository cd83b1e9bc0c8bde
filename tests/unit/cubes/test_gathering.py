"""Which planes are joined as they are, and which are not, and why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from numpy.typing import NDArray

from nightglass.config import Limits
from nightglass.cubes.assembling import assemble_cube
from nightglass.cubes.gathering import why_not_joined
from nightglass.cubes.planning import plan_cube
from nightglass.cubes.records import Compression, CubeSummary, ImagePlan
from nightglass.cubes.survey import survey_frames
from nightglass.pool import PoolBase, SerialPool
from tests.unit.cubes.nights import cube_of
from tests.unit.cubes.oracles import left_in, pixels_of, request_of
from tests.unit.cubes.packing import NAME, assert_decoded, by_astropy, by_fitsio, compress, fpacked, pack, table_of

SHAPE = (20, 33)
NULL = (1 << 32) - (1 << 31)
"""-2^31 as it is stored."""


def _reason(paths: list[Path]) -> str | None:
    request = request_of(paths, compression=Compression())
    survey = survey_frames(request, Limits())
    (image,) = [item for item in plan_cube(survey, request).hdus if isinstance(item, ImagePlan)]
    return why_not_joined(survey, image)


def _sky(seed: int, shape: tuple[int, ...] = SHAPE) -> NDArray[np.float32]:
    plane = np.random.default_rng(seed).normal(80, 4, shape).astype("f4")
    plane.flat[7], plane.flat[9] = np.nan, 0.0
    return plane


def _chain(directory: Path, seeds: list[int], method: int = 1, **options: Any) -> list[Path]:
    """Write quantised frames, each with a ZDITHER0 of its own."""
    directory.mkdir()
    return [
        pack(
            directory / f"{number}.fits",
            _sky(number),
            number,
            compression_type="RICE_1",
            quantize_level=4.0,
            quantize_method=method,
            dither_seed=seed,
            **options,
        )
        for number, seed in enumerate(seeds)
    ]


def _joined_bytes(summary: CubeSummary, paths: list[Path]) -> None:
    """Assert that the cells of all tables are those of the frames: nothing was decompressed."""
    _, cells = table_of(summary.path)
    for name in cells:
        lacking = [b""] * SHAPE[0]
        assert cells[name] == [cell for path in paths for cell in table_of(path)[1].get(name, lacking)]


@pytest.mark.parametrize(
    "options",
    [
        {"compression_type": "RICE_1"},
        {"compression_type": "RICE_1", "tile_shape": (7, 10)},
        {"compression_type": "GZIP_1"},
        {"compression_type": "GZIP_2", "tile_shape": SHAPE},
        {"compression_type": "HCOMPRESS_1", "tile_shape": (10, 33)},
        {"compression_type": "PLIO_1"},
    ],
    ids=lambda options: "-".join(str(value) for value in options.values()),
)
def test_every_algorithm_is_joined_without_being_decompressed(tmp_path: Path, options: dict[str, Any]) -> None:
    planes = [np.random.default_rng(seed).integers(0, 900, SHAPE, np.int16) for seed in range(4)]
    (tmp_path / "frames").mkdir()
    paths = [pack(tmp_path / "frames" / f"{n}.fits", plane, n, **options) for n, plane in enumerate(planes)]
    assert _reason(paths) is None
    summary = compress(paths)
    assert "compressed again" not in summary.sources[0].note
    _, cells = table_of(summary.path)
    for name in cells:
        assert cells[name] == [cell for path in paths for cell in table_of(path)[1][name]]
    assert_decoded(summary.path, np.stack(planes))


@pytest.mark.parametrize(
    ("options", "kind"),
    [(("-r",), "u2"), (("-r", "-w"), "i4"), (("-g2",), "f4"), (("-g1", "-q", "0"), "f4"), (("-h",), "i2")],
    ids=str,
)
def test_what_fpack_made_is_joined(tmp_path: Path, options: tuple[str, ...], kind: str) -> None:
    rng = np.random.default_rng(1)
    planes = [rng.normal(300, 9, SHAPE).astype(kind) for _ in range(3)]
    chosen = (*options, "-q0", "4") if options == ("-g2",) else options
    (tmp_path / "frames").mkdir()
    paths = [fpacked(tmp_path / "frames" / f"{n}.fits", plane, n, *chosen) for n, plane in enumerate(planes)]
    assert _reason(paths) is None
    summary = compress(paths)
    _joined_bytes(summary, paths)
    assert_decoded(summary.path, np.concatenate([by_astropy(path)[None] for path in paths]))


@pytest.mark.parametrize("method", [1, 2])
@pytest.mark.parametrize("first", [1, 17, 9_990, 10_000])
def test_dithers_that_go_on_are_joined(tmp_path: Path, first: int, method: int) -> None:
    """ZDITHER0 is that of the first tile; each plane has 20 tiles, and after 10000 comes 1."""
    paths = _chain(tmp_path / "frames", [1 + (first - 1 + 20 * number) % 10_000 for number in range(3)], method)
    assert _reason(paths) is None
    summary = compress(paths)
    _joined_bytes(summary, paths)
    assert table_of(summary.path)[0]["ZDITHER0"] == first
    wanted = np.stack([by_astropy(path) for path in paths])
    np.testing.assert_array_equal(wanted, np.stack([by_fitsio(path) for path in paths]))
    assert_decoded(summary.path, wanted)


@pytest.mark.parametrize("seeds", [[1, 1, 1], [1, 21, 42], [9_990, 10_010 - 10_000 + 1, 31], [5, 4, 3]], ids=str)
@pytest.mark.parametrize("method", [1, 2])
def test_dithers_that_do_not_go_on_are_not_joined_and_that_is_said(
    tmp_path: Path, seeds: list[int], method: int
) -> None:
    paths = _chain(tmp_path / "frames", seeds, method)
    assert _reason(paths) == "their dithers do not go on from plane to plane"
    summary = compress(paths)
    assert "compressed again: their dithers do not go on" in summary.sources[0].note
    header, _ = table_of(summary.path)
    assert header["ZCMPTYPE"] == "GZIP_2"
    assert header["ZQUANTIZ"] == "NONE"
    assert "their dithers do not go on" in " ".join(str(text) for text in header["COMMENT"])
    assert_decoded(summary.path, np.stack([by_astropy(path) for path in paths]))


def test_quantised_without_dither_is_joined(tmp_path: Path) -> None:
    paths = _chain(tmp_path / "frames", [1, 1, 1], -1)
    assert _reason(paths) is None
    summary = compress(paths)
    _joined_bytes(summary, paths)
    assert_decoded(summary.path, np.stack([by_astropy(path) for path in paths]))


def test_planes_of_cubes_go_on(tmp_path: Path) -> None:
    """Two cubes of three planes, the second one dithered from where the first one ends."""
    (tmp_path / "frames").mkdir()
    cubes = [np.stack([_sky(10 * number + plane) for plane in range(3)]) for number in range(2)]
    options = {"compression_type": "RICE_1", "quantize_level": 4.0, "quantize_method": 2, "tile_shape": (1, 5, 33)}
    paths = []
    for number, cube in enumerate(cubes):
        path = tmp_path / "frames" / f"{number}.fits"
        image = fits.CompImageHDU(cube, name=NAME, dither_seed=100 + 12 * number, **options)
        fits.HDUList([fits.PrimaryHDU(), image]).writeto(path)
        paths.append(path)
    assert _reason(paths) is None
    assert_decoded(compress(paths).path, np.concatenate([by_astropy(path) for path in paths]))


def _differences() -> dict[str, tuple[str, dict[str, Any], dict[str, Any]]]:
    rice = {"compression_type": "RICE_1"}
    return {
        "algorithm": ("RICE_1 here, GZIP_1 there", rice, {"compression_type": "GZIP_1"}),
        "tile": (r"tiles of (1, 33) here, of (20, 33) there", rice, rice | {"tile_shape": SHAPE}),
        "plain": ("some planes are compressed in tiles of their own, others are not", rice, {}),
    }


@pytest.mark.parametrize("difference", _differences())
def test_other_layouts_are_compressed_again_and_that_is_said(tmp_path: Path, difference: str) -> None:
    reason, one, other = _differences()[difference]
    planes = [pixels_of("i2", SHAPE, seed) // 64 for seed in range(3)]
    (tmp_path / "frames").mkdir()
    paths = [pack(tmp_path / "frames" / f"{n}.fits", plane, n, **one) for n, plane in enumerate(planes[:2])]
    paths.append(tmp_path / "frames" / "2.fits")
    if other:
        pack(paths[2], planes[2], 2, **other)
    else:
        image = fits.ImageHDU(planes[2], fits.Header([("FRAME", 2)]), name=NAME)
        fits.HDUList([fits.PrimaryHDU(), image]).writeto(paths[2])
    said = _reason(paths)
    assert said is not None
    assert reason in said
    summary = compress(paths)
    assert f"decompressed, and compressed again: {said}" in summary.sources[0].note
    assert_decoded(summary.path, np.stack(planes))


def test_other_types_are_compressed_again(tmp_path: Path) -> None:
    (tmp_path / "frames").mkdir()
    planes = [pixels_of("u1", SHAPE), pixels_of("i2", SHAPE)]
    paths = [pack(tmp_path / "frames" / f"{n}.fits", plane, n) for n, plane in enumerate(planes)]
    assert _reason(paths) == "their pixels are stored in several ways"
    assert_decoded(compress(paths).path, np.stack([plane.astype("i2") for plane in planes]))


def test_columns_that_some_frames_lack_are_joined(tmp_path: Path) -> None:
    """A plane that could not be quantised has its pixels in GZIP_COMPRESSED_DATA; fpack makes that column at need."""
    (tmp_path / "frames").mkdir()
    quiet = _sky(1)
    quiet[4:9] = 3.0
    quiet[11] = np.arange(33) * 1e30
    frames = [_sky(0), quiet, _sky(2)]
    paths = [fpacked(tmp_path / "frames" / f"{n}.fits", plane, n, "-q0", "4") for n, plane in enumerate(frames)]
    assert any(table_of(paths[1])[1]["GZIP_COMPRESSED_DATA"])
    assert "GZIP_COMPRESSED_DATA" not in table_of(paths[0])[1]
    assert _reason(paths) is None
    summary = compress(paths)
    _joined_bytes(summary, paths)
    assert_decoded(summary.path, np.stack([by_fitsio(path) for path in paths]))


def test_a_column_of_numbers_that_some_frames_lack_is_not_joined(tmp_path: Path) -> None:
    (tmp_path / "frames").mkdir()
    options = {"compression_type": "RICE_1", "quantize_level": 4.0, "quantize_method": -1}
    paths = [pack(tmp_path / "frames" / f"{n}.fits", np.nan_to_num(_sky(n)), n, **options) for n in range(3)]
    add_zblank(paths[1])
    assert _reason(paths) == "some have a column ZBLANK, others have not"
    summary = compress(paths)
    assert "some have a column ZBLANK" in summary.sources[0].note
    assert_decoded(summary.path, np.stack([by_fitsio(path) for path in paths]))


def add_zblank(path: Path) -> None:
    """Give a table one more column, ZBLANK, of which the header says nothing."""
    whole = path.read_bytes()
    with fits.open(path, disable_image_compression=True) as hdus:
        header, place = hdus[1].header.copy(), hdus[1].fileinfo()
    row, count, columns = header["NAXIS1"], header["NAXIS2"], header["TFIELDS"]
    data = whole[place["datLoc"] :]
    rows = b"".join(data[row * number : row * (number + 1)] + NULL.to_bytes(4, "big") for number in range(count))
    heap = data[row * count : row * count + header["PCOUNT"]]
    header["NAXIS1"], header["TFIELDS"] = row + 4, columns + 1
    header.insert(f"TFORM{columns}", (f"TTYPE{columns + 1}", "ZBLANK"), after=True)
    header.insert(f"TTYPE{columns + 1}", (f"TFORM{columns + 1}", "1J"), after=True)
    for keyword in ("ZBLANK", "CHECKSUM", "DATASUM"):
        header.remove(keyword, ignore_missing=True)
    text = header.tostring().encode()
    fill = bytes(-(len(rows) + len(heap)) % 2880)
    path.write_bytes(whole[: place["hdrLoc"]] + text + rows + heap + fill)


class FarPool(PoolBase):
    """Computes here, as if elsewhere: counts what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._here = SerialPool()

    @property
    def address(self) -> str:
        return ""

    def submit(self, function: Any, *args: Any, key: str | None = None, priority: int = 0) -> Any:
        self.asked.append(function.__name__)
        return self._here.submit(function, *args, key=key, priority=priority)

    def workers(self) -> Any:
        return self._here.workers()


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
def test_gathered_cubes_have_the_same_bytes(tmp_path: Path, packed: bool) -> None:
    frames = tmp_path / "frames"
    if packed:
        paths = _chain(frames, [1, 21, 41])
    else:
        frames.mkdir()
        paths = [frames / f"{number}.fits" for number in range(3)]
        for number, path in enumerate(paths):
            fits.PrimaryHDU(pixels_of("u2", SHAPE, number), fits.Header([("FRAME", number)])).writeto(path)
    shared = cube_of(*paths, compression=Compression(), out=tmp_path / "shared.fits")
    pool = FarPool()
    gathered = tmp_path / "gathered.fits"
    assemble_cube(request_of(paths, compression=Compression(), out=gathered, mode="gather", durable=False), pool=pool)
    assert gathered.read_bytes() == shared.read_bytes()
    assert left_in(tmp_path) == ["frames", "gathered.fits", "shared.fits"]
    wanted = {"read_tables", "find_spoilt", "fetch_planes"} if packed else {"fetch_squeezed"}
    assert wanted <= set(pool.asked)
    assert not {"move_planes", "squeeze_planes"} & set(pool.asked)
