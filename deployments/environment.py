"""The environment that each child of Nightglass gets: which Prefect server, which settings, which configuration."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from pydantic import SecretStr

from nightglass.config import Observatory
from nightglass.layout import Layout

__all__ = ["child_environment", "configured_api_url", "server_environment"]

_QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
    "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "false",
    "PREFECT_CLI_PROMPT": "false",
}
"""Nothing is reported to anybody, no server starts behind our back, results stay where they belong."""

_CLIENT = {
    # a line of the library belongs to the run that caused it
    "PREFECT_LOGGING_EXTRA_LOGGERS": "nightglass",
    # server and client are of one installation, or were checked by `nightglass check`
    "PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED": "false",
    "PREFECT_RUNNER_POLL_FREQUENCY": "2",
    "PREFECT_WORKER_QUERY_SECONDS": "1",
    # a run whose log or state cannot be sent must not hold up the next exposure for minutes
    "PREFECT_API_REQUEST_TIMEOUT": "20",
    "PREFECT_CLIENT_MAX_RETRIES": "2",
}

_SELDOM = {
    # what these services look after is rare here, and nothing waits for it; each look costs the night some pixels
    "PREFECT_SERVER_SERVICES_PAUSE_EXPIRATIONS_LOOP_SECONDS": "60",
    "PREFECT_SERVER_SERVICES_CLEANUP_RECONCILER_LOOP_SECONDS": "60",
    "PREFECT_SERVER_SERVICES_FOREMAN_LOOP_SECONDS": "60",
}

_LOOPBACK = "127.0.0.1,localhost"


def configured_api_url(observatory: Observatory, *, environment: Mapping[str, str] | None = None) -> str:
    """Return the address of the Prefect API that was configured; empty: Nightglass starts its own server."""
    environment = os.environ if environment is None else environment
    return observatory.prefect.api_url or environment.get("PREFECT_API_URL", "")


def child_environment(
    observatory: Observatory,
    *,
    api_url: str,
    configuration: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Return the environment of a child that talks to a Prefect server: runner, serve child, worker.

    Parameters
    ----------
    observatory : Observatory
        Says where the root is; its address and its configuration go on to the child.
    api_url : str
        Of the server, ``http://host:port/api``.
    configuration : Path, optional
        The observatory file, made absolute.
    environment : mapping, optional
        What the child inherits, instead of ``os.environ``.
    """
    inherited = dict(os.environ if environment is None else environment)
    values = inherited | _QUIET | {name: inherited.get(name, value) for name, value in _CLIENT.items()}
    values["PREFECT_API_URL"] = api_url
    values["NIGHTGLASS_ROOT"] = str(observatory.root)
    values["NIGHTGLASS_OBSERVATORY"] = _as_json(observatory)
    if configuration is not None:
        values["NIGHTGLASS_CONFIG"] = str(configuration.absolute())
    if not configured_api_url(observatory, environment=inherited):
        # our own server: neither a profile nor a database of this user has a say
        values["PREFECT_HOME"] = str(Layout(observatory.root).prefect_home)
        values["NO_PROXY"] = values["no_proxy"] = _with_loopback(inherited)
    return values


def server_environment(
    home: Path, *, host: str, port: int, environment: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return the environment of the embedded Prefect server.

    The user interface asks the API under the address given here, so it must name the port.
    """
    inherited = dict(os.environ if environment is None else environment)
    kept = {name: value for name, value in inherited.items() if not name.startswith("PREFECT_")}
    return kept | _QUIET | _SELDOM | {
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": f"http://{host}:{port}/api",
        "PREFECT_SERVER_UI_API_URL": f"http://{host}:{port}/api",
        # the default lies in site-packages, which need not be writable
        "PREFECT_SERVER_UI_STATIC_DIRECTORY": str(home / "ui"),
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{home / 'prefect.db'}",
        "PREFECT_SERVER_LOGGING_LEVEL": inherited.get("PREFECT_SERVER_LOGGING_LEVEL", "WARNING"),
        # a run that was scheduled while nobody could take it should start within a second or two
        "PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS": "5",
    }  # fmt: skip


def _as_json(observatory: Observatory) -> str:
    """Return an observatory as its children read it, secrets included: an environment is this user's alone."""
    return json.dumps(observatory.model_dump(exclude_defaults=True), default=_plain)


def _plain(value: object) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)


def _with_loopback(environment: Mapping[str, str]) -> str:
    known = environment.get("NO_PROXY", environment.get("no_proxy", ""))
    return f"{known},{_LOOPBACK}" if known else _LOOPBACK
