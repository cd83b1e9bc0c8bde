"""``nightglass deploy``."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from deployments.cli.screen import add_row, output, table
from deployments.cli.session import open_session
from deployments.environment import configured_api_url
from nightglass.errors import Misconfigured, Retryable

__all__ = ["deploy_command"]


def deploy_command(*, config: Path | None, root: Path | None) -> None:
    """Make the work pool and the deployments."""
    session = open_session(config, root)
    url = configured_api_url(session.observatory)
    if not url:
        message = "there is no Prefect server to deploy to"
        raise Misconfigured(
            message, remedy="set prefect.api_url or PREFECT_API_URL; `nightglass run` deploys to its own"
        )
    # Prefect reads its settings as it is imported
    os.environ["PREFECT_API_URL"] = url
    import httpx

    from deployments.deploy import deploy

    try:
        deployed = asyncio.run(deploy(session.observatory, configuration=session.configuration))
    except httpx.HTTPError as error:
        message = f"the Prefect server {url} does not answer: {error}"
        raise Retryable(message) from error
    made = table("deployment", "id", title=f"work pool {session.observatory.prefect.work_pool} on {url}")
    for item in deployed:
        add_row(made, item.full_name, item.deployment_id)
    output().print(made)
