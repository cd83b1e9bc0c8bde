"""Image builders of the observatory file: what they collect, and what becomes of it."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator

from nightglass.config.section import Section

__all__ = ["BuilderOptions", "BuilderSource", "Preset"]

Preset = Literal["guider", "focus", "sky", "spectrograph", "fvc", "generic"]
"""What is set for a kind of camera."""

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
_WORD = re.compile(r"[A-Z0-9_-]{1,32}")
_SINGLE = re.compile(r"[A-Za-z0-9_+.-]{0,64}")

Extension = Annotated[str, Field(min_length=1, max_length=32)]
Constant = str | bool | int | float


class BuilderOptions(Section):
    """Every setting of an image builder that may change while it runs."""

    role: str = Field("", max_length=32)
    """First word of cubes and of file names; empty: the name of the builder."""
    module: str = Field("", max_length=32)
    """EXTNAME of the primary header of cubes; empty: the role in capitals."""
    mode: str = Field("", max_length=32)
    """What the instrument calls it: CI, GUIDE, FOCUS, SKY, SPEC; empty: the role in capitals."""

    # what is collected
    sources: tuple[Extension, ...] = ()
    """Who delivers an extension of each frame, where an assignment does not say it."""
    pull: dict[str, str] = Field(default_factory=dict)
    """Source -> where it is fetched: ``http://host/path``, ``module:function``, or a directory; the others push.

    ``{expid}``, ``{frame}``, ``{source}`` and ``{night}`` are filled in. Set in the file only."""
    unassigned: Literal["accept", "refuse"] = "accept"
    """What is done with extensions of frames that nobody assigned."""
    timeout_s: float = Field(30.0, gt=0, le=86_400)
    """A frame is built without what is missing this long after it was assigned, plus..."""
    timeout_factor: float = Field(1.0, ge=0, le=1000)
    """...so many exposure times."""
    pull_timeout_s: float = Field(10.0, gt=0, le=3600)
    """Silence of a source after which the request is made anew."""
    pull_retry_s: float = Field(0.5, gt=0, le=3600)
    """Wait before the second attempt to pull; doubled for each further one, up to 8 s, until the deadline."""
    primary: str = "PRIMARY"
    """Name of the primary extension."""

    # how it is kept
    durable: bool = False
    """Sync each extension to the disk before it is acknowledged: it then survives loss of power, too."""
    max_bytes: int = Field(16 << 30, ge=1 << 20)
    """What the spool may hold; beyond it nothing is accepted."""
    max_body_bytes: int = Field(1 << 30, ge=2880)
    """Largest extension."""
    mem_purge: bool = True
    """Give the pixels of old exposures back, once they are saved."""
    mem_purge_threshold: int = Field(4, ge=0)
    """Exposures that are kept in the spool."""
    frame_purge_threshold: int = Field(4, ge=0)
    """Frames of an exposure that are kept in the spool."""
    record_threshold: int = Field(200, ge=1)
    """Exposures of which is remembered what became of them, when all their pixels were given back."""
    file_purge: bool = False
    """Delete old local files, once they are archived or in the ledger."""
    file_purge_threshold: int = Field(2, ge=0)
    """Exposures whose local files are kept."""

    # what becomes of it
    to_ledger: bool = True
    """Give each built frame to the night, as if it had come as a file; where there is a watch."""
    idle_s: float = Field(30.0, gt=0)
    """An exposure that nobody finalises counts as over, for people, when nothing happened to it for this long."""
    exposure_ready_mode: Literal["memory", "built", "fits", "png"] = "memory"
    """After what a frame is announced: collected, built, written or plotted."""
    local_copy: bool = False
    """Write each built frame."""
    image_dir: str = ""
    """Where; environment variables are expanded. Empty: ``<root>/images/<builder>``."""
    image_name: str = ""
    """First part of file names; empty: the role."""
    use_obs_day: bool = True
    use_exp_dir: bool = True
    sub_dir: str = ""
    add_frame: bool | None = True
    """Frame number in file names; None: in those of all frames but the first, 0."""
    add_on: str = ""
    """Goes before ``.fits``."""
    compress: bool = False
    """Rice."""
    overwrite: bool = False
    """Replace files of the same name; a frame that is built again always replaces its own."""
    exclude: tuple[str, ...] = ()
    """Keywords, or shell patterns of keywords, that are left out of what is written, sent and handed out."""
    send_to: tuple[str, ...] = ()
    """Receivers of each built frame: names of `receivers`, URLs, or ``module:function``."""
    send_command: str = ""
    """Appended to the URL of a receiver, or sent along."""
    receivers: dict[str, str] = Field(default_factory=dict)
    """Name -> URL or ``module:function``."""
    send_retry_s: float = Field(1.0, gt=0, le=3600)
    send_attempts: int = Field(8, ge=1, le=1000)
    use_built_callback: bool = True
    use_saved_callback: bool = True
    use_sent_callback: bool = True
    use_archived_callback: bool = True

    # pictures
    use_plotter: bool = True
    plot_save: bool = False
    plot_save_ext: str = "ALL"
    plot_save_mode: str = "EXTENSIONS"
    plot_show: bool = False
    """Show on the page of the builder what `plot_show_ext` names; otherwise all extensions."""
    plot_show_ext: str = "ALL"
    plot_show_mode: str = "EXTENSIONS"
    """Kept for who asks for it: the page shows extensions side by side in either case."""
    plot_mark_center: bool = False
    plot_title: bool = True
    plot_subtitle: bool = True
    png_dir: str = ""
    """Empty: beside the images."""

    # archive
    archive: Literal["finalized", "asked"] = "asked"
    """``finalized``: as soon as an exposure is complete and all its frames are built."""
    archive_dir: str = ""
    """Empty: the archive of the night."""
    archive_primary: tuple[str, ...] = ()
    archive_secondary: tuple[str, ...] = ()
    archive_metadata: tuple[str, ...] = ()
    """Empty: every keyword."""

    # kinds of camera
    use_guider: bool = False
    """Cut regions of interest out of every frame."""
    guider_app: str = ""
    """Receiver of the stamps of each frame: URL or ``module:function``; empty: none."""
    use_donut: bool = False
    """Measure the focus in every frame."""
    donut_app: str = ""
    """Who does it: URL or ``module:function``; empty: the simple measure that is built in."""
    stamp_mib: int = Field(256, ge=1)
    """Space on disk for stamps; beyond it those that are in a cube go. Others stay, and more of them is an alarm."""

    callables: tuple[str, ...] = ()
    """Modules, or ``module:function``, that targets may name; nothing else is ever imported. Set in the file only."""
    directories: tuple[str, ...] = ()
    """Directories below which commands may have files written, besides those set here. Set in the file only."""

    # constants
    constants_version: str = "DEFAULT"
    constants: dict[str, dict[str, Constant]] = Field(default_factory=dict)
    """Version -> cards of every primary header, on top of those of the site."""
    software_version: str = ""
    """SOFTVER; empty: that of Nightglass."""

    @field_validator("primary")
    @classmethod
    def _capital(cls, value: str) -> str:
        if not _WORD.fullmatch(value.upper()):
            message = f"{value!r} is no name for an extension; letters, digits, _ and -, at most 32"
            raise ValueError(message)
        return value.upper()

    @field_validator("sources")
    @classmethod
    def _extension_names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        names = tuple(item.upper() for item in value)
        for name in names:
            if not _WORD.fullmatch(name) or names.count(name) > 1:
                message = f"{name!r} is no name for a source, or twice; letters, digits, _ and -, at most 32"
                raise ValueError(message)
        return names

    @field_validator("pull")
    @classmethod
    def _pulled_names(cls, value: dict[str, str]) -> dict[str, str]:
        return {name.upper(): place for name, place in value.items()}

    @field_validator("exclude")
    @classmethod
    def _capitals(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(item.upper() for item in value))

    @field_validator("add_on", "image_name", "role", "module", "mode")
    @classmethod
    def _part_of_a_name(cls, value: str) -> str:
        if not _SINGLE.fullmatch(value) or value.startswith("."):
            message = f"{value!r} cannot be part of a file name: letters, digits, _, +, - and . are allowed"
            raise ValueError(message)
        return value


class BuilderSource(BuilderOptions):
    """One image builder: a name, a camera, a preset, and every option that differs from the preset."""

    name: str
    """What status, addresses and directories call it: small letters, digits, ``_`` and ``-``."""
    camera: str
    """A packaged camera, a name found in `camera_directories`, or the path of a camera file."""
    preset: Preset = "generic"

    @field_validator("name")
    @classmethod
    def _plain_name(cls, value: str) -> str:
        if not _NAME.fullmatch(value):
            message = f"{value!r} is no name for an image builder; write it as guider-2"
            raise ValueError(message)
        return value
