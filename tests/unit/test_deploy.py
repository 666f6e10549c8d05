"""What deploy/ and configs/kuberay/ promise, as far as no engine is needed to see it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import textwrap
import tomllib
from collections import Counter
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml
from compose_spec import PyCompose
from ray._private.ray_constants import RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S

from deployments.models.lock import default_path, read
from deployments.net.addresses import parse, refused
from deployments.net.policy import check_callback_url, check_video_url
from serve_app.api import proxy_guard
from serve_app.cli import local
from serve_app.exposure import check_bind
from serve_app.settings import Settings
from tests.support.kuberay import RAY_SERVICE
from tests.support.needs import need

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
KUBERAY = ROOT / "configs" / "kuberay"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
UNIT = DEPLOY / "ml-server.service"
KUBERNETES = "1.34"
USER = "10001"
MODELS = "/models"
LONGEST_STOP_S = 30
"""D7: SIGTERM, and 30 s later the server is gone. Whoever stops it has to wait longer."""


def config(name: str) -> dict:
    return yaml.safe_load((ROOT / "configs" / name).read_text(encoding="utf-8"))


def interpolated(text: str, **environment: str) -> str:
    """`${NAME:-else}` and `${NAME:+then}`, as Compose fills them in."""

    def fill(match: re.Match[str]) -> str:
        name, kind, word = match.groups()
        value = environment.get(name, "")
        return {":-": value or word, ":+": word if value else ""}.get(kind, value)

    while "${" in text:
        text = re.sub(r"\$\{(\w+)(:[-+])?([^${}]*)\}", fill, text)
    return text


def compose(*names: str, **environment: str) -> dict:
    """The services of Compose files, the later ones on top; each file is one by the specification."""
    services: dict[str, dict] = {}
    for name in names:
        content = yaml.safe_load(interpolated((DEPLOY / name).read_text(encoding="utf-8"), **environment))
        PyCompose.from_json(json.dumps(content)).to_spec()
        for service, keys in content["services"].items():
            before = services.setdefault(service, {})
            environments = before.get("environment", {}) | keys.get("environment", {})
            services[service] = before | keys | ({"environment": environments} if environments else {})
    return services


def manifests() -> list[dict]:
    return [
        each for path in sorted(KUBERAY.glob("*.yaml")) for each in yaml.safe_load_all(path.read_text(encoding="utf-8"))
    ]


@pytest.fixture
def ray_service():
    return next(each for each in manifests() if each["kind"] == "RayService")


@pytest.fixture
def groups(ray_service):
    """The head and each group of workers."""
    cluster = ray_service["spec"]["rayClusterConfig"]
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


def pods_of(manifest: dict) -> list[dict]:
    """The pod templates in a manifest."""
    if manifest["kind"] == "RayService":
        cluster = manifest["spec"]["rayClusterConfig"]
        return [group["template"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]
    return [manifest["spec"]["template"]] if "template" in manifest.get("spec", {}) else []


def seconds(text: str) -> int:
    return int(text.removesuffix("s"))


def gigabytes(text: str) -> float:
    return float(text.removesuffix("gb"))


# The image


def test_the_dockerfile_is_sound():
    """Nothing in it that hadolint objects to."""
    found = subprocess.run(
        [Path(sys.executable).parent / "hadolint", DEPLOY / "Dockerfile"], capture_output=True, text=True, check=False
    )
    assert (found.returncode, found.stdout) == (0, "")


def test_the_image_is_nobodys_root_and_says_how_it_is():
    """It runs as a user of its own, with tini in front, and asks /health where the configs listen."""
    assert re.findall(r"^USER (.*)", DOCKERFILE, re.MULTILINE) == [f"{USER}:{USER}"]
    assert "ENTRYPOINT [" + '"tini", "--", "ml-server"]' in DOCKERFILE
    assert f'"http://127.0.0.1:{config("local.yaml")["http_options"]["port"]}/health"' in DOCKERFILE
    assert re.search(r"--start-period=300s", DOCKERFILE)
    assert local.START_TIMEOUT_S == 300


def test_the_image_tells_nobody_and_has_its_doorkeeper():
    """What `ml-server up` puts into the environment is in the image's, for those who start Ray themselves."""
    settings = dict(re.findall(r"([A-Za-z_]+)=(\S+)", DOCKERFILE))
    assert settings | local.SILENT == settings
    assert settings[proxy_guard.VARIABLE] == proxy_guard.IMPORT_PATH


