from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner
from pydantic import ValidationError
from ray.serve._private.api import call_user_app_builder_with_args_if_necessary

from serve_app.app import build
from serve_app.cli.main import main
from serve_app.environment import READ_ELSEWHERE, unknown_names
from serve_app.settings import Settings

ROOT = Path(__file__).parents[2]
WHITELIST = "ML_SERVER_EXTRACTOR__NET__HOSTS"
RENAMED = "ML_SERVER_EXTRACTION__NET__HOSTS"
KUBERNETES = {
    "ML_SERVER_SERVE_SVC_SERVICE_HOST": "10.0.0.1",
    "ML_SERVER_SERVE_SVC_SERVICE_PORT": "8080",
    "ML_SERVER_SERVE_SVC_SERVICE_PORT_SERVE": "8080",
    "ML_SERVER_SERVE_SVC_PORT": "tcp://10.0.0.1:8080",
    "ML_SERVER_SERVE_SVC_PORT_8080_TCP_ADDR": "10.0.0.1",
    "ML_SERVER_SERVICE_HOST": "10.0.0.2",
    "ML_SERVER_PORT": "tcp://10.0.0.2:8080",
}


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        (RENAMED, WHITELIST),
        ("ML_SERVER_EXTRACTOR_NET_HOSTS", WHITELIST),
        ("ML_SERVER_EXTRACTOR__NET__HOST", WHITELIST),
        ("ml_server_extractor__net__hosts__0", WHITELIST),
        ("ML_SERVER_LOCAL", "ML_SERVER_LOCALE"),
        ("ML_SERVER_CPU_POOL__TRANSCRIBER__MODLE", "ML_SERVER_CPU_POOL__TRANSCRIBER__MODEL"),
        ("ML_SERVER_APIKEY", "ML_SERVER_API_KEY"),
    ],
)
def test_an_unknown_name_has_a_nearest_one(name, nearest):
    """Names of settings at every depth, and those that something else reads, in either case."""
    assert unknown_names({name: "", "PATH": ""}, Settings) == {name: nearest}


@pytest.mark.parametrize(
    "name",
    [
        WHITELIST,
        WHITELIST.lower(),
        "ML_SERVER_EXTRACTOR",
        "ML_SERVER_EXTRACTOR__NET",
        "ML_SERVER_BACKEND_URL",
        "ML_SERVER_ALIGNER__MODELS__KO",
        "ML_SERVER_CPU_POOL__ALIGNER__MODELS__KO",
        "MODEL_SERVER_URL",
        *READ_ELSEWHERE,
    ],
)
def test_a_known_name_is_none_of_them(name):
    """Settings, whole ones as JSON, what is in a mapping, and names that other parts read."""
    assert unknown_names({name: ""}, Settings) == {}


def test_kubernetes_names_for_a_service_are_no_settings():
    """A pod beside a Service `ml-server-…` starts; `ML_SERVER_PORT` without such a Service is refused."""
    assert unknown_names(KUBERNETES, Settings) == {}
    assert unknown_names({"ML_SERVER_PORT": "9000"}, Settings).keys() == {"ML_SERVER_PORT"}


SENTENCE = (
    f"{RENAMED} in the environment is no setting of this release, and nothing reads it: did you mean {WHITELIST}?"
)


@pytest.mark.parametrize("command", ["up", "demo", "models list", "keys list"])
def test_no_command_starts_with_an_unknown_name(command, monkeypatch, tmp_path):
    """One sentence, with the nearest name and without the value."""
    monkeypatch.setenv("ML_SERVER_STATE_DIR", str(tmp_path))
    monkeypatch.setenv(RENAMED, "s3cret")
    monkeypatch.setattr("serve_app.cli.local._environment", lambda *_: None)
    done = CliRunner().invoke(main, command.split())
    assert done.exit_code == 1
    assert SENTENCE in done.output
    assert "s3cret" not in done.output


def test_serve_deploy_does_not_build_with_an_unknown_name(monkeypatch):
    """As Serve calls the builder, on whichever node: the app is refused, not deployed without its whitelist."""
    monkeypatch.setenv(RENAMED, '["bucket.example"]')
    with pytest.raises(ValidationError, match=re.escape(SENTENCE)):
        call_user_app_builder_with_args_if_necessary(build, {"profile": "local"})


def test_every_name_in_the_tree_is_known():
    """What code, configs and documents name is a setting, or in the list with its reader."""
    pattern = [r"\bML_SERVER_[A-Z0-9_]*[A-Z0-9]\b", "--", ":!tests/unit", ":!CHANGELOG.md"]
    found = subprocess.run(["git", "grep", "-ohP", *pattern], cwd=ROOT, check=True, capture_output=True, text=True)
    named = set(found.stdout.split()) - {
        "ML_SERVER_ERROR",
        "ML_SERVER_ENGINE",
    }  # an error's code, and one refused apart
    assert named >= {"ML_SERVER_LOG_FILE", "ML_SERVER_MODELS__HF_TOKEN", WHITELIST}
    assert unknown_names(dict.fromkeys(named, ""), Settings) == {}
