"""What is set for each kind of camera: configuration, where others have subclasses."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from nightglass.config import BuilderOptions, BuilderSource, validate

__all__ = ["PRESETS", "options_of"]

_ASSIGNED: Final = {"unassigned": "refuse"}

PRESETS: Final[Mapping[str, Mapping[str, Any]]] = MappingProxyType(
    {
        "generic": {},
        "guider": {
            **_ASSIGNED,
            "role": "guide",
            "module": "GUIDER",
            "mode": "GUIDE",
            "use_guider": True,
            "timeout_s": 5.0,
        },
        "focus": {**_ASSIGNED, "role": "focus", "module": "FOCUS", "mode": "FOCUS", "use_donut": True},
        "sky": {
            **_ASSIGNED,
            "role": "sky",
            "module": "SKY",
            "mode": "SKY",
            "archive_primary": ("TILEID", "FLAVOR", "NIGHT", "EXPTIME", "DATE-OBS", "MJD-OBS"),
            "archive_metadata": ("DATE-OBS", "TIME-OBS", "MJD-OBS", "EXPTIME", "*TEMP*", "SKY*"),
        },
        "spectrograph": {
            **_ASSIGNED,
            "role": "spec",
            "module": "SPEC",
            "mode": "SPEC",
            "add_frame": None,
            "compress": True,
            "local_copy": True,
            "exposure_ready_mode": "built",
            "plot_subtitle": False,
            "timeout_s": 120.0,
        },
        "fvc": {**_ASSIGNED, "role": "fvc", "module": "FVC", "mode": "FVC", "local_copy": True},
    }
)
"""Preset -> what differs from the defaults of `BuilderOptions`."""


def options_of(source: BuilderSource) -> BuilderOptions:
    """Return the options of a builder: those of its preset, and over them what its section says.

    Raises
    ------
    Misconfigured
        If they do not fit together.
    """
    own = {"name", "camera", "preset"}
    said = {name: getattr(source, name) for name in source.model_fields_set - own}
    values = {"role": source.name, **PRESETS[source.preset], **said}
    values["module"] = values.get("module") or str(values["role"]).upper()
    values["mode"] = values.get("mode") or str(values["role"]).upper()
    return validate(BuilderOptions, values, where=f"image builder {source.name}")
