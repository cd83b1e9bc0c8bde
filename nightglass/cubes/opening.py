"""A finished cube as its readers see it: images by name, each with the table of its frames."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from nightglass.config import Limits
from nightglass.cubes.bintables import TableRows, read_rows
from nightglass.cubes.cardstore import CARDS, CardStore
from nightglass.cubes.geometry import Picture, find_picture
from nightglass.cubes.headers import read_header
from nightglass.cubes.metadata import OWN_COLUMNS
from nightglass.cubes.records import Encoding, FrameFile, Plane
from nightglass.cubes.scanning import scan_file
from nightglass.errors import Rejected
from nightglass.fitsio.cards import Scalar

__all__ = ["CubeFile", "CubeImage", "Origin", "open_cube"]

_NOT_OURS: Final = "only cubes of Nightglass can be verified and extracted"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a plane of a cube came from: file (by its name in the cube), HDU, and plane of that HDU."""

    name: str
    hdu: int
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CubeImage:
    """The image of one source, with the table of its frames.

    Attributes
    ----------
    hdu : int
        Which HDU of the cube.
    values : dict
        Keyword to value, of its header.
    origins, frames : tuple
        Where each plane came from, and the number of its frame.
    """

    name: str
    hdu: int
    picture: Picture
    values: dict[str, Scalar]
    rows: TableRows
    origins: tuple[Origin, ...]
    frames: tuple[int, ...]
    data_offset: int

    def plane(self, index: int) -> Plane:
        """Describe a plane as if the cube were a frame."""
        size = self.picture.plane_size
        tiles = self.picture.tiles
        return Plane(
            file=0,
            hdu=self.hdu,
            number=index,
            source=self.name,
            frame=self.frames[index],
            shape=self.picture.shape,
            format=self.picture.format,
            encoding=Encoding.TILES if tiles else Encoding.PLAIN,
            offset=self.data_offset if tiles else self.data_offset + index * size,
            size=size,
            tiles=tiles,
        )


@dataclass(frozen=True, slots=True)
class CubeFile:
    """A cube, with the headers of all of its HDUs."""

    file: FrameFile
    images: tuple[CubeImage, ...]
    cards: CardStore | None


def open_cube(path: Path, limits: Limits) -> CubeFile:
    """Read the headers and tables of a cube.

    Raises
    ------
    Rejected
        If it is no cube of ours, or damaged.
    Retryable
        If it cannot be read, or is not whole.
    """
    file = scan_file(path, limits)
    if file.gzip:
        message = f"{path} is gzip as a whole"
        raise Rejected(message, remedy="unpack it first: planes cannot be found in it otherwise")
    headers = [read_header(hdu.text) for hdu in file.hdus]
    places = {str(values.get("EXTNAME") or ""): index for index, values in enumerate(headers)}
    images = []
    for index, values in enumerate(headers):
        picture = find_picture(values, index, limits)
        if picture is None:
            continue
        name = str(values.get("EXTNAME") or "")
        if f"{name}T" not in places:
            message = f"{path}: image {name!r} in HDU {index} has no table {name}T"
            raise Rejected(message, remedy=_NOT_OURS)
        rows = read_rows(path, file.hdus[places[f"{name}T"]])
        images.append(_image(path, name, index, picture, values, rows, file.hdus[index].data_offset))
    if not images:
        message = f"{path} has no image"
        raise Rejected(message, remedy=_NOT_OURS)
    cards = CardStore(read_rows(path, file.hdus[places[CARDS]])) if CARDS in places else None
    return CubeFile(file, tuple(images), cards)


def _image(
    path: Path, name: str, index: int, picture: Picture, values: dict[str, Scalar], rows: TableRows, offset: int
) -> CubeImage:
    if not {*OWN_COLUMNS} <= {*rows.columns}:
        message = f"{path}: table {name}T lacks {', '.join(sorted({*OWN_COLUMNS} - {*rows.columns}))}"
        raise Rejected(message, remedy=_NOT_OURS)
    if len(rows) != picture.planes:
        message = f"{path}: {name} has {picture.planes} planes, but {name}T has {len(rows)} rows"
        raise Rejected(message, remedy="the cube is damaged: take another copy")
    numbers = [np.asarray(rows.columns[column]).tolist() for column in ("HDU", "PLANE")]
    return CubeImage(
        name=name,
        hdu=index,
        picture=picture,
        values=values,
        rows=rows,
        origins=tuple(map(Origin, rows.texts("FILE"), *numbers)),
        frames=tuple(rows.columns["FRAME"].tolist()),
        data_offset=offset,
    )
