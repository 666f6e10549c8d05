from __future__ import annotations

import logging
import socket

import pytest
from pydantic import ValidationError

from deployments.models.lock import Lock, LockedFile, LockedModel, write
from deployments.transcriber.config import TranscriberConfig, has_word_times
from deployments.warnings import ResultWarning, WarningCode
from serve_app.engines import decided
from serve_app.settings import Settings
from tests.support.model_hub import FILES, REPOSITORY, REVISION, place, sha256


@pytest.fixture(autouse=True)
def as_before(monkeypatch):
    """`go_offline` is for a process's whole life; a test's ends sooner."""
    monkeypatch.setattr("deployments.models.store.go_offline", lambda: None)


@pytest.fixture
def laptop(tmp_path):
    """Settings with `engine: auto` and one model, which is pinned and not here."""
    loaded = {name: content for name, content in FILES.items() if name != "README.md"}
    files = {name: LockedFile(sha256=sha256(content), size=len(content)) for name, content in loaded.items()}
    entry = LockedModel(kind="asr", name=REPOSITORY, revision=REVISION, files=files)
    write(tmp_path / "lock.yaml", Lock(models=(entry,)))
    return Settings(
        profile="local",
        engine="auto",
        transcriber={"engine": "whisperx", "model": REPOSITORY},
        models={"lock": tmp_path / "lock.yaml", "cache_dir": tmp_path / "hub", "memory_dir": tmp_path},
    )


def test_auto_takes_the_named_engines_where_their_models_are_here(laptop, tmp_path, caplog):
    """Whisper runs, the log says so, and no result is warned of."""
    place(tmp_path / "hub", REPOSITORY, REVISION, FILES)
    with caplog.at_level(logging.INFO, logger="ray.serve.engines"):
        settings = decided(laptop)
    assert (settings.engine, settings.transcriber, settings.warnings) == ("named", laptop.transcriber, ())
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("INFO", "engine auto: WhisperX runs, all its models are here")
    ]


def test_auto_takes_the_embedded_engines_else(laptop, caplog):
    """All four at once, a warning in the log that names model and command, and one for every result."""
    settings = decided(laptop)
    assert settings.transcriber == TranscriberConfig()
    assert has_word_times(settings.transcriber)
    assert settings.model_version.startswith("pocketsphinx-")
    assert settings.wanted_models == ()
    assert settings.warnings == (ResultWarning(code=WarningCode.ENGINES_SMALL),)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert f"the asr model {REPOSITORY} is missing: fetch it with `ml-server models fetch" in record.message


def test_auto_decides_for_all_stages_together(laptop, tmp_path):
    """One model that is missing, of any stage, and none of the production engines runs."""
    place(tmp_path / "hub", REPOSITORY, REVISION, FILES)
    more = laptop.model_copy(update={"emotion": laptop.emotion.model_copy(update={"engine": "wav2vec2"})})
    assert decided(more).transcriber == TranscriberConfig()


def test_what_was_decided_is_another_identity(laptop, tmp_path):
    """Models that are fetched between two starts: the manager of the embedded engines' server is replaced."""
    embedded = decided(laptop)
    place(tmp_path / "hub", REPOSITORY, REVISION, FILES)
    assert decided(laptop).identity != embedded.identity


def test_auto_never_waits_for_a_network(laptop, monkeypatch):
    """No connection is tried, though the models may be fetched: a laptop on a train starts as fast as any."""
    tried = []

    def caught(*where, **_):
        tried.append(where)
        raise OSError

    online = laptop.model_copy(update={"models": laptop.models.model_copy(update={"offline": False})})
    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, caught)
    monkeypatch.setattr(socket, "getaddrinfo", caught)
    assert decided(online).warnings
    assert tried == []


def test_named_engines_stay(laptop, caplog):
    """Without `auto` nothing is asked, changed or said."""
    settings = laptop.model_copy(update={"engine": "named"})
    assert decided(settings) is settings
    assert caplog.records == []


def test_auto_needs_something_to_choose():
    """`engine: auto` over the embedded engines alone would claim that Whisper runs: refused."""
    with pytest.raises(ValidationError, match="name a transcriber such as"):
        Settings(profile="local", engine="auto")


def test_production_refuses_auto(laptop):
    """In a sentence that says what production does instead."""
    with pytest.raises(ValidationError, match=r"engine: auto is for laptops: production names its engines"):
        Settings(
            profile="production",
            backend_url="https://b.example.com",
            engine="auto",
            transcriber=laptop.transcriber,
        )
