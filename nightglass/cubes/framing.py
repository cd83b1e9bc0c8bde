"""Which file of frames is which in a cube, and which image of it is which plane."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nightglass.config import Limits
from nightglass.cubes.bintables import read_rows
from nightglass.cubes.cardstore import StoredHdu, read_data
from nightglass.cubes.comparing import FramePlane
from nightglass.cubes.geometry import Picture
from nightglass.cubes.headers import read_header
from nightglass.cubes.likeness import Pictures
from nightglass.cubes.names import file_names, file_path
from nightglass.cubes.opening import CubeFile, Origin
from nightglass.cubes.records import Encoding, FrameFile, Plane, Problem, Survey
from nightglass.errors import NightglassError, Rejected

__all__ = ["FrameSet", "image_planes", "match_frames"]


@dataclass(frozen=True, slots=True)
class FrameSet:
    """Frames, as a cube knows them.

    Attributes
    ----------
    survey : Survey
        Their files.
    files : dict
        Name in the cube to index in `survey.files`.
    planes : dict
        HDU of the cube to where each of its planes came from; None where that is not among the frames.
    differences : list of str
        What has no counterpart.
    left_out : tuple of Path
        Frames that the cube says it left out.
    """

    survey: Survey
    files: dict[str, int]
    planes: dict[int, list[FramePlane | None]]
    differences: list[str]
    left_out: tuple[Path, ...]

    def wrong_tables(self, file: int, stored: Sequence[StoredHdu]) -> list[str]:
        """Compare data that are no images with those that the card store holds."""
        found = self.survey.files[file]
        numbers = [hdu.number for hdu in stored if hdu.data_size and hdu.is_table]
        if not numbers:
            return []
        try:
            data = dict(read_data(found, numbers, Limits()))
        except NightglassError as error:
            return [str(error)]
        return [
            f"{found.stamp.path}: the table in HDU {number} "
            + ("is too large for the card store and not in the cube" if stored[number].data is None else "differs")
            for number in numbers
            if stored[number].data != data[number]
        ]


def image_planes(survey: Survey, limits: Limits) -> list[dict[tuple[int, int], Plane] | Rejected]:
    """Return the planes of all images of each file, by HDU and plane number; source and frame are not known here.

    In the place of a file with a malformed header stands the error that says so.
    """
    places = [(index, number) for index, file in enumerate(survey.files) for number in range(len(file.hdus))]
    pictures = Pictures([survey.files[index].hdus[number].text for index, number in places], limits)
    found: list[dict[tuple[int, int], Plane] | Rejected] = [{} for _ in survey.files]
    for place, (index, number) in enumerate(places):
        planes = found[index]
        if isinstance(planes, Rejected) or not survey.files[index].hdus[number].data_size:
            continue
        try:
            picture = pictures.find(place, number)
        except Rejected as error:
            found[index] = error
            continue
        if picture is not None:
            _add_planes(planes, picture, survey.files[index], index, number)
    return found


def _add_planes(
    planes: dict[tuple[int, int], Plane], picture: Picture, file: FrameFile, index: int, number: int
) -> None:
    tiles, size, hdu = picture.tiles, picture.plane_size, file.hdus[number]
    for plane in range(picture.planes):
        planes[number, plane] = Plane(
            file=index,
            hdu=number,
            number=plane,
            source="",
            frame=0,
            shape=picture.shape,
            format=picture.format,
            encoding=Encoding.TILES if tiles else Encoding.GZIP if file.gzip else Encoding.PLAIN,
            offset=hdu.data_offset + (0 if tiles else plane * size),
            size=hdu.data_size if tiles else size,
            tiles=tiles,
        )


def match_frames(opened: CubeFile, survey: Survey, unreadable: Sequence[Problem], limits: Limits) -> FrameSet:
    """Find the file, and the image in it, of each plane of a cube."""
    cube = opened.file.stamp.path
    known = dict.fromkeys(origin.name for image in opened.images for origin in image.origins)
    if opened.cards is not None:
        known |= dict.fromkeys(opened.cards.names)
    files = _pair(list(known), [file.stamp.path for file in survey.files])
    absent = _left_out(opened)
    differences = [f"{cube} has {name}, which is not among the frames" for name in known if name not in files]
    left_out = []
    for problem in unreadable:
        if problem.path.name in absent:
            left_out.append(problem.path)
        else:
            differences.append(f"{problem.path}: {problem.reason}")
    places: dict[Origin, FramePlane] = {}
    planes_of = image_planes(survey, limits)
    for name, index in files.items():
        file, planes = survey.files[index], planes_of[index]
        if isinstance(planes, Rejected):
            differences.append(f"{file.stamp.path}: {planes}")
            continue
        for (hdu, number), plane in planes.items():
            places[Origin(name, hdu, number)] = FramePlane(file.stamp.path, file.gzip, plane)
    matched = {image.hdu: [places.get(origin) for origin in image.origins] for image in opened.images}
    paired = {*files.values()}
    for index, file in enumerate(survey.files):
        if index not in paired and file.stamp.path.name in absent:
            left_out.append(file.stamp.path)
        elif index not in paired:
            differences.append(f"{cube} has nothing of {file.stamp.path}")
    differences += _not_once(opened, places, files, absent)
    return FrameSet(survey, files, matched, differences, tuple(left_out))


def _not_once(
    opened: CubeFile, places: dict[Origin, FramePlane], files: dict[str, int], absent: frozenset[str]
) -> list[str]:
    """Tell which images of the frames are not in the cube exactly once."""
    cube = opened.file.stamp.path
    counts = Counter(origin for image in opened.images for origin in image.origins)
    wrong = [
        f"{cube} has no plane of HDU {origin.hdu} (image {origin.number}) of {origin.name}"
        for origin in places
        if origin not in counts and file_path(origin.name).name not in absent
    ]
    wrong += [
        f"{cube} has HDU {origin.hdu} (image {origin.number}) of {origin.name} {count} times"
        for origin, count in counts.items()
        if count > 1
    ]
    return wrong + [
        f"{cube} has image {origin.number} of HDU {origin.hdu} of {origin.name}, which is not there"
        for origin in counts
        if origin not in places and origin.name in files
    ]


def _left_out(opened: CubeFile) -> frozenset[str]:
    """Return the last parts of the names of files of which the cube says that something was left out."""
    for hdu in opened.file.hdus:
        if read_header(hdu.text).get("EXTNAME") == "GAPS":
            names = read_rows(opened.file.stamp.path, hdu).texts("FILE")
            return frozenset(file_path(name).name for name in names if name)
    return frozenset()


def _pair(known: Sequence[str], paths: Sequence[Path]) -> dict[str, int]:
    """Find the file of each name: as the cube would name these files, else by the end of its path, if only one fits."""
    named = dict(zip(file_names(paths), range(len(paths)), strict=True))
    pairs = {name: named[name] for name in known if name in named}
    paired = {*pairs.values()}
    by_last: dict[str, list[int]] = {}
    for index, path in enumerate(paths):
        if index not in paired:
            by_last.setdefault(path.name, []).append(index)
    for name in known:
        if name in pairs:
            continue
        stored = file_path(name)
        same = by_last.get(stored.name, [])
        fits = [index for index in same if paths[index].parts[-len(stored.parts) :] == stored.parts] or same
        if len(fits) == 1:
            pairs[name] = fits[0]
    return pairs
