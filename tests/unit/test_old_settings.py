from __future__ import annotations

import pytest
import yaml
from click.testing import CliRunner

from serve_app.cli.checks import StartError, check_settings
from serve_app.cli.main import main

COMMANDS = (["up"], ["demo"], ["models", "list"], ["keys", "list"])


def refusal(**args: object) -> str:
    """What `ml-server up` says to a config with these settings."""
    with pytest.raises(StartError) as refused:
        check_settings({"applications": [{"args": {"profile": "local", **args}}]})
    return str(refused.value)


def test_pocketsphinx_is_told_what_to_write(monkeypatch):
    """A config that names the recogniser that is gone, or an environment: one sentence with the line to write."""
    said = refusal(transcriber={"engine": "pocketsphinx"})
    assert said.startswith("transcriber.engine: ")
    assert "pocketsphinx is gone: write {engine: whisperx, model: base, device: cpu}" in said
    monkeypatch.setenv("ML_SERVER_TRANSCRIBER__ENGINE", "pocketsphinx")
    said = refusal()
    assert said.startswith("transcriber.engine: ")
    assert said.endswith("in the environment ML_SERVER_TRANSCRIBER__ENGINE=whisperx")
    monkeypatch.setenv("ML_SERVER_TRANSCRIBER__ENGINE", "whisperx")
    check_settings({"applications": [{"args": {"profile": "local"}}]})


@pytest.mark.parametrize("value", ["auto", "named"])
def test_the_switch_for_all_engines_is_told_to_go(monkeypatch, value):
    """`engine:` for the whole server, in a config or in the environment: one sentence that says what replaces it."""
    sentence = "the setting `engine` (ML_SERVER_ENGINE) is gone: remove it; each stage names its own"
    assert sentence in refusal(engine=value)
    monkeypatch.setenv("ML_SERVER_ENGINE", value)
    assert sentence in refusal()


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_the_config_of_the_demo_is_told_where_it_went(command):
    """`--config configs/demo.yaml`, at each command that takes a config: one sentence that names the one to write."""
    done = CliRunner().invoke(main, [*command, "--config", "configs/demo.yaml"])
    assert done.exit_code == 2
    assert "configs/demo.yaml is gone: name configs/local.yaml" in done.output


def test_another_demo_yaml_is_the_users_own(tmp_path):
    """A file of that name that is there is read like any other."""
    config = tmp_path / "demo.yaml"
    config.write_text(yaml.safe_dump({"applications": [{"args": {"profile": "local", "state_dir": str(tmp_path)}}]}))
    done = CliRunner().invoke(main, ["keys", "list", "--config", str(config)])
    assert done.exit_code == 0, done.output


def test_counting_letters_is_told_what_to_write():
    """`aligner.engine: proportional` is refused with the name that stands for it now; so is `ctc` without a model."""
    assert "proportional is gone; write cross-attention" in refusal(aligner={"engine": "proportional"})
    assert "ctc has no models: name one by language" in refusal(aligner={"engine": "ctc"})
