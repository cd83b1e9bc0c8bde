"""The observatory file: where things are, when stages run, who is told."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo, available_timezones

from pydantic import Field, SecretStr, ValidationInfo, field_validator, model_validator

from nightglass.config.archive import Archive
from nightglass.config.builders import BuilderSource
from nightglass.config.section import Section
from nightglass.config.streams import StreamSource
from nightglass.errors import Misconfigured

__all__ = [
    "Cluster",
    "Dispatch",
    "Limits",
    "NightRule",
    "Notices",
    "Observatory",
    "Prefect",
    "Reduction",
    "Site",
    "Smtp",
    "Source",
    "Web",
]


class Site(Section):
    """Where the telescope stands; without one, nights run from noon to noon UTC."""

    name: str = ""
    latitude: float | None = Field(None, ge=-90, le=90)
    """Degrees, north positive."""
    longitude: float | None = Field(None, ge=-180, le=180)
    """Degrees, east positive."""
    elevation_m: float = 0.0
    timezone: str = "UTC"

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        if value not in available_timezones():
            message = f"there is no time zone {value!r}; write it as America/Santiago"
            raise ValueError(message)
        return value

    @property
    def zone(self) -> ZoneInfo:
        """The time zone."""
        return ZoneInfo(self.timezone)


class Source(Section):
    """One watched directory."""

    camera: str
    """A packaged camera, a name found in `camera_directories`, or the path of a camera file."""
    directory: str
    """May hold ``{camera}`` and ``{night}``; it is made if it is missing."""
    recursive: bool = True
    polling: bool = False
    """For network file systems, on which changes made elsewhere cause no event."""
    patterns: tuple[str, ...] = (
        *("*.fits", "*.fit", "*.fts", "*.fits.fz"),
        *("*.fits.gz", "*.fit.gz", "*.fts.gz", "*.fit.fz"),
    )
    """Compared without regard to case."""
    ignore: tuple[str, ...] = (".*", "*~", "*.tmp", "*.part", "*.partial", "*.filepart", "*.crdownload", "*.swp", "#*#")
    settle_s: float = Field(0.5, ge=0)
    """How long a file without a close event must keep its size before it is looked at."""
    transfer_timeout_s: float = Field(60.0, gt=0)
    """After this long without becoming complete a file is quarantined, and tried again when it changes."""
    rescan_s: float = Field(10.0, gt=0)
    """Period of the scan that finds what events missed."""


class Dispatch(enum.StrEnum):
    """How ready groups come to run."""

    INLINE = "inline"
    """In the resident runner."""
    DEPLOYMENT = "deployment"
    """As deployment runs that a worker or the serve child takes."""


class Prefect(Section):
    """The Prefect server and how work is handed to it."""

    api_url: str = ""
    """Empty: PREFECT_API_URL, or else a server that Nightglass starts and stops itself."""
    port: int = Field(0, ge=0, le=65535)
    """Port of that server; 0: any free one."""
    dispatch: Dispatch = Dispatch.INLINE
    work_pool: str = "nightglass"
    serve: bool = True
    """Start a serve child, so that scheduled runs and runs from the UI are executed."""
    concurrency: int = Field(2, ge=1, le=16)
    """Flow runs at once in the runner."""
    batch_limit: int = Field(32, ge=1, le=500)
    """Most groups in one flow run when a backlog builds up; more cost less, but newer exposures wait longer."""
    health_period_s: float = Field(0.5, gt=0)
    health_timeout_s: float = Field(1.0, gt=0)
    silence_s: float = Field(2.0, gt=0)
    """A runner silent for this long after the ledger says done is replaced."""
    fallback_s: float = Field(60.0, ge=0)
    """A stage that nobody runs for this long after it is due is run by the watch."""


class Cluster(Section):
    """The Dask cluster."""

    address: str = ""
    """Of a running scheduler; empty: a local cluster, owned by the watch."""
    workers: int = Field(2, ge=1)
    """Processes of the local cluster, one thread each."""
    memory_mib: int = Field(4096, ge=256)
    """Of each worker."""
    factory: str = ""
    """``module:Class`` of a cluster class, called with `options`."""
    options: dict[str, Any] = Field(default_factory=dict)


class Reduction(Section):
    """How exposures are reduced."""

    realtime: tuple[str, ...] = ("realtime",)
    """Step lists that run, in order, on each exposure as it arrives."""
    postprocess: tuple[str, ...] = ("postprocess",)
    """Step lists of midway and final; a camera without such a list is not reduced again for it."""
    quicklook: bool = True
    lease_s: float = Field(60.0, gt=0)
    """Time that one exposure may take; afterwards it is given to somebody else."""
    attempts: int = Field(3, ge=1)
    retry_s: float = Field(5.0, ge=0)
    """Wait before the second attempt; doubled for each further one."""
    calibration_memory_mib: int = Field(512, ge=16)
    """Memory that a combine may use."""
    calibration_settle_s: float = Field(5.0, ge=0)
    """A master is made when no further frame of its set came for this long."""


class NightRule(Section):
    """When the stages of a night run."""

    midway: str = "16h"
    """Hours after opening (``16h``), a clock time at the site (``23:30``), or ``sun``: the middle of the night."""
    final: str = "48h"
    """As above; ``sun`` means sunrise."""

    @field_validator("midway", "final")
    @classmethod
    def _is_a_due_time(cls, value: str) -> str:
        from nightglass.nights import parse_due  # the parser knows the grammar; imported late, it needs this package

        try:
            parse_due(value)
        except Misconfigured as error:
            raise ValueError(str(error)) from None  # so that the file and the key are named with it
        return value


class Smtp(Section):
    """A mail server."""

    host: str = "localhost"
    port: int = Field(587, ge=1, le=65535)
    security: Literal["starttls", "tls", "none"] = "starttls"
    user: str = ""
    password: SecretStr = SecretStr("")
    """Better given as the environment variable NIGHTGLASS_SMTP_PASSWORD."""
    timeout_s: float = Field(20.0, gt=0)


class Notices(Section):
    """Who is told about midway, final and alarms."""

    mail_from: str = ""
    mail_to: tuple[str, ...] = ()
    smtp: Smtp = Smtp()
    urls: tuple[SecretStr, ...] = ()
    """Apprise addresses (Slack, Telegram, webhooks...)."""
    file: Path | None = None
    """Every notice is appended here too."""
    command: tuple[str, ...] = ()
    """A program that gets the notice on its standard input, without a shell."""
    attachment_limit_kib: int = Field(1024, ge=1)
    """Larger attachments are compressed with gzip."""
    attempts: int = Field(5, ge=1)
    retry_s: float = Field(10.0, ge=0)

    @model_validator(mode="after")
    def _sender_and_recipients(self) -> Notices:
        if bool(self.mail_from) != bool(self.mail_to):
            got = f"mail_from={self.mail_from!r} and mail_to={list(self.mail_to)!r}"
            message = f"mail needs a sender and recipients, got {got}"
            raise ValueError(message)
        return self


class Web(Section):
    """Where image builders are reached, whoever hosts them."""

    host: str = "127.0.0.1"
    """Another address than this machine's own needs a token, in the environment variable NIGHTGLASS_TOKEN."""
    port: int = Field(8140, ge=0, le=65535)
    """0: any that is free; the status tells which."""