def test_the_image_has_the_models_that_it_starts_with():
    """Those of the default config, pinned, where the server looks, and hidden by no volume of Compose."""
    assert set(re.findall(r"^ARG MODELS_OF=(.*)$", DOCKERFILE, re.MULTILINE)) == {"local.yaml"}
    assert f"COPY --from=models --chown={USER}:{USER} {MODELS} {MODELS}\n" in DOCKERFILE
    assert f"ML_SERVER_MODELS__CACHE_DIR={MODELS} " in DOCKERFILE
    lock = read(default_path())
    wanted = Settings(**config("local.yaml")["applications"][0]["args"]).wanted_models
    assert wanted
    assert all(lock.find(model.kind, model.name).pinned for model in wanted)
    places = [volume.split(":")[1] for volume in compose("compose.yaml")["ml-server"]["volumes"]]
    assert places
    assert not any(Path(MODELS).is_relative_to(place) for place in places)


def test_production_s_models_come_by_a_volume():
    """compose.gpu.yaml: the server reads what the fetching service has written, and where it looks."""
    services = compose("compose.yaml", "compose.gpu.yaml")
    assert f"models:{MODELS}:ro" in services["ml-server"]["volumes"]
    assert f"models:{MODELS}" in services["fetch"]["volumes"]


def test_only_what_is_needed_reaches_the_builder():
    """The build context is what the wheel is made of, and nothing else."""
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").split("\n")
    rules = [line for line in lines if line and not line.startswith("#")]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert rules[0] == "*"
    let_in = {rule.removeprefix("!") for rule in rules if rule.startswith("!")}
    assert let_in == {*wheel["packages"], *wheel["force-include"], "pyproject.toml", "README.md"}


# Compose


def test_compose_confines_what_is_ours():
    """Read-only, no capabilities, no new privileges, and time to stop, for every service of the image."""
    services = compose("compose.yaml", "compose.gpu.yaml")
    for name, service in services.items():
        if name in {"database", "fetch"}:
            continue
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
    server = services["ml-server"]
    assert seconds(server["stop_grace_period"]) > LONGEST_STOP_S
    assert server["deploy"]["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"]


@pytest.mark.parametrize("files", [["compose.yaml"], ["compose.yaml", "compose.gpu.yaml"]], ids=len)
def test_compose_has_room_for_the_object_store(files):
    """Ray takes 30 % of the memory for it; where /dev/shm is smaller, it goes to disk or does not start."""
    server = compose(*files)["ml-server"]
    assert gigabytes(server["shm_size"]) >= 0.3 * gigabytes(server["mem_limit"])


@pytest.mark.parametrize(
    ("files", "base", "video"),
    [
        (["compose.yaml"], "local.yaml", "http://videos:9000/clear.flac"),
        (["compose.yaml", "compose.gpu.yaml"], "gpu.yaml", "https://bucket.example.com/v.mp4?X-Amz-Signature=1"),
    ],
    ids=lambda value: value if isinstance(value, str) else len(value),
)
def test_compose_lets_its_parties_reach_each_other(files, base, video, monkeypatch):
    """The server may listen, the backend may ask and be told, videos come from the named store, and nobody else's."""
    services = compose(*files, VIDEO_HOST="bucket.example.com")
    for name, value in services["ml-server"]["environment"].items():
        monkeypatch.setenv(name, str(value))
    settings = Settings(**config(base)["applications"][0]["args"])
    check_bind("0.0.0.0", settings.auth)  # noqa: S104 - what the image's command asks for
    inside = parse("172.30.57.9")
    assert any(inside in network for network in settings.auth.networks)
    check_callback_url(f"{services['backend']['environment']['FASTAPI_BASE_URL']}/x", settings.callbacks)
    assert not refused(inside, settings.callbacks.networks)
    check_video_url(video, settings.extractor.net)
    assert refused(inside, settings.extractor.net.networks) is (base == "gpu.yaml")
    assert settings.extractor.net.names_hosts


