"""Whatever the OpenAPI document allows, and some of what it does not, is answered without a fault of the server.

The requests are made by schemathesis, which nobody here wrote. ``NIGHTGLASS_EXAMPLES=200`` asks for more of them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import Case, GenerationMode

from tests.integration.building import Served, guide_pixels, served

EXAMPLES = int(os.environ.get("NIGHTGLASS_EXAMPLES", "12"))
HEADERS = {"X-Nightglass": "schemathesis"}


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    section = {"name": "guider", "unassigned": "accept", "timeout_s": 0.05, "timeout_factor": 0.0, "send_attempts": 1}
    with served(tmp_path_factory.mktemp("place") / "root", section) as found:
        with found.client() as client:
            for expid in (0, 1):
                client.push(expid, 0, "A", guide_pixels(expid), header={"EXPTIME": 1.0})
        yield found


def tamed(case: Case) -> None:
    """Wait for nothing: what a request waits for is its own choice."""
    if isinstance(case.body, dict):
        if "wait_s" in case.body:
            case.body["wait_s"] = 0.0
        if "send_to" in case.body:
            case.body["send_to"] = []
    if case.path.endswith("/events"):
        case.query = {**(case.query or {}), "most": 0}
    if case.path.endswith("/send"):
        case.query = {**(case.query or {}), "wait_s": 0.0}


@pytest.mark.slow
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=lambda mode: mode.value)
def test_no_request_is_a_fault_of_the_server(here: Served, mode: GenerationMode) -> None:
    document = httpx.get(f"{here.url}/v1/openapi.json").json()
    schema = schemathesis.openapi.from_dict(document)
    tried: dict[str, int] = {}
    for found in schema.get_all_operations():
        operation = found.ok()
        for status in exercised(operation, mode, here.url):
            tried[operation.label] = tried.get(operation.label, 0) + 1
            assert status < 500, operation.label
    methods = sum(len(methods) for methods in document["paths"].values())
    # an operation without any parameter knows no wrong request
    assert len(tried) == methods if mode is GenerationMode.POSITIVE else len(tried) > methods // 2


def exercised(operation: Any, mode: GenerationMode, url: str) -> list[int]:
    statuses: list[int] = []

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def run(case: Case) -> None:
        tamed(case)
        answer = case.call(base_url=url, headers=HEADERS, timeout=60)
        statuses.append(answer.status_code)
        assert answer.status_code < 500, f"{case.as_curl_command()}\n{answer.status_code} {answer.text[:500]}"

    try:
        run()
    except Exception as error:
        if type(error).__name__ in {"Unsatisfiable", "SkipTest"}:
            return statuses
        raise
    return statuses


def test_the_directory_of_the_test_is_all_that_was_written_to(here: Served, tmp_path: Path) -> None:
    outside = [path for path in here.root.parent.rglob("*") if path.is_file() and not path.is_relative_to(here.root)]
    assert outside == []