class Limits(Section):
    """Bounds on what comes from outside, and alarms."""

    header_blocks: int = Field(2000, ge=1)
    """Blocks of 2880 bytes in one header."""
    hdus: int = Field(5000, ge=1)
    image_mib: int = Field(1024, ge=1)
    """Uncompressed pixels of one exposure; larger ones are rejected before they are read."""
    lag_alarm_s: float = Field(60.0, gt=0)
    """Alarm when the oldest exposure that is ready has waited for this long."""
    free_disk_gib: float = Field(2.0, ge=0)
    """Alarm below this much free space under the root."""


class Observatory(Section):
    """The whole observatory file; every part has a default that works."""

    root: Path = Path("~/nightglass")
    camera_directories: tuple[Path, ...] = ()
    ledger_url: str = ""
    """SQLAlchemy URL; empty: SQLite under the root."""
    site: Site = Site()
    sources: tuple[Source, ...] = ()
    streams: tuple[StreamSource, ...] = ()
    builders: tuple[BuilderSource, ...] = ()
    night: NightRule = NightRule()
    reduction: Reduction = Reduction()
    cluster: Cluster = Cluster()
    prefect: Prefect = Prefect()
    notices: Notices = Notices()
    web: Web = Web()
    archive: Archive = Archive()
    limits: Limits = Limits()
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    @property
    def camera_texts(self) -> tuple[str, ...]:
        """What sources, streams and image builders call their cameras, each once."""
        named: list[Source | StreamSource | BuilderSource] = [*self.sources, *self.streams, *self.builders]
        return tuple(dict.fromkeys(item.camera for item in named))

    @field_validator("streams", "builders")
    @classmethod
    def _names_and_cameras_are_their_own(
        cls, value: tuple[StreamSource | BuilderSource, ...], info: ValidationInfo
    ) -> tuple[StreamSource | BuilderSource, ...]:
        names: list[tuple[str, str]] = [(item.name, item.camera) for item in value]
        for what, texts in zip(("name", "camera"), zip(*names, strict=True), strict=False):
            twice = sorted({text for text in texts if texts.count(text) > 1})
            if twice:  # they would share the numbers of their exposures
                message = f"two {info.field_name} have the {what} {twice[0]!r}; give each one of its own"
                message += ", a copy of the camera file under another name" if what == "camera" else ""
                raise ValueError(message)
        return value

    @field_validator("root")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()
