from __future__ import annotations

import math
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel, ValidationError
from ray.serve.schema import ServeDeploySchema

from deployments.aligner.config import timed_by_ctc
from deployments.models.lock import default_path, read
from serve_app.settings import Settings

ROOT = Path(__file__).parents[2]
PRODUCTION = [ROOT / "serve_config.yaml", ROOT / "configs" / "cluster.yaml", ROOT / "configs" / "gpu.yaml"]
CONFIGS = [*PRODUCTION, ROOT / "configs" / "local.yaml"]
GRAPH = {
    "Ingress",
    "AudioExtractor",
    "SpeechDetector",
    "Transcriber",
    "Diarizer",
    "ProsodyAnalyzer",
    "EmotionAnalyzer",
}
TWINS = {"TranscriberCpu", "AlignerCpu", "DiarizerCpu", "EmotionAnalyzerCpu"}
JOBS = 10
PIECES = 4


@pytest.fixture(params=CONFIGS, ids=lambda path: path.name)
def config(request):
    return yaml.safe_load(request.param.read_text(encoding="utf-8"))


def name_of(path: Path) -> str:
    return path.name


def deployments_of(config) -> dict[str, dict]:
    return {deployment["name"]: deployment for deployment in config["applications"][0]["deployments"]}


def settings_of(config) -> Settings:
    return Settings(**config["applications"][0]["args"])


def unknown_keys(content, model: type[BaseModel], path: str = "") -> list[str]:
    """Keys that Serve would silently ignore."""
    names = set(model.model_fields) | {field.alias for field in model.model_fields.values()}
    found = []
    for key, value in content.items():
        if key not in names:
            found.append(f"{path}{key}")
        field = model.model_fields.get(key)
        for inner in models_in(field.annotation) if field else ():
            values = value if isinstance(value, list) else [value]
            for each in values:
                if isinstance(each, dict):
                    found += unknown_keys(each, inner, f"{path}{key}.")
    return found


def models_in(annotation) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in getattr(annotation, "__args__", ()) for model in models_in(part)]


def test_no_key_is_misspelled(config):
    """Serve drops unknown keys without a word, so none may be in our files."""
    ServeDeploySchema.model_validate(config)
    assert unknown_keys(config, ServeDeploySchema) == []


def test_a_misspelled_key_would_be_found():
    """The check above sees a typo at every depth."""
    content = {
        "applications": [{"import_path": "a:b", "deployments": [{"name": "A", "max_ongoing_request": 1}]}],
        "prox": 1,
    }
    assert sorted(unknown_keys(content, ServeDeploySchema)) == ["applications.deployments.max_ongoing_request", "prox"]


def test_the_deployments_are_the_graphs(config):
    """Every deployment that a config tunes is in the graph, and every one of the graph is tuned."""
    settings = settings_of(config)
    aligner = {"Aligner"} if timed_by_ctc(settings.aligner) else set()
    expected = GRAPH | aligner | (TWINS if settings.cpu_pool else set())
    assert set(deployments_of(config)) == expected
    assert len(config["applications"][0]["deployments"]) == len(expected)


def test_the_arguments_are_settings(config):
    """`args` are accepted by the settings class, and what it does not know is refused."""
    args = config["applications"][0]["args"]
    Settings(**args)
    with pytest.raises(ValidationError, match="misspelled"):
        Settings(**args, misspelled=1)


def test_replicas_follow_from_ten_jobs(config):
    """At the most replicas, the recogniser and the extractor take what ten jobs can have in flight; port 8080."""
    deployments = deployments_of(config)
    assert config["http_options"]["port"] == 8080
    for name in {"Transcriber", "TranscriberCpu"} & deployments.keys():
        scaling = deployments[name]["autoscaling_config"]
        assert scaling["max_replicas"] <= math.ceil(JOBS * PIECES / scaling["target_ongoing_requests"])
    extractor = deployments["AudioExtractor"]
    replicas = extractor.get("autoscaling_config", {}).get("max_replicas", 1)
    assert extractor["max_ongoing_requests"] * replicas >= JOBS


@pytest.mark.parametrize("config", PRODUCTION, ids=name_of, indirect=True)
def test_the_cpu_pool_costs_nothing_until_it_is_asked(config):
    """Its deployments start at zero replicas and go back to it, want no GPU, and a smaller Whisper computes in int8."""
    deployments = deployments_of(config)
    for name in TWINS:
        twin = deployments[name]
        scaling = twin["autoscaling_config"]
        assert (scaling["min_replicas"], scaling.get("initial_replicas", 0)) == (0, 0)
        assert "num_gpus" not in twin["ray_actor_options"]
        assert twin["max_ongoing_requests"] == deployments[name.removesuffix("Cpu")]["max_ongoing_requests"]
    settings = settings_of(config)
    assert settings.cpu_pool.transcriber.model != settings.transcriber.model
    assert settings.cpu_pool.transcriber.compute_type == "int8"
    assert settings.cpu_pool.aligner.models == settings.aligner.models


