"""R1, S2: nothing of a request becomes code or a name unchecked, no code comes from elsewhere, nobody reports home."""

from __future__ import annotations

import ast
import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from ray.dashboard.modules.usage_stats.usage_stats_head import UsageStatsHead

from serve_app.api.schemas import ProcessVideoRequest
from serve_app.cli import local
from serve_app.exposure import ExposedError, check_token
from serve_app.settings import Settings

ROOT = Path(__file__).parents[2]
TREES = {
    path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
    for folder in ("serve_app", "deployments")
    for path in sorted((ROOT / folder).rglob("*.py"))
}
UNPICKLERS = {"pickle", "cloudpickle", "marshal", "shelve", "dill", "joblib", "jsonpickle"}
FOREIGN = {"torch.hub", "whisperx.vads", "whisperx.asr", "whisperx.diarize", "nltk", "torchaudio.pipelines", "pip"}
"""What fetches weights or code that no lock knows."""


def calls(tree: ast.AST) -> list[tuple[str, ast.Call]]:
    return [(ast.unparse(node.func), node) for node in ast.walk(tree) if isinstance(node, ast.Call)]


def imported(tree: ast.AST) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def option(call: ast.Call, name: str) -> str | None:
    return next((ast.unparse(keyword.value) for keyword in call.keywords if keyword.arg == name), None)


def test_r1_only_settings_and_handles_are_pickled():
    """R1: one module pickles by hand, and what it pickles is settings and the stages' handles."""
    users = {
        name
        for name, tree in TREES.items()
        if {part for dotted in imported(tree) for part in dotted.split(".")} & UNPICKLERS
    }
    assert users == {"serve_app/orchestration/job_actor.py"}
    pickled = [
        ast.unparse(call.args[0])
        for name, call in calls(TREES["serve_app/orchestration/job_actor.py"])
        if name.endswith(".dumps")
    ]
    assert pickled == ["(self._settings, self._stages)"]


def test_r1_nothing_loads_pickles_or_runs_text():
    """R1: arrays and checkpoints are read without pickle; nothing is evaluated, no shell is asked."""
    for module, tree in TREES.items():
        for name, call in calls(tree):
            if name.endswith(("np.load", "numpy.load")):
                assert option(call, "allow_pickle") == "False", module
            if name.endswith("torch.load"):
                assert option(call, "weights_only") == "True", module
            assert name not in {
                "eval",
                "exec",
                "compile",
                "__import__",
                "os.system",
                "yaml.load",
                "yaml.unsafe_load",
            }, module
            assert option(call, "shell") in {None, "False"}, module


def test_r1_one_runtime_env_and_two_kinds_of_actor_names():
    """R1: job actors alone have a runtime_env, with nothing of a request; names are a constant, or a run's token."""
    named = set()
    environments = set()
    for module, tree in TREES.items():
        for name, call in calls(tree):
            environments.add((module, option(call, "runtime_env")))
            if name.endswith(".options") and module.startswith("serve_app/") and option(call, "name"):
                named.add((module, option(call, "name")))
        assert not any(isinstance(node, ast.Constant) and node.value == "runtime_env" for node in ast.walk(tree)), (
            module
        )
    assert {(module, given) for module, given in environments if given} == {
        ("serve_app/orchestration/job_actor.py", "environment(self._release)")
    }
    assert named == {
        ("serve_app/app.py", "deployment.name + suffix"),
        ("serve_app/orchestration/manager_client.py", "MANAGER_NAME"),
        ("serve_app/orchestration/job_actor.py", "job.actor_name"),
    }


HOSTILE = [
    "",
    "a\n",
    "a/../b",
    "../a",
    "a b",
    "a#2",
    "job-manager#1",
    "\u0661",
    "a\x00",
    "é",
    "-a",
    ".a",
    "a" * 129,
    "a\u2028",
]


@given(st.one_of(st.text(max_size=140), st.from_regex(r"\A[A-Za-z0-9._:#/\n-]{1,140}\Z"), st.sampled_from(HOSTILE)))
def test_r1_a_job_id_that_passes_is_a_plain_actor_name(job_id):
    """R1: whatever text comes as a job_id is refused, or is plain: a run without a token names its actor by it."""
    try:
        request = ProcessVideoRequest.model_validate({"job_id": job_id, "video_url": "https://v.example/v"})
    except ValidationError:
        return
    assert job_id not in HOSTILE
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}", request.job_id)


