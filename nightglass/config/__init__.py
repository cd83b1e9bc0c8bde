"""Typed configuration: the observatory file and the camera files."""

from nightglass.config.archive import Archive, ArchiveKeywords, Purge
from nightglass.config.camera import (
    Amplifier,
    CalibrationRule,
    Camera,
    Detector,
    Dialect,
    GroupRule,
    KindRule,
    MissingCalibration,
    QualityRule,
    StepEntry,
    TimeRule,
)
from nightglass.config.loading import load_camera, load_observatory, packaged_cameras
from nightglass.config.observatory import (
    Cluster,
    Dispatch,
    Limits,
    NightRule,
    Notices,
    Observatory,
    Prefect,
    Reduction,
    Site,
    Smtp,
    Source,
)
from nightglass.config.section import Section, choose, load_toml, validate
from nightglass.config.streams import Overflow, StreamSource

__all__ = [
    "Amplifier",
    "Archive",
    "ArchiveKeywords",
    "CalibrationRule",
    "Camera",
    "Cluster",
    "Detector",
    "Dialect",
    "Dispatch",
    "GroupRule",
    "KindRule",
    "Limits",
    "MissingCalibration",
    "NightRule",
    "Notices",
    "Observatory",
    "Overflow",
    "Prefect",
    "Purge",
    "QualityRule",
    "Reduction",
    "Section",
    "Site",
    "Smtp",
    "Source",
    "StepEntry",
    "StreamSource",
    "TimeRule",
    "choose",
    "load_camera",
    "load_observatory",
    "load_toml",
    "packaged_cameras",
    "validate",
]
