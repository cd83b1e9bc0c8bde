"""Frames for the outputs of a builder, as its spool would hold them, and what others say of files."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from shutil import which
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from numpy.typing import NDArray

from nightglass.builder.headertext import header_text
from nightglass.builder.records import ExposureState, ExposureView, ExtensionRecord, FrameState, FrameView, Instructions
from nightglass.config import Limits
from nightglass.fitsio import scan_headers
from nightglass.model import Night

NIGHT = Night("20260821")


def record_of(path: Path, name: str, *, cards: str = "") -> ExtensionRecord:
    """Describe the HDU of a spooled file that has data, or the last."""
    infos = scan_headers(path, Limits())
    info = next((item for item in infos if item.data_size), infos[-1])
    return ExtensionRecord(
        name=name,
        source=name,
        path=path,
        hdu=info.index,
        header_offset=info.header_offset,
        data_offset=info.data_offset,
        data_size=info.data_size,
        shape=info.shape,
        bitpix=info.bitpix,
        size=path.stat().st_size,
        compressed=info.is_compressed_image,
        cards=cards,
    )


def extension(
    directory: Path,
    name: str,
    pixels: NDArray[Any] | None,
    header: Mapping[str, Any] | None = None,
    *,
    compressed: str = "",
    cards: str = "",
) -> ExtensionRecord:
    """Spool pixels: a primary HDU with data, or a tile-compressed image behind an empty one."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{name}.fits"
    made = fits.Header.fromstring(header_text(header or {}), sep="\n")
    if compressed:
        hdus = [fits.PrimaryHDU(), fits.CompImageHDU(pixels, made, compression_type=compressed)]
        fits.HDUList(hdus).writeto(path, overwrite=True)
    else:
        fits.PrimaryHDU(pixels, made).writeto(path, overwrite=True)
    return record_of(path, name, cards=cards)


def frame(
    extensions: Sequence[ExtensionRecord],
    *,
    expid: int = 70965,
    number: int = 0,
    primary: Mapping[str, Any] | None = None,
    missing: tuple[str, ...] = (),
    instructions: Instructions | None = None,
    **changes: Any,
) -> FrameView:
    """Make a built frame."""
    return FrameView(
        expid=expid,
        frame=number,
        state=FrameState.PARTIAL if missing else FrameState.BUILT,
        extensions=tuple(extensions),
        primary=header_text(primary or {}),
        missing=missing,
        expected=(*(item.name for item in extensions), *missing),
        instructions=instructions or Instructions(),
        **changes,
    )


def exposure(expid: int = 70965, frames: tuple[int, ...] = (0,), **changes: Any) -> ExposureView:
    """Make an exposure of the night."""
    return ExposureView(expid=expid, night=NIGHT, state=ExposureState.OPEN, frames=frames, **changes)


def noise(shape: tuple[int, ...], seed: int = 0, *, kind: str = "u2") -> NDArray[Any]:
    """Return pixels as a camera gives them: a level, noise, a few of all values."""
    rng = np.random.default_rng(seed)
    values = 1000 + rng.normal(0, 12, shape)
    if kind.startswith("f"):
        return values.astype(kind)
    bounds = np.iinfo(kind)
    pixels = np.clip(values, bounds.min, bounds.max).astype(kind)
    if pixels.size > 2:
        pixels.flat[0], pixels.flat[-1] = bounds.max, bounds.min
    return pixels


def verified(path: Path) -> None:
    """Let fitsverify judge a file, where it is installed, and astropy its checksums."""
    with fits.open(path, checksum=True, disable_image_compression=True) as hdus:  # a false checksum is a warning
        assert all("CHECKSUM" in hdu.header and "DATASUM" in hdu.header for hdu in hdus)
    if which("fitsverify") is None:
        pytest.skip("needs fitsverify")
    said = subprocess.run(["fitsverify", "-q", str(path)], capture_output=True, text=True, check=False).stdout
    assert said.startswith("verification OK"), said