@pytest.fixture
def environment(monkeypatch, tmp_path):
    """What processes of a private Ray inherit where the operator's own environment says otherwise."""
    hostile = {
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "1",
        "PYANNOTE_METRICS_ENABLED": "1",
        "HF_HUB_DISABLE_TELEMETRY": "0",
        "ORT_DISABLE_TELEMETRY": "0",
        "FORWARDED_ALLOW_IPS": "*",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1",
    }
    monkeypatch.setattr(os, "environ", hostile)
    (tmp_path / "ray-token").touch(mode=0o644)
    (tmp_path / "ray-token").chmod(0o644)
    local._environment(tmp_path)
    return hostile


def test_r1_rays_token_is_on_and_ours_alone(environment, tmp_path):
    """R1: token auth is on though the environment says off; a token file that is empty or open is mended."""
    token = tmp_path / "ray-token"
    assert environment["RAY_AUTH_MODE"] == "token"
    assert environment["RAY_AUTH_TOKEN_PATH"] == str(token)
    assert environment["FORWARDED_ALLOW_IPS"] == ""
    assert environment["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] == "0"
    assert environment["no_grpc_proxy"] == "127.0.0.1"
    assert token.stat().st_mode & 0o777 == 0o600
    secret = token.read_text()
    assert len(secret) == 64
    assert local._token(tmp_path).read_text() == secret


@pytest.mark.parametrize("mode", ["", "disabled", "TOKEN"])
def test_r1_production_wants_a_ray_with_a_token(mode):
    """R1: a Ray without token runs anybody's code: production refuses it, a laptop's own tries are let be."""
    production = Settings(profile="production", backend_url="http://ecg-backend:8000")
    check_token(Settings(profile="local"), {"RAY_AUTH_MODE": mode})
    if mode == "TOKEN":
        check_token(production, {"RAY_AUTH_MODE": mode})
        return
    for environment in ({}, {"RAY_AUTH_MODE": mode}):
        with pytest.raises(ExposedError, match="RAY_AUTH_MODE=token"):
            check_token(production, environment)


def test_s2_nobody_reports_home(environment):
    """S2: usage statistics and telemetry are off for all that `ml-server up` starts, whatever the environment says."""
    off = {"RAY_USAGE_STATS_ENABLED": "0", "PYANNOTE_METRICS_ENABLED": "0"}
    off |= {"HF_HUB_DISABLE_TELEMETRY": "1", "ORT_DISABLE_TELEMETRY": "1"}
    assert off.items() <= environment.items()


def test_s2_a_process_of_ours_has_telemetry_off_before_any_library():
    """S2: also where Ray's own environment says on (`serve deploy`): importing a stage switches it off."""
    names = ("PYANNOTE_METRICS_ENABLED", "HF_HUB_DISABLE_TELEMETRY", "ORT_DISABLE_TELEMETRY")
    code = f"import os, deployments.diarizer.config; print(*map(os.environ.get, {names}))"
    hostile = os.environ | dict(zip(names, "100", strict=True))
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=hostile, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["0", "1", "1"]


@pytest.mark.parametrize("told", ["nothing", "a file"])
def test_s2_rays_dashboard_asks_no_cloud_where_a_file_tells_it_not_to(told, tmp_path, monkeypatch):
    """S2: no setting of Ray's keeps its dashboard from the metadata addresses; this file, as we document it, does."""
    asked: list[str] = []

    def unreachable(url, **_: object) -> None:
        asked.append(url)
        raise requests.exceptions.ConnectionError

    async def nothing() -> None:
        pass

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(requests, "get", unreachable)
    if told == "a file":
        (tmp_path / "ray_bootstrap_config.yaml").write_text("{}\n")
    head = SimpleNamespace(usage_stats_enabled=False, _report_disabled_usage_async=nothing)
    asyncio.run(UsageStatsHead.run(head))
    assert len(asked) == (3 if told == "nothing" else 0)


def test_s2_no_code_and_no_weights_from_elsewhere():
    """S2: no torch.hub, no remote code, none of whisperX's own loaders, no downloads of NLTK or torchaudio."""
    for module, tree in TREES.items():
        names = imported(tree)
        assert not {
            name for name in names for foreign in FOREIGN if name == foreign or name.startswith(foreign + ".")
        }, module
        for name, call in calls(tree):
            assert ".hub." not in name or name.startswith("self."), (module, name)
            assert option(call, "trust_remote_code") in {None, "False"}, module
            if name.endswith(".from_pretrained") and "Pipeline" not in name and "Model.from" not in name:
                assert option(call, "trust_remote_code") == "False" or "**options" in ast.unparse(call), (module, name)
