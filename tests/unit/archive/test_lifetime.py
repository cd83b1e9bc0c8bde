"""An exposure from its first frame to the day on which its raw frames are gone, with real cubes."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from nightglass.archive import ArchiveOutcome, purge
from nightglass.cubes import assemble_cube, verify_cube
from nightglass.cubes.extracting import extract_frames
from nightglass.errors import Rejected
from tests.unit.archive.material import CAMERA, NIGHT, Site


def _frame(number: int) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 60000, (9, 7)).astype(np.uint16)
    hdu = fits.PrimaryHDU(pixels)
    hdu.header["FRAME"] = number
    hdu.header["HISTORY"] = f"frame {number}"
    content = io.BytesIO()
    hdu.writeto(content, checksum=True)
    return content.getvalue()


def _add(site: Site, number: int) -> Path:
    return site.add(f"f{number}.fits", _frame(number), number=f"7-{number}", parent="7").path


@pytest.mark.parametrize("compress", ["", "rice"])
def test_late_frames_renew_a_cube_and_purged_ones_come_back(site: Site, tmp_path: Path, compress: str) -> None:
    site.assemble = assemble_cube
    site.settings = {"compress": compress, "purge": {"age_days": 0}}
    paths = [_add(site, number) for number in (3, 0, 1)]
    first = site.archive("7")
    assert (first.outcome, first.frames) == (ArchiveOutcome.ARCHIVED, 3)
    assert first.path is not None
    with fits.open(first.path) as hdus:
        assert hdus["GAPS"].data["FIRST"].tolist() == [2]

    paths.append(_add(site, 2))
    second = site.archive("7")
    assert (second.outcome, second.frames, second.path) == (ArchiveOutcome.ARCHIVED, 4, first.path)
    assert verify_cube(second.path, paths).ok
    with fits.open(second.path) as hdus:
        assert "GAPS" not in hdus
        assert hdus["GUIDE0T"].data["FRAME"].tolist() == [0, 1, 2, 3]
    assert site.archive("7").outcome is ArchiveOutcome.CURRENT

    contents = {path: path.read_bytes() for path in paths}
    for entry in site.ledger.members(f"lynx/{NIGHT}/7"):
        site.reduce(entry)
    site.clock.now += 1
    purged = purge(ledger=site.ledger, observatory=site.observatory, camera=CAMERA.name, now=site.clock.now)
    assert purged.files == 4, purged.kept
    assert not any(path.exists() for path in paths)

    assert site.archive("7").outcome is ArchiveOutcome.CURRENT, "the cube is all there is now"
    late = _add(site, 4)
    with pytest.raises(Rejected, match="are only in its cube"):
        site.archive("7")
    extract_frames(second.path, paths[0].parent)
    assert {path: path.read_bytes() for path in paths} == contents
    third = site.archive("7")
    assert third.frames == 5
    assert third.path is not None
    assert verify_cube(third.path, [*paths, late]).ok