def test_compose_uses_postgresql_where_there_is_a_password(monkeypatch):
    """One variable makes the database and points the server to it."""
    services = compose("compose.yaml", POSTGRES_PASSWORD="secret")  # noqa: S106 - a word
    url = services["ml-server"]["environment"]["ML_SERVER_DATABASE_URL"]
    monkeypatch.setenv("ML_SERVER_DATABASE_URL", url)
    assert Settings(profile="local").database_url.get_secret_value() == "postgresql://ml:secret@database/ml_server"
    assert services["database"]["environment"]["POSTGRES_DB"] == "ml_server"
    assert compose("compose.yaml")["ml-server"]["environment"]["ML_SERVER_DATABASE_URL"] == ""


# systemd


@pytest.fixture
def systemd_unit(tmp_path):
    """The unit with a program that is there, since systemd looks for it."""
    need(shutil.which("systemd-analyze"), "systemd-analyze is missing")
    path = tmp_path / UNIT.name
    path.write_text(UNIT.read_text(encoding="utf-8").replace("/opt/ml-server/bin/ml-server", sys.executable))
    return path


def test_systemd_takes_the_unit(systemd_unit):
    """Every line of it is one that systemd knows, and its own measure of exposure (10 is open) stays low."""
    checked = subprocess.run(["systemd-analyze", "verify", systemd_unit], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")
    subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=20", systemd_unit],
        check=True,
        capture_output=True,
    )


def test_systemd_waits_for_the_drain():
    """SIGTERM goes to the server alone, which has longer than it takes; the log is found by its name."""
    lines = UNIT.read_text(encoding="utf-8").split("\n")
    entries = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    assert int(entries["TimeoutStopSec"]) > LONGEST_STOP_S
    assert entries["KillMode"] == "mixed"
    assert entries["SyslogIdentifier"] == UNIT.stem
    assert entries["Restart"] == "on-failure"


# KubeRay


@pytest.mark.parametrize("manifest", manifests(), ids=lambda each: f"{each['kind']}-{each['metadata']['name']}")
def test_kubernetes_takes_the_manifest(manifest):
    """Every field is one that Kubernetes, or KubeRay, knows."""
    if manifest["kind"] == "RayService":
        jsonschema.validate(manifest, RAY_SERVICE)
        for template in pods_of(manifest):
            pod = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "x"}, "template": template}
            kubernetes_validate.validate(pod, KUBERNETES, strict=True)
    else:
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


def test_a_misspelled_field_would_be_found(ray_service):
    """The checks above see a typo at every depth."""
    ray_service["spec"]["rayClusterConfig"]["gcsFaultToleranceOption"] = {}
    with pytest.raises(jsonschema.ValidationError, match="gcsFaultToleranceOption"):
        jsonschema.validate(ray_service, RAY_SERVICE)
    template = pods_of(ray_service)[1]
    template["spec"]["containers"][0]["securityContext"]["readOnlyRootFileSystem"] = True
    pod = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "x"}, "template": template}
    with pytest.raises(kubernetes_validate.ValidationError, match="readOnlyRootFileSystem"):
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)


def test_kuberay_deploys_the_clusters_config():
    """serveConfigV2 is configs/cluster.yaml, to the letter: copy it there when it changes."""
    text = (KUBERAY / "rayservice.yaml").read_text(encoding="utf-8")
    block = text.split("  serveConfigV2: |\n", 1)[1].split("  rayClusterConfig:\n", 1)[0]
    assert textwrap.dedent(block) == (ROOT / "configs" / "cluster.yaml").read_text(encoding="utf-8")


def test_the_pods_have_what_the_config_can_grow_to(groups):
    """Cores and GPUs for every replica that autoscaling may want; the biggest replica fits into one pod."""
    offered: Counter[str] = Counter()
    for group in groups[1:]:
        assert group["replicas"] == group["minReplicas"] == group["maxReplicas"]
        for resource, amount in group["template"]["spec"]["containers"][0]["resources"]["limits"].items():
            offered[resource] += group["replicas"] * float(amount.removesuffix("Gi"))
    wanted: Counter[str] = Counter()
    for deployment in config("cluster.yaml")["applications"][0]["deployments"]:
        replicas = deployment.get("autoscaling_config", {}).get("max_replicas", deployment.get("num_replicas", 1))
        for resource, amount in deployment["ray_actor_options"].items():
            wanted[resource] += replicas * amount
    assert offered["cpu"] >= wanted["num_cpus"]
    assert offered["nvidia.com/gpu"] >= wanted["num_gpus"] > 0