@pytest.mark.parametrize(("config", "cores"), [(PRODUCTION[0], 16), (PRODUCTION[2], 8)], indirect=["config"])
def test_the_cpu_pool_fits_beside_the_idle_graph(config, cores):
    """One replica of each part of the pool finds the cores that it claims on one machine, beside the smallest graph."""
    claimed = 0.0
    for name, deployment in deployments_of(config).items():
        least = deployment.get("autoscaling_config", {}).get("min_replicas", deployment.get("num_replicas", 1))
        claimed += (1 if name in TWINS else least) * deployment["ray_actor_options"]["num_cpus"]
    assert claimed <= cores


@pytest.mark.parametrize("config", PRODUCTION, ids=name_of, indirect=True)
def test_production_aligners_are_there_from_the_start(config):
    """Every aligner that production names is loaded at start and stays: what is wrong with it shows before a job."""
    aligner = settings_of(config).aligner
    assert sorted(aligner.preload) == sorted(aligner.models)
    assert len(aligner.preload) <= aligner.models_kept


def test_every_model_of_a_config_is_in_the_lock(config):
    """`ml-server models fetch --pin` finds an entry, with its licence, for all that a config names."""
    lock = read(default_path())
    missing = [str(model) for model in settings_of(config).wanted_models if not lock.find(model.kind, model.name)]
    assert missing == []


def test_one_gpu_is_enough_for_the_gpu_config():
    """The fractions of configs/gpu.yaml add up to no more than the one card."""
    config = yaml.safe_load((ROOT / "configs" / "gpu.yaml").read_text(encoding="utf-8"))
    total = 0.0
    for deployment in deployments_of(config).values():
        replicas = deployment.get("autoscaling_config", {}).get("max_replicas", deployment.get("num_replicas", 1))
        total += replicas * deployment["ray_actor_options"].get("num_gpus", 0)
    assert 0 < total <= 1


@pytest.mark.parametrize("config", PRODUCTION, ids=name_of, indirect=True)
def test_production_configs_are_strict(config, monkeypatch):
    """Production takes https videos only, and refuses to start without a place to send callbacks to."""
    args = config["applications"][0]["args"]
    assert Settings(**args).extractor.net.schemes == {"https"}
    with pytest.raises(ValidationError, match="https only"):
        Settings(**{**args, "extractor": {"net": {"schemes": ["http"]}}})
    without = {key: value for key, value in args.items() if key != "backend_url"}
    for variable in ("FASTAPI_BASE_URL", "BACKEND_URL", "ML_SERVER_BACKEND_URL"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(ValidationError, match="no callback base"):
        Settings(**without)
    monkeypatch.setenv("BACKEND_URL", "https://backend.example.com")
    assert Settings(**without).backend_url == "https://backend.example.com"


def test_a_new_secret_is_another_identity():
    """A rotated webhook secret changes the settings' identity, so that the old manager is replaced."""
    first = Settings(profile="local", webhook_secrets=["whsec_" + "b25l" * 6])
    assert first.identity != Settings(profile="local", webhook_secrets=["whsec_" + "dHdv" * 6]).identity
    assert first.identity == Settings(profile="local", webhook_secrets=["whsec_" + "b25l" * 6]).identity


@pytest.mark.parametrize(
    "secret",
    ["", "whsec_-_-_AAAA", "whsec_AAAA", "not base64!", "whsec_" + "b25l" * 5, "whsec_" + "b25l" * 6 + "-"],
)
def test_w7_a_secret_that_signs_badly_is_refused_at_start(secret):
    """W7: the library drops characters that are not base64, and signs with the rest; the value is not told."""
    with pytest.raises(ValidationError, match="at least 16 bytes") as refused:
        Settings(profile="local", webhook_secrets=[secret])
    assert not secret or secret not in str(refused.value)


@pytest.mark.parametrize("url", ["ecg-backend:8000", "http://192.168.1.5:8000"])
def test_a_backend_that_cannot_be_called_is_refused_at_start(url):
    """A backend URL without scheme, or in a network that is not named: the server does not start."""
    with pytest.raises(ValidationError, match="backend_url"):
        Settings(profile="production", backend_url=url)


def test_settings_errors_hold_no_secret():
    """What is printed when settings are wrong does not repeat them."""
    with pytest.raises(ValidationError) as error:
        Settings(profile="production", database_url="postgresql://user:secret@host/db")
    assert "secret" not in str(error.value)
