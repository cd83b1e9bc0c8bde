"""The deployments as ``prefect.yaml`` lists them, read without Prefect."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module, resources
from pathlib import Path
from typing import Any

import yaml

from nightglass.errors import Misconfigured

__all__ = ["Definition", "Schedule", "load_definitions", "load_flow"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """When a deployment runs by itself."""

    cron: str
    timezone: str = "UTC"
    active: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """One deployment.

    Attributes
    ----------
    entrypoint : str
        Module path of the flow, as ``flows.realtime.reduce_exposure``.
    parameters : dict
        Defaults of the form; the flow has the same.
    concurrency_limit : int
        Runs at once; what comes on top waits or is cancelled, see `collision_strategy`.
    """

    name: str
    entrypoint: str
    description: str
    tags: tuple[str, ...] = ()
    parameters: dict[str, Any] = field(default_factory=dict)
    schedules: tuple[Schedule, ...] = ()
    concurrency_limit: int = 1
    collision_strategy: str = "ENQUEUE"
    work_pool: str = "nightglass"

    @property
    def flow_name(self) -> str:
        """Name of its flow, as Prefect shows it."""
        return self.entrypoint.rsplit(".", 1)[-1].replace("_", "-")

    @property
    def full_name(self) -> str:
        """``flow/deployment``, what ``prefect deployment run`` takes."""
        return f"{self.flow_name}/{self.name}"

    def fitted(self, *, configuration: str, timezone: str, work_pool: str) -> Definition:
        """Return it with the configuration file, time zone and work pool of a site."""
        return replace(
            self,
            parameters=self.parameters
            | ({"configuration": configuration} if "configuration" in self.parameters else {}),
            schedules=tuple(replace(schedule, timezone=timezone) for schedule in self.schedules),
            work_pool=work_pool,
        )

    def paused(self) -> Definition:
        """Return it with its schedules switched off, to be switched on by a person."""
        return replace(self, schedules=tuple(replace(schedule, active=False) for schedule in self.schedules))


def load_definitions(path: Path | None = None) -> tuple[Definition, ...]:
    """Read the deployments from a file, by default the ``prefect.yaml`` that comes with Nightglass.

    Raises
    ------
    Misconfigured
        If the file is missing or does not have the form of a ``prefect.yaml``.
    """
    path = path or _packaged()
    try:
        content = yaml.safe_load(path.read_text())
        return tuple(_definition(entry) for entry in content["deployments"])
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        message = f"{path} does not list deployments: {error!r}"
        raise Misconfigured(message) from error


def load_flow(entrypoint: str) -> Any:
    """Import and return what a module path names.

    Raises
    ------
    Misconfigured
        If there is no such module or name.
    """
    module, _, name = entrypoint.rpartition(".")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        message = f"entry point {entrypoint} cannot be imported: {error}"
        raise Misconfigured(message) from error


def _packaged() -> Path:
    """Return the file of an installed wheel, or else that of the source tree."""
    here = Path(str(resources.files("deployments")))
    installed = here / "prefect.yaml"
    return installed if installed.is_file() else here.parent / "prefect.yaml"


def _definition(entry: Mapping[str, Any]) -> Definition:
    limit = entry["concurrency_limit"]
    return Definition(
        name=entry["name"],
        entrypoint=entry["entrypoint"],
        description=entry["description"],
        tags=tuple(entry["tags"]),
        parameters=dict(entry["parameters"]),
        schedules=tuple(Schedule(**schedule) for schedule in entry.get("schedules", ())),
        concurrency_limit=int(limit["limit"]),
        collision_strategy=limit["collision_strategy"],
        work_pool=entry["work_pool"]["name"],
    )
