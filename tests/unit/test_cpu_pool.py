from __future__ import annotations

import pytest
from pydantic import ValidationError
from ray.serve._private.build_app import build_app
from ray.serve.exceptions import RayServeException

from deployments.models.lock import Lock, write
from serve_app import app
from serve_app.settings import Settings

POOL = {
    "transcriber": {"engine": "whisperx", "model": "small", "device": "cpu"},
    "aligner": {"engine": "ctc", "models": {"en": "example/letters"}},
    "diarizer": {"engine": "pyannote", "model": "example/voices"},
    "emotion": {"engine": "wav2vec2", "model": "example/moods"},
}
ON_GPU = {
    "transcriber": {"engine": "whisperx", "model": "large-v3", "device": "cuda"},
    "aligner": {"engine": "ctc", "device": "cuda", "models": {"en": "example/letters"}},
    "diarizer": {"engine": "pyannote", "device": "cuda"},
    "emotion": {"engine": "wav2vec2", "device": "cuda"},
}
STAGES = {
    "Ingress",
    "AudioExtractor",
    "SpeechDetector",
    "ProsodyAnalyzer",
    "Transcriber",
    "Diarizer",
    "EmotionAnalyzer",
}


def settings(**fields) -> Settings:
    return Settings(**{"profile": "local", **ON_GPU, "cpu_pool": POOL, **fields})


@pytest.fixture
def built(monkeypatch):
    """The deployments that `build` makes, by name; logs stay as they are, and the store is not asked."""
    monkeypatch.setattr(app.logs, "configure", lambda: None)
    monkeypatch.setattr(app, "check_models", lambda _: None)

    def build(settings: Settings):
        return {deployment.name: deployment for deployment in build_app(app.build(settings), name="a").deployments}

    return build


def test_a_job_without_gpu_works_by_the_pools_settings():
    """Engines, device and model version are the pool's; all else stays."""
    both = settings(locale="en")
    there = both.on(enable_gpu=False)
    assert (there.transcriber.model, there.transcriber.device, there.emotion.model) == ("small", "cpu", "example/moods")
    assert there.model_version == "whisperx-small+ctc-wav2vec2+pyannote-voices+moods"
    assert (there.locale, there.state_dir) == ("en", both.state_dir)
    assert both.on(enable_gpu=True) is both
    assert both.transcriber.device == "cuda"


def test_without_a_pool_every_job_is_alike():
    """`enable_gpu` is a preference: where there is one set of stages, it is for all."""
    alone = settings(cpu_pool=None)
    assert alone.on(enable_gpu=False) is alone
    assert alone.pool_models == ()


@pytest.mark.parametrize(
    ("stage", "fields"),
    [
        ("transcriber", {"device": "auto"}),
        ("aligner", {"device": "cuda"}),
        ("diarizer", {"device": "cuda:1"}),
        ("emotion", {"device": "cuda"}),
    ],
)
def test_the_pool_is_on_cpus(stage, fields):
    """A stage of the pool with another device is refused by its name."""
    with pytest.raises(ValidationError, match=f"the device of {stage} has to be cpu"):
        settings(cpu_pool=POOL | {stage: POOL[stage] | fields})


def test_the_pool_has_no_silent_stand_in():
    """A pool names all four stages: none is the embedded engine because somebody forgot it."""
    with pytest.raises(ValidationError, match=r"cpu_pool\.diarizer\s+Field required"):
        settings(cpu_pool={name: stage for name, stage in POOL.items() if name != "diarizer"})


def test_the_environment_reaches_into_the_pool(monkeypatch):
    """Each of the pool's settings has an environment name, as the others have."""
    monkeypatch.setenv("ML_SERVER_CPU_POOL__TRANSCRIBER__MODEL", "base")
    changed = settings()
    assert (changed.cpu_pool.transcriber.model, changed.transcriber.model) == ("base", "large-v3")


def test_the_store_knows_the_pools_models():
    """`ml-server models` fetches, verifies and lists what either of the two loads, each once."""
    names = [model.name for model in settings().wanted_models]
    assert names == [
        "Systran/faster-whisper-large-v3",
        "example/letters",
        "pyannote/speaker-diarization-community-1",
        "superb/wav2vec2-base-superb-er",
        "Systran/faster-whisper-small",
        "example/voices",
        "example/moods",
    ]


def test_the_graph_has_twins(built):
    """Four more deployments with names of their own, made with the pool's settings; the ingress has handles to all."""
    both = settings()
    deployments = built(both)
    twins = {"TranscriberCpu", "AlignerCpu", "DiarizerCpu", "EmotionAnalyzerCpu"}
    assert set(deployments) == STAGES | {"Aligner"} | twins
    for stages, suffix in ((both, ""), (both.cpu_pool, "Cpu")):
        for name, stage in (("Aligner", "aligner"), ("EmotionAnalyzer", "emotion")):
            assert deployments[name + suffix].init_args == (getattr(stages, stage), both.models)
        assert deployments["Transcriber" + suffix].init_args == (stages.transcriber, both.models, stages.aligner)
    handles = deployments["Ingress"].init_kwargs
    assert handles["transcriber"].deployment_name == "Transcriber"
    assert {handle.deployment_name for handle in handles["cpu"].values()} == twins


def test_the_graph_without_a_pool_is_what_it_was(built):
    """configs/local.yaml: the same names as ever, and no handles to a pool."""
    deployments = built(Settings(profile="local"))
    assert set(deployments) == STAGES
    assert deployments["Ingress"].init_kwargs["cpu"] is None


def test_a_missing_model_of_the_pool_stops_the_start(monkeypatch, tmp_path):
    """No replica of the pool starts with the server, so `build` asks the store; model and command are named."""
    monkeypatch.setattr(app.logs, "configure", lambda: None)
    monkeypatch.setattr("deployments.models.store.go_offline", lambda: None)
    write(tmp_path / "lock.yaml", Lock())
    store = {"lock": tmp_path / "lock.yaml", "cache_dir": tmp_path / "hub", "memory_dir": tmp_path}
    production = {"profile": "production", "backend_url": "https://backend.example"}
    with pytest.raises(RayServeException) as refused:
        app.build(settings(models=store, **production))
    assert str(refused.value) == (
        "the asr model Systran/faster-whisper-small is missing:"
        " fetch it with `ml-server models fetch --config CONFIG --pin`"
    )


def test_on_a_laptop_any_missing_model_stops_the_start(monkeypatch, tmp_path):
    """Serve would let each replica fail three times; so it tells one sentence at once, as the app's message."""
    monkeypatch.setattr(app.logs, "configure", lambda: None)
    monkeypatch.setattr("deployments.models.store.go_offline", lambda: None)
    store = {"cache_dir": tmp_path / "hub", "memory_dir": tmp_path}
    with pytest.raises(RayServeException) as refused:  # of whose kind Serve tells no traceback
        app.build(Settings(profile="local", models=store, transcriber={"engine": "whisperx", "model": "base"}))
    assert str(refused.value) == (
        "the asr model Systran/faster-whisper-base is missing: fetch it with `ml-server models fetch --config CONFIG`"
    )
