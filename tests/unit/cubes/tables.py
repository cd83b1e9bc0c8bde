"""Headers as they are, whatever they are, and tables as files."""

from __future__ import annotations

from pathlib import Path

from astropy.io import fits

from nightglass.config import Limits
from nightglass.cubes.records import FrameFile, HduText, PixelFormat, Plane, Stamp, Survey, TablePlan
from nightglass.fitsio.checksums import sum_bytes
from nightglass.fitsio.sealing import seal

LIMITS = Limits.model_validate({})


def header(*cards: str | bytes) -> bytes:
    """Lay out cards as they are, whatever they are."""
    text = b"".join((card.encode("latin-1") if isinstance(card, str) else card).ljust(80) for card in cards)
    text += b"END".ljust(80)
    return text.ljust(-(-len(text) // 2880) * 2880)


def frame(number: int, *hdus: bytes, directory: str = "/night") -> FrameFile:
    path = Path(directory) / f"frame{number:04d}.fits"
    return FrameFile(Stamp(path, 5760, 0, number), tuple(HduText(text, 2880, 200) for text in hdus))


def plane(file: int, hdu: int = 0, number: int = 0, *, source: str = "CAM", frame: int | None = None) -> Plane:
    return Plane(
        file=file,
        hdu=hdu,
        number=number,
        source=source,
        frame=file if frame is None else frame,
        shape=(10, 10),
        format=PixelFormat(16),
        offset=2880,
        size=200,
    )


def survey_of_headers(*texts: bytes) -> Survey:
    files = tuple(frame(number, text) for number, text in enumerate(texts))
    return Survey(files, tuple(plane(number) for number in range(len(files))))


def written(path: Path, *tables: TablePlan) -> Path:
    """Write tables as the HDUs of a file."""
    data = seal([str(card) for card in fits.PrimaryHDU().header.cards], 0)
    for table in tables:
        data += seal([str(card) for card in table.header.cards], sum_bytes(table.data))
        data += table.data + b"\0" * (-len(table.data) % 2880)
    path.write_bytes(data)
    return path
