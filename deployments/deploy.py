"""Work pool and deployments on a Prefect server, made or brought up to date; twice is once."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.schedules import Cron
from prefect.types.entrypoint import EntrypointType

from deployments.definitions import Definition, load_definitions, load_flow
from nightglass.config import Observatory

__all__ = ["Deployed", "Schedules", "build_deployments", "deploy", "ensure_work_pool"]


class Schedules(enum.StrEnum):
    """What becomes of the schedules of a deployment."""

    ACTIVE = "active"
    """As ``prefect.yaml`` has them: runs are made from now on."""
    PAUSED = "paused"
    """There to be seen, switched on by a person."""
    KEEP = "keep"
    """A deployment that exists keeps what it has; a new one gets them paused."""


@dataclass(frozen=True, slots=True)
class Deployed:
    """One deployment as it stands on the server."""

    full_name: str
    deployment_id: str


async def deploy(
    observatory: Observatory, *, configuration: Path | None = None, schedules: Schedules = Schedules.ACTIVE
) -> tuple[Deployed, ...]:
    """Make the work pool and all deployments on the configured server, or bring them up to date.

    Parameters
    ----------
    observatory : Observatory
        Names the work pool; its time zone goes to the schedules.
    configuration : Path, optional
        The observatory file: the default that forms and schedules give to flows.
    schedules : Schedules, optional
        Whether schedules start to work.

    Raises
    ------
    httpx.HTTPError
        If the server does not answer.
    """
    deployed = []
    for deployment in await build_deployments(observatory, configuration=configuration, schedules=schedules):
        deployment_id = await deployment.aapply()
        deployed.append(Deployed(deployment.full_name, str(deployment_id)))
    return tuple(deployed)


async def build_deployments(
    observatory: Observatory, *, configuration: Path | None = None, schedules: Schedules
) -> tuple[RunnerDeployment, ...]:
    """Return all deployments as Prefect's objects, not applied yet; the work pool is made."""
    name = observatory.prefect.work_pool
    async with get_client() as client:
        await ensure_work_pool(client, name)
        definitions = [
            definition.fitted(
                configuration=str(configuration.absolute()) if configuration else "",
                timezone=observatory.site.timezone,
                work_pool=name,
            )
            for definition in load_definitions()
        ]
        wanted = [await _with_schedules(client, definition, schedules) for definition in definitions]
    return tuple([await _build(definition) for definition in wanted])


async def ensure_work_pool(client: PrefectClient, name: str) -> None:
    """Make a work pool of type process unless one of that name exists, of whatever type."""
    try:
        await client.read_work_pool(name)
    except ObjectNotFound:
        try:
            await client.create_work_pool(
                WorkPoolCreate(name=name, type="process", description="Where Nightglass' flows run.")
            )
        except ObjectAlreadyExists:
            return  # somebody else was faster


async def _with_schedules(client: PrefectClient, definition: Definition, schedules: Schedules) -> Definition:
    if schedules is Schedules.ACTIVE:
        return definition
    if schedules is Schedules.PAUSED:
        return definition.paused()
    try:
        await client.read_deployment_by_name(definition.full_name)
    except ObjectNotFound:
        return definition.paused()
    return replace(definition, schedules=())


async def _build(definition: Definition) -> RunnerDeployment:
    flow = load_flow(definition.entrypoint)
    schedules: Sequence[object] = [
        Cron(schedule.cron, timezone=schedule.timezone, active=schedule.active) for schedule in definition.schedules
    ]
    deployment: RunnerDeployment = await flow.ato_deployment(
        name=definition.name,
        schedules=schedules or None,
        description=definition.description,
        tags=list(definition.tags),
        parameters=definition.parameters,
        concurrency_limit=ConcurrencyLimitConfig(
            limit=definition.concurrency_limit,
            collision_strategy=ConcurrencyLimitStrategy(definition.collision_strategy),
        ),
        work_pool_name=definition.work_pool,
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    return deployment
