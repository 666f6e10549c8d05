"""The CPU pool of serve_config.yaml for real: small models, a fake GPU, replicas that come from zero and go again."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import yaml

from tests.support.process import ROOT, running_server
from tests.support.production import CONFIG, MODELS, NODE, production_environment

SPEECH = ROOT / "tests" / "data" / "speech"
POOL = {"TranscriberCpu", "AlignerCpu", "DiarizerCpu", "EmotionAnalyzerCpu"}
IDLE_S = 3
"""After so long without work a replica of the pool goes: configs have minutes."""
GONE_WITHIN_S = 90


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    """serve_config.yaml with a pool that is quicker to give up."""
    content = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    for deployment in content["applications"][0]["deployments"]:
        if deployment["name"] in POOL:
            deployment["autoscaling_config"] |= {"downscale_delay_s": IDLE_S, "look_back_period_s": 2}
    path = tmp_path_factory.mktemp("config") / "serve_config.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> dict[str, str]:
    """Small models for both sets of stages; the pool's recogniser has a name of its own, to be told by."""
    folder = tmp_path_factory.mktemp("models")
    (folder / "asr-small").symlink_to(MODELS / "asr")
    return {
        **production_environment(folder / "diarizer"),
        "ML_SERVER_CPU_POOL__TRANSCRIBER__MODEL": str(folder / "asr-small"),
        "ML_SERVER_CPU_POOL__TRANSCRIBER__THREADS": "1",
        "RAY_SERVE_HANDLE_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "1",
    }


@pytest.fixture(scope="module")
def server(config, environment):
    with running_server("--config", str(config), *NODE, environment=environment) as server:
        yield server


def pool_of(state_dir: Path) -> set[str]:
    """The deployments of the pool that have a process now: what a machine pays for."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            title = (process / "cmdline").read_bytes().decode(errors="replace")
            if title.startswith("ray::ServeReplica:") and str(state_dir).encode() in (process / "environ").read_bytes():
                found |= {name for name in POOL if name in title}
        except OSError:
            continue
    return found


def work(server, video_url: str, **fields) -> tuple[dict, set[str]]:
    """The result of a job, and the deployments of the pool that had a process while it ran."""
    seen = set()
    job_id = server.start(video_url, language="en", **fields)
    deadline = time.monotonic() + 120
    while (state := server.status(job_id))["status"] not in {"completed", "failed"}:
        seen |= pool_of(server.state_dir)
        assert time.monotonic() < deadline, state
        time.sleep(0.1)
    assert state["status"] == "completed", state
    return state["result"], seen


@pytest.mark.full
def test_the_pool_comes_from_zero_and_goes_again(server, sources):
    """enable_gpu true: the GPU's stages, and no process of the pool. false: all four of the pool. Then none again."""
    video = sources.file(SPEECH / "english_awb.ogg")
    text = json.loads((SPEECH / "texts.json").read_text(encoding="utf-8"))["english_awb.ogg"]["text"]
    assert pool_of(server.state_dir) == set()

    result, seen = work(server, video, enable_gpu=True)
    assert (result["text"], result["metadata"]["model_version"].split("+")[0]) == (text, "whisperx-asr")
    assert seen == set()

    result, seen = work(server, video, enable_gpu=False)
    assert (result["text"], result["metadata"]["model_version"].split("+")[0]) == (text, "whisperx-asr-small")
    assert (result["metadata"]["device"], result["metadata"]["warnings"]) == ("cpu", [])
    assert all("emotion" in segment for segment in result["segments"])
    assert seen == POOL

    deadline = time.monotonic() + GONE_WITHIN_S
    while left := pool_of(server.state_dir):
        assert time.monotonic() < deadline, left
        time.sleep(0.2)
    assert server.http.get("/health").json()["status"] == "healthy"