def test_the_head_does_no_work(ray_service, groups):
    """It offers no core, has no GPU, and no request comes to it; its state is in Redis."""
    head, *workers = groups
    assert head["rayStartParams"]["num-cpus"] == "0"
    assert "nvidia.com/gpu" not in head["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert ray_service["spec"]["excludeHeadPodFromServeSvc"] is True
    options = ray_service["spec"]["rayClusterConfig"]["gcsFaultToleranceOptions"]
    names = {each["metadata"]["name"] for each in manifests() if each["kind"] == "Service"}
    assert options["redisAddress"].removesuffix(":6379") in names
    assert all("num-cpus" not in group["rayStartParams"] for group in workers)


def test_ray_is_the_version_of_the_image(ray_service):
    """KubeRay chooses its probes by it."""
    pins = (ROOT / "configs" / "constraints.txt").read_text(encoding="utf-8")
    version = ray_service["spec"]["rayClusterConfig"]["rayVersion"]
    assert f"\nray=={version}\n" in pins
    assert ray_service["spec"]["rayClusterConfig"]["authOptions"] == {"mode": "token"}


def test_the_api_has_its_port_to_itself(groups):
    """The port called `serve` is the config's, and metrics, which KubeRay would put there, are elsewhere."""
    port = config("cluster.yaml")["http_options"]["port"]
    for group in groups:
        ports = {each["name"]: each["containerPort"] for each in group["template"]["spec"]["containers"][0]["ports"]}
        assert ports["serve"] == port
        assert group["rayStartParams"]["metrics-export-port"] == str(ports["metrics"]) != str(port)


@pytest.mark.parametrize("manifest", [each for each in manifests() if pods_of(each)], ids=lambda each: each["kind"])
def test_pods_are_confined(manifest):
    """What the namespace enforces (`restricted`), and a read-only root beside."""
    for template in pods_of(manifest):
        pod = template["spec"]
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["readOnlyRootFilesystem"] is True
            assert context["capabilities"] == {"drop": ["ALL"]}
            mounts = {mount["name"] for mount in container["volumeMounts"]}
            assert mounts <= {volume["name"] for volume in pod.get("volumes", [])} | {"data"}


def test_a_pod_has_time_to_go(groups):
    """Shared memory holds the object store, and the pod's end waits for what comes before it."""
    for group in groups:
        pod = group["template"]["spec"]
        [_, before] = pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
        assert int(before) + RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S < pod["terminationGracePeriodSeconds"]
        shm = next(volume["emptyDir"] for volume in pod["volumes"] if volume["name"] == "shm")
        assert shm["medium"] == "Memory"
        assert float(shm["sizeLimit"].removesuffix("Gi")) * 2**30 > int(group["rayStartParams"]["object-store-memory"])


def test_workers_go_one_by_one(groups):
    """A drained machine takes one worker away, not more."""
    budget = next(each for each in manifests() if each["kind"] == "PodDisruptionBudget")
    labels = budget["spec"]["selector"]["matchLabels"].items()
    chosen = [group for group in groups if labels <= group["template"]["metadata"]["labels"].items()]
    assert budget["spec"]["minAvailable"] == sum(group["replicas"] for group in chosen) - 1


def test_the_clusters_settings_are_sound(groups, monkeypatch):
    """The environment of the pods and configs/cluster.yaml make settings that production takes."""
    environment = {each["name"]: each.get("value") for each in groups[1]["template"]["spec"]["containers"][0]["env"]}
    assert [group["template"]["spec"]["containers"][0]["env"] for group in groups[1:]] == [
        groups[0]["template"]["spec"]["containers"][0]["env"]
    ] * 2
    for name, value in environment.items():
        if value is not None:
            monkeypatch.setenv(name, value)
    settings = Settings(**config("cluster.yaml")["applications"][0]["args"])
    check_bind("0.0.0.0", settings.auth)  # noqa: S104 - what the config says
    check_callback_url("http://ecg-backend.ecg.svc:8000/x", settings.callbacks)
    assert environment["ML_SERVER_DATABASE_URL"] is None  # from a Secret
