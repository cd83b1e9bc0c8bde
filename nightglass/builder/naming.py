"""Names of files, by the Image Builder's rules.

``<image_dir>/<night>/<expid>/<sub_dir>/<base>-<expid>[-<frame>][<add_on>].fits[.fz]``: eight digits of the exposure,
four of the frame; night and exposure directories as the options say. Nothing that comes from outside leads out of the
directories that the configuration names.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from nightglass.builder.records import ArchiveOrder, ExposureView, RoiOrder, WriteOrder
from nightglass.config import BuilderOptions
from nightglass.errors import Misconfigured, Rejected
from nightglass.layout import Layout
from nightglass.model import sanitize

__all__ = ["Names"]

_PART: Final = re.compile(r"[A-Za-z0-9_+-][A-Za-z0-9_+.-]{0,63}")
_ADD_ON: Final = re.compile(r"[A-Za-z0-9_+.-]{0,64}")
_DEEPEST: Final = 8
_NIGHT: Final = re.compile(r"\d{8}")
_KEPT: Final = frozenset(
    {"raw", "reduced", "quicklook", "masters", "stacks", "reports", "logs", "builder", "stamps", "lightcurves"}
)
"""Directories of a night, below ``<root>/<camera>/<night>``, in which nobody has files written."""


@dataclass(frozen=True, slots=True)
class Names:
    """The names of one builder's files.

    Attributes
    ----------
    images : Path
        Where images go unless somebody says otherwise.
    allowed : tuple of Path
        Directories below which files may be written.
    night_role : str
        First word of the cubes that the night itself makes of what is in the ledger.
    """

    layout: Layout
    builder: str
    camera: str
    images: Path
    allowed: tuple[Path, ...]
    night_role: str = ""

    @classmethod
    def of(cls, builder: str, options: BuilderOptions, *, layout: Layout, camera: str, night_role: str = "") -> Self:
        """Make them of the options of the configuration: its directories are those that may be written.

        Raises
        ------
        Misconfigured
            If a directory names an environment variable that is not set.
        """
        root = layout.root.absolute()
        images = _expanded(options.image_dir, root) if options.image_dir else root / "images" / sanitize(builder)
        named = (options.archive_dir, options.png_dir, *options.directories)
        others = [_expanded(text, root) for text in named if text]
        return cls(layout, builder, camera, images, tuple(dict.fromkeys((images, *others, root))), night_role)

    def frame(self, exposure: ExposureView, frame: int, options: BuilderOptions, order: WriteOrder) -> Path:
        """Return where a frame is written.

        With ``add_frame = None`` frame 0 has no number in its name, all others have.

        Raises
        ------
        Rejected
            If a part of the name is none, or leads elsewhere.
        """
        directory = self._directory(exposure, options, order.image_dir or options.image_dir, options.sub_dir)
        compress = options.compress if order.compress is None else order.compress
        add_frame = options.add_frame if order.add_frame is None else order.add_frame
        base = self._base(options, order.image_name)
        stem = f"{base}-{exposure.expid:08d}"
        if add_frame or (add_frame is None and frame > 0):
            stem += f"-{frame:04d}"
        return directory / f"{stem}{self._add_on(options, order.add_on)}{_suffix(compress=compress)}"

    def cube(self, exposure: ExposureView, options: BuilderOptions, order: ArchiveOrder) -> Path:
        """Return where the cube of an exposure goes: ``<archive_dir>/<night>/<expid>/<role>-<expid>.fits[.fz]``.

        Without an `archive_dir` that is the archive of the night; or, where the night gives its own cube that name, the
        directory of the images: neither replaces the other's.
        """
        compress = options.compress if order.compress is None else order.compress
        role = self.role(options)
        name = f"{role}-{exposure.expid:08d}{_suffix(compress=compress)}"
        asked = order.archive_dir
        if not (asked or options.archive_dir) and role == sanitize(self.night_role, default=""):
            asked = str(self.images)
        return self._archive_directory(exposure, options, asked) / name

    def stamp_cube(self, exposure: ExposureView, options: BuilderOptions, order: ArchiveOrder) -> Path:
        """Return where the cube of an exposure's stamps goes: ``<role>-rois-<expid>.fits[.fz]``."""
        compress = options.compress if order.compress is None else order.compress
        name = f"{self.role(options)}-rois-{exposure.expid:08d}{_suffix(compress=compress)}"
        return self._archive_directory(exposure, options, order.archive_dir) / name

    def stamps(self, exposure: ExposureView, frame: int, options: BuilderOptions, order: RoiOrder) -> Path:
        """Return where the stamps of a frame are written."""
        directory = self._directory(exposure, options, order.image_dir or options.image_dir, options.sub_dir)
        stem = f"{self._base(options, order.image_name)}-rois-{exposure.expid:08d}"
        if order.add_frame:
            stem += f"-{frame:04d}"
        return directory / f"{stem}{self._add_on(options, order.add_on)}.fits"

    def picture(self, exposure: ExposureView, frame: int, extension: str, options: BuilderOptions) -> Path:
        """Return where a picture goes; an empty extension is that of all of them."""
        directory = self._directory(exposure, options, options.png_dir or options.image_dir, options.sub_dir)
        stem = f"{self._base(options, None)}-{exposure.expid:08d}-{frame:04d}"
        return directory / (f"{stem}-{sanitize(extension)}.png" if extension else f"{stem}.png")

    def manifest(self, cube: Path, exposure: ExposureView) -> Path:
        """Return where the manifest beside a cube goes."""
        return cube.with_name(f"manifest_{exposure.expid:08d}.json")

    def role(self, options: BuilderOptions) -> str:
        """Return the first word of names."""
        return sanitize(options.role or self.builder)

    def check(self, options: BuilderOptions) -> None:
        """See that files can have the names that options give them.

        Raises
        ------
        Misconfigured, Rejected
            If a directory or a part of a name is none, or leads elsewhere.
        """
        for wanted in (options.image_dir, options.png_dir, options.archive_dir):
            if wanted:
                self.within(_expanded(wanted, self.images))
        _parts(options.sub_dir)
        self._base(options, None)
        self._add_on(options, None)

    def place(self, text: str) -> Path:
        """Return a directory that somebody asks for.

        Raises
        ------
        Misconfigured, Rejected
            If it is none, or files may not be written there.
        """
        return self.within(_expanded(text, self.images))

    def within(self, directory: Path) -> Path:
        """Return a directory, resolved, if files may be written there.

        Raises
        ------
        Rejected
            If not.
        """
        real = Path(os.path.realpath(directory))
        named = (place for place in self.allowed if place != self.layout.root.absolute())
        if not any(real.is_relative_to(os.path.realpath(place)) for place in named) and not self._is_free(real):
            places = ", ".join(map(str, self.allowed))
            # not which: variables of the environment are expanded in it, and are nobody's business elsewhere
            message = f"the directory that was asked for is not below a directory of {self.builder}"
            raise Rejected(
                message, remedy=f"choose one below {places}, or add it to directories in the observatory file"
            )
        return directory

    def _is_free(self, real: Path) -> bool:
        """Tell whether a directory is below the root, and not one in which Nightglass keeps what is its own."""
        root = Path(os.path.realpath(self.layout.root))
        if not real.is_relative_to(root):
            return False
        parts = real.relative_to(root).parts
        of_night = len(parts) > 2 and _NIGHT.fullmatch(parts[1]) is not None
        kept = parts[:1] in (("run",), ("prefect",)) or (of_night and parts[2] in _KEPT)
        return not kept and not any(part.startswith(".") for part in parts)

    def _directory(self, exposure: ExposureView, options: BuilderOptions, wanted: str, sub_dir: str) -> Path:
        directory = _expanded(wanted, self.images) if wanted else self.images
        if options.use_obs_day:
            directory /= exposure.night.label
        if options.use_exp_dir:
            directory /= f"{exposure.expid:08d}"
        return self.within(directory.joinpath(*_parts(sub_dir)))

    def _archive_directory(self, exposure: ExposureView, options: BuilderOptions, asked: str | None) -> Path:
        wanted = asked or options.archive_dir
        if not wanted:
            return self.layout.archive(self.camera, exposure.night, f"{exposure.expid:08d}")
        directory = _expanded(wanted, self.images)
        return self.within(directory / exposure.night.label / f"{exposure.expid:08d}")

    def _base(self, options: BuilderOptions, asked: str | None) -> str:
        name = asked or options.image_name
        if name and not _PART.fullmatch(name):
            message = f"image_name {name!r} cannot begin the name of a file"
            raise Rejected(message, remedy="use letters, digits, _, +, - and .; at most 64")
        return name or self.role(options)

    def _add_on(self, options: BuilderOptions, asked: str | None) -> str:
        text = options.add_on if asked is None else asked
        if not _ADD_ON.fullmatch(text):
            message = f"add_on {text!r} cannot be part of the name of a file"
            raise Rejected(message, remedy="use letters, digits, _, +, - and .; at most 64")
        return text


def _parts(sub_dir: str) -> list[str]:
    parts = [part for part in sub_dir.split("/") if part]
    for part in parts:
        if not _PART.fullmatch(part) or len(parts) > _DEEPEST or sub_dir.startswith("/"):
            message = f"sub_dir {sub_dir!r} is no directory below the others"
            raise Rejected(message, remedy="use letters, digits, _, +, - and . in each part")
    return parts


def _expanded(text: str, base: Path) -> Path:
    """Expand environment variables; a relative path is one below `base`."""
    if "\0" in text:
        message = f"{text!r} is no path"
        raise Rejected(message, remedy="leave out the NUL")
    expanded = os.path.expandvars(text)
    if "$" in expanded:
        message = f"the directory {text!r} names an environment variable that is not set"
        raise Misconfigured(message, remedy="set it for the process that serves, or write the path out")
    return base / Path(expanded).expanduser()


def _suffix(*, compress: bool) -> str:
    return ".fits.fz" if compress else ".fits"
