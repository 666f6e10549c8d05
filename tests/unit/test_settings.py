from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from serve_app.settings import Settings

BACKEND = "http://ecg-backend:8000"


def local(**fields: object) -> Settings:
    return Settings(profile="local", **fields)


def test_a_field_holds_what_is_used(tmp_path, monkeypatch):
    """What a setting takes from others by default is in the field of its own name, from the start."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    settings = local(state_dir="~/state", backend_url=f"{BACKEND}/api/")
    state = tmp_path / "state"
    assert settings.state_dir == state
    assert settings.database_url.get_secret_value() == f"sqlite:///{state}/ml-server.db"
    assert (settings.extractor.scratch_url, settings.extractor.temp_dir) == (f"{state}/scratch", state / "tmp")
    assert settings.models.memory_dir == state
    assert settings.callbacks.origins == (BACKEND,)
    assert local(state_dir="state").state_dir == state
    assert local().state_dir == tmp_path / ".local" / "state" / "ml-server"


def test_what_is_named_stays(tmp_path, monkeypatch):
    """In the config or in the environment, and the neighbours of what is named still get their defaults."""
    monkeypatch.setenv("ML_SERVER_EXTRACTOR__SCRATCH_URL", "file:///shared")
    monkeypatch.setenv("ML_SERVER_DATABASE_URL", "")
    settings = local(state_dir=tmp_path, extractor={"net": {"hosts": ["a.example"]}}, models={"memory_dir": "/other"})
    assert settings.extractor.net.hosts == ("a.example",)
    assert (settings.extractor.scratch_url, settings.extractor.temp_dir) == ("file:///shared", tmp_path / "tmp")
    assert settings.models.memory_dir == Path("/other")
    assert settings.database_url.get_secret_value() == f"sqlite:///{tmp_path}/ml-server.db"
    assert local(extractor={"temp_dir": None}).extractor.temp_dir is None
    assert local(database_url="postgresql://h/d").database_url.get_secret_value() == "postgresql://h/d"
    assert local(state_dir=tmp_path, database_url=None).database_url == settings.database_url


def test_the_backend_is_allowed_once():
    """It joins the origins that are named, or is one of them already."""
    origins = ["https://a.example", BACKEND]
    assert local(backend_url=BACKEND, callbacks={"origins": origins}).callbacks.origins == tuple(origins)
    assert local(backend_url=BACKEND.upper(), callbacks={"origins": origins[:1]}).callbacks.origins == tuple(origins)


@pytest.mark.parametrize("field", ["state_dir", "backend_url", "callbacks"])
def test_a_wrong_value_is_refused_beside_what_follows_from_it(field):
    """Not with an error of the code that fills in defaults."""
    with pytest.raises(ValueError, match=field):
        local(**{field: 5})


def test_the_same_settings_everywhere(tmp_path):
    """Another process, with its own home, folder and hash seed, unpickles the same places and the same identity."""
    settings = local(callbacks={"networks": ["127.0.0.0/8"]}, backend_url="http://127.0.0.1:8000")
    (tmp_path / "settings").write_bytes(pickle.dumps(settings))
    code = (
        "import pickle, sys; s = pickle.load(sys.stdin.buffer); print(s.identity, s.state_dir, s.extractor.scratch_url)"
    )
    with (tmp_path / "settings").open("rb") as pickled:
        there = subprocess.run(
            [sys.executable, "-c", code],
            cwd=Path(__file__).parents[2],
            env={"HOME": "/elsewhere", "PYTHONHASHSEED": "7"},
            stdin=pickled,
            capture_output=True,
            text=True,
            check=True,
        )
    assert there.stdout.split() == [settings.identity, str(settings.state_dir), settings.extractor.scratch_url]
    assert settings.on(enable_gpu=False).identity == settings.identity
    assert Settings.model_validate(settings) == settings
