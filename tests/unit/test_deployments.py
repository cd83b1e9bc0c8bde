"""prefect.yaml, the flows it names, and the calls that the watch makes of them agree."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from prefect import Flow
from prefect.utilities.callables import parameter_schema
from pydantic import SecretStr

from deployments.calls import call_of
from deployments.definitions import Definition, load_definitions, load_flow
from deployments.environment import child_environment, configured_api_url, server_environment
from deployments.pipe import decode, encode
from nightglass.config import Notices, Observatory, Prefect, Smtp, Source
from nightglass.errors import Misconfigured
from nightglass.ledger import Lease
from nightglass.model import ExposureRef, Kind, Night, Stage
from nightglass.reduction import GroupJob
from nightglass.watch.jobs import Job, JobKind
from tasks.bench import find_observatory

DEFINITIONS = load_definitions()
NIGHT = Night("20260821")


def ids(definition: Definition) -> str:
    return definition.flow_name


@pytest.fixture(params=DEFINITIONS, ids=ids)
def definition(request: pytest.FixtureRequest) -> Definition:
    value: Definition = request.param
    return value


@pytest.fixture
def flow(definition: Definition) -> Flow[..., Any]:
    found: Flow[..., Any] = load_flow(definition.entrypoint)
    return found


def test_every_entry_point_is_an_async_flow_of_that_name(definition: Definition, flow: Flow[..., Any]) -> None:
    assert isinstance(flow, Flow)
    assert flow.isasync
    assert flow.name == definition.flow_name
    assert ":" not in definition.entrypoint
    assert flow.fn.__module__ == definition.entrypoint.rpartition(".")[0]


def test_parameters_are_those_of_the_flow_with_its_defaults(definition: Definition, flow: Flow[..., Any]) -> None:
    signature = inspect.signature(flow.fn).parameters
    defaults = {name: item.default for name, item in signature.items() if item.default is not item.empty}
    assert definition.parameters == defaults


def test_the_form_explains_every_field_and_holds_plain_values(flow: Flow[..., Any]) -> None:
    properties = parameter_schema(flow).model_dump()["properties"]
    assert properties
    for name, field in properties.items():
        assert field.get("description"), f"{flow.name}: {name} is not described in the docstring"
        assert field["type"] in {"string", "number", "integer", "array"}, f"{flow.name}: {name}"
        assert field.get("items", {}).get("type", "string") == "string"


def test_every_deployment_says_what_it_does_and_is_bounded(definition: Definition) -> None:
    assert definition.description.endswith(".")
    assert "nightglass" in definition.tags
    assert definition.concurrency_limit >= 1
    assert definition.collision_strategy in {"ENQUEUE", "CANCEL_NEW"}
    for schedule in definition.schedules:
        assert ZoneInfo(schedule.timezone)
        assert len(schedule.cron.split()) == 5


def test_nothing_is_pulled_and_names_are_unique() -> None:
    content = yaml.safe_load((Path(__file__).parents[2] / "prefect.yaml").read_text())
    assert content["pull"] == []
    assert len({definition.full_name for definition in DEFINITIONS}) == len(DEFINITIONS)


def test_a_site_fits_definitions_to_itself() -> None:
    night = next(item for item in DEFINITIONS if item.flow_name == "run-night")
    fitted = night.fitted(configuration="/etc/night.toml", timezone="America/Santiago", work_pool="dome")
    assert fitted.parameters["configuration"] == "/etc/night.toml"
    assert [schedule.timezone for schedule in fitted.schedules] == ["America/Santiago"]
    assert fitted.work_pool == "dome"
    assert not any(schedule.active for schedule in fitted.paused().schedules)


def test_a_broken_file_or_entry_point_is_named(tmp_path: Path) -> None:
    path = tmp_path / "prefect.yaml"
    path.write_text("deployments: [{name: x}]")
    with pytest.raises(Misconfigured, match=r"prefect\.yaml"):
        load_definitions(path)
    with pytest.raises(Misconfigured, match=r"flows\.nowhere"):
        load_flow("flows.nowhere")


def job(kind: JobKind, *, groups: tuple[int, ...] = (), **more: Any) -> Job:
    number = 0
    jobs = []
    for size in groups:
        refs = []
        for _ in range(size):
            number += 1
            refs.append(reference(number))
        leases = tuple(
            Lease(exposure_id=ref.exposure_id, key="k", token="t", until=0.0, revision=1, attempts=1) for ref in refs
        )
        group_id = refs[0].exposure_id if size == 1 else f"lynx/20260821/dither-{number}"
        jobs.append(
            GroupJob(job_id="j", group_id=group_id, camera="lynx", refs=tuple(refs), leases=leases, lists=("realtime",))
        )
    return Job(job_id="j", kind=kind, key="k", camera="lynx", night=NIGHT, deadline_s=60.0, groups=tuple(jobs), **more)


def reference(number: int) -> ExposureRef:
    return ExposureRef.from_json(
        {
            "exposure_id": f"lynx/20260821/{number}",
            "night": "20260821",
            "camera": "lynx",
            "kind": "science",
            "path": f"/data/lynx-{number}.fits",
            "size": 2880,
            "content_id": "c",
            "started_at": "2026-08-22T03:00:00+00:00",
        }
    )


CALLS = {
    "reduce-exposure": job(JobKind.GROUP, groups=(1,)),
    "reduce-group": job(JobKind.GROUP, groups=(4,)),
    "reduce-batch": job(JobKind.GROUP, groups=(1, 1, 3)),
    "make-masters": job(JobKind.MASTERS, kinds=(Kind.BIAS, Kind.FLAT)),
    "midway-postprocess": job(JobKind.STAGE, stage=Stage.MIDWAY),
    "final-postprocess": job(JobKind.STAGE, stage=Stage.FINAL),
    "build-exposure": job(JobKind.BUILD, exposures=("lynx/20260821/1",), builder="guider"),
    "archive-built-exposure": job(
        JobKind.CUBE, exposures=("lynx/20260821/1",), builder="guider", order="20260821T081320123"
    ),
    "archive-exposure": job(JobKind.ARCHIVE, exposures=("lynx/20260821/1",)),
    "archive-night": job(JobKind.ARCHIVE, exposures=("lynx/20260821/1", "lynx/20260821/2")),
}


@pytest.mark.parametrize("name", CALLS)
def test_every_job_of_the_watch_has_a_flow_that_takes_its_parameters(name: str) -> None:
    call = call_of(CALLS[name], configuration="/etc/night.toml")
    assert call.flow_name == name
    assert call.deployment in {definition.full_name for definition in DEFINITIONS}
    flow: Flow[..., Any] = load_flow(call.entrypoint)
    assert flow.validate_parameters(call.parameters) == call.parameters
    json.dumps(call.parameters)


def test_a_report_is_no_flow() -> None:
    with pytest.raises(Misconfigured, match="report"):
        call_of(job(JobKind.REPORT))


@pytest.mark.parametrize(("field", "value"), [("night", "2026-08-21"), ("kinds", "bias, arc"), ("kinds", "bias,")])
def test_a_form_refuses_what_cannot_be(field: str, value: str) -> None:
    flow: Flow[..., Any] = load_flow("flows.realtime.make_masters")
    with pytest.raises(Exception, match=field):
        flow.validate_parameters({field: value})


TEXT = st.text(st.characters(codec="utf-8"))


@given(TEXT, st.dictionaries(TEXT, st.recursive(st.none() | st.integers() | TEXT, st.lists, max_leaves=5)))
def test_a_line_of_the_pipe_survives_the_pipe(kind: str, content: dict[str, Any]) -> None:
    line = encode(kind, content)
    assert line.endswith("\n")
    assert len(line.splitlines()) == 1
    assert decode(line).kind == kind
    assert decode(line).content == content


@pytest.mark.parametrize("text", ["", "not json", "[]", '{"kind": "x"}', '{"kind": "x", "content": 3}'])
def test_a_strange_line_is_refused(text: str) -> None:
    with pytest.raises(Misconfigured, match="not understood"):
        decode(text)


def observatory(root: Path) -> Observatory:
    return Observatory(
        root=root,
        sources=(Source(camera="lynx", directory="/data/{night}"),),
        notices=Notices(
            mail_from="a@b.org",
            mail_to=("c@d.org",),
            smtp=Smtp(password=SecretStr("sesame")),
            urls=(SecretStr("x://y"),),
        ),
    )


def test_a_child_sees_what_its_parent_made_of_file_and_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = observatory(tmp_path)
    configuration = tmp_path / "night.toml"
    configuration.write_text('root = "/elsewhere"\n')
    values = child_environment(ours, api_url="http://127.0.0.1:4201/api", configuration=configuration, environment={})
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    for asked in ("", str(configuration)):
        theirs = find_observatory(asked)
        assert theirs == ours
        assert theirs.notices.smtp.password.get_secret_value() == "sesame"
    other = tmp_path / "other.toml"
    other.write_text('log_level = "DEBUG"\n')
    assert find_observatory(str(other)).log_level == "DEBUG"


def test_our_own_server_is_of_nobody_elses_settings(tmp_path: Path) -> None:
    inherited = {"PREFECT_HOME": "/theirs", "PREFECT_SERVER_DATABASE_CONNECTION_URL": "sqlite://", "PATH": "/bin"}
    server = server_environment(tmp_path / "prefect", host="127.0.0.1", port=4217, environment=inherited)
    assert server["PREFECT_HOME"] == str(tmp_path / "prefect")
    assert server["PREFECT_SERVER_UI_API_URL"] == "http://127.0.0.1:4217/api"
    assert str(tmp_path) in server["PREFECT_SERVER_DATABASE_CONNECTION_URL"]
    assert server["DO_NOT_TRACK"] == "1"
    assert server["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    assert server["PATH"] == "/bin"
    child = child_environment(
        Observatory(root=tmp_path), api_url="http://127.0.0.1:4217/api", environment={"NO_PROXY": "example.org"}
    )
    assert child["PREFECT_HOME"] == str(tmp_path / "prefect")
    assert child["NO_PROXY"] == "example.org,127.0.0.1,localhost"


def test_a_configured_server_keeps_the_users_profile(tmp_path: Path) -> None:
    ours = Observatory(root=tmp_path, prefect=Prefect(api_url="http://prefect.example.org/api"))
    child = child_environment(
        ours, api_url=configured_api_url(ours, environment={}), environment={"PREFECT_HOME": "/p"}
    )
    assert child["PREFECT_HOME"] == "/p"
    assert child["PREFECT_API_URL"] == "http://prefect.example.org/api"
    assert configured_api_url(Observatory(), environment={"PREFECT_API_URL": "http://x/api"}) == "http://x/api"
