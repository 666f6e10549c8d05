from __future__ import annotations

import hashlib
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from deployments.errors import ModelLoadError, ModelMissingError
from deployments.models import digests as digests_module
from deployments.models.config import ModelsConfig
from deployments.models.digests import MEMORY, Digests
from deployments.models.lock import Lock, LockedFile, LockedModel, read, write
from deployments.models.store import resolve
from tests.support.model_hub import FILES, REPOSITORY, REVISION, FakeHub, place, sha256, snapshot

ROOT = Path(__file__).parents[2]
LOADED = {name: content for name, content in FILES.items() if name != "README.md"}


pytestmark = pytest.mark.usefixtures("online")


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "hub"


@pytest.fixture
def hub(cache):
    return FakeHub(cache)


@pytest.fixture
def store(tmp_path, cache):
    """Settings of a store whose lock pins `REPOSITORY`."""
    entry = LockedModel(kind="asr", name=REPOSITORY, revision=REVISION, files=locked(LOADED))
    write(tmp_path / "lock.yaml", Lock(models=(entry, LockedModel(kind="emotion", name="example/moods"))))
    return ModelsConfig(lock=tmp_path / "lock.yaml", cache_dir=cache, memory_dir=tmp_path / "state")


def locked(files: dict[str, bytes]) -> dict[str, LockedFile]:
    return {name: LockedFile(sha256=sha256(data), size=len(data)) for name, data in files.items()}


def refusal(name: str, config: ModelsConfig, kind="asr", **options) -> str:
    """The sentence with which the store refuses."""
    with pytest.raises(ModelMissingError) as refused:
        resolve(name, kind, config, **options)
    return str(refused.value)


def test_a_pinned_model_is_its_folder(store, cache):
    """A name resolves to the pinned revision's folder in the hub library's own cache."""
    place(cache, REPOSITORY, REVISION, FILES)
    assert resolve(REPOSITORY, "asr", store) == snapshot(cache, REPOSITORY, REVISION)


def test_s1_a_missing_model_is_named_with_the_command(store):
    """The error at start says which model is missing and which command fetches it."""
    sentence = refusal(REPOSITORY, store)
    assert sentence == (
        f"the asr model {REPOSITORY} is missing: fetch it with `ml-server models fetch --config CONFIG`"
    )


def test_another_revision_does_not_do(store, cache):
    """What lies in the cache under another commit is not what the lock means."""
    place(cache, REPOSITORY, "3d" * 20, FILES, ref="main")
    assert "is missing" in refusal(REPOSITORY, store)


def test_s1_an_altered_file_is_named(store, cache):
    """One byte changed, the size kept: refused, with the file's name and the command."""
    folder = place(cache, REPOSITORY, REVISION, FILES)
    (folder / "model.bin").resolve().write_bytes(b"Weights" + FILES["model.bin"][7:])
    sentence = refusal(REPOSITORY, store)
    assert "model.bin is altered, with another SHA-256" in sentence
    assert "`ml-server models fetch --config CONFIG`" in sentence


def test_a_truncated_file_is_named(store, cache):
    """A file that was cut off is found by its size, without being read."""
    folder = place(cache, REPOSITORY, REVISION, FILES)
    (folder / "model.bin").resolve().write_bytes(b"weig")
    assert "model.bin is altered, with 4 bytes in place of 7000" in refusal(REPOSITORY, store)


def test_s1_every_wrong_file_is_named(store, cache):
    """The sentence lists all that is wrong, not only the first."""
    folder = place(cache, REPOSITORY, REVISION, FILES)
    (folder / "model.bin").unlink()
    (folder / "config.json").resolve().write_bytes(b"[]")
    sentence = refusal(REPOSITORY, store)
    assert "model.bin is missing" in sentence
    assert "config.json is altered" in sentence


def test_a_half_downloaded_file_is_told_from_a_missing_one(store, cache):
    """A download that broke off has left its beginning in the hub library's cache."""
    folder = place(cache, REPOSITORY, REVISION, {name: FILES[name] for name in ("config.json", "tokenizer.json")})
    (folder.parents[1] / "blobs" / f"{sha256(FILES['model.bin'])}.incomplete").write_bytes(b"weig")
    assert "model.bin is not completely downloaded" in refusal(REPOSITORY, store)


def test_a_half_downloaded_file_in_a_folder_of_ones_own(store, tmp_path):
    """The same, where the beginning lies beside the file's own place."""
    folder, config = own_folder(tmp_path, store)
    (folder / "model.bin").rename(folder / "model.bin.incomplete")
    assert "model.bin is not completely downloaded" in refusal(str(folder), config)


def test_weights_that_a_loader_would_prefer_are_noticed(tmp_path, store, cache):
    """Safetensors put beside the pinned pytorch_model.bin would be loaded in its place: refused."""
    files = {"config.json": b"{}", "pytorch_model.bin": b"pickle"}
    entry = LockedModel(kind="emotion", name="example/moods", revision=REVISION, files=locked(files))
    write(store.lock, read(store.lock).replaced(entry))
    folder = place(cache, "example/moods", REVISION, files | {"README.md": b"", "tf_model.h5": b"", "model.py": b""})
    assert resolve("example/moods", "emotion", store) == folder
    (folder / "model.safetensors").write_bytes(b"others")
    sentence = refusal("example/moods", store, "emotion")
    assert "model.safetensors is not in the lock, but a loader may read it: remove it" in sentence


def test_what_is_not_pinned_is_refused(store, cache, hub):
    """Without digests nobody knows whose weights they are; the sentence says how to pin."""
    place(cache, "example/moods", REVISION, FILES, ref="main")
    sentence = refusal("example/moods", store, "emotion", hub=hub)
    assert sentence == (
        "the emotion model example/moods is not pinned in the model lock: pin it with"
        " `ml-server models fetch --config CONFIG --pin`"
    )
    assert "--pin" in refusal("nobody/wrote-it-down", store, hub=hub)


def test_a_laptop_may_use_what_is_not_pinned(store, cache, hub):
    """`allow_unpinned` takes the newest revision that was fetched."""
    folder = place(cache, "example/moods", REVISION, FILES, ref="main")
    config = store.model_copy(update={"allow_unpinned": True})
    assert resolve("example/moods", "emotion", config, hub=hub) == folder


def test_allowing_the_unpinned_allows_nothing_altered(store, cache):
    """What is pinned stays pinned, also on a laptop."""
    folder = place(cache, REPOSITORY, REVISION, FILES)
    (folder / "model.bin").resolve().write_bytes(b"weig")
    assert "altered" in refusal(REPOSITORY, store.model_copy(update={"allow_unpinned": True}))


def own_folder(tmp_path: Path, store: ModelsConfig) -> tuple[Path, ModelsConfig]:
    folder = tmp_path / "my model"
    folder.mkdir()
    for name, content in LOADED.items():
        (folder / name).write_bytes(content)
    lock = read(store.lock).replaced(LockedModel(kind="asr", name=str(folder), files=locked(LOADED)))
    write(store.lock, lock)
    return folder, store


def test_a_folder_of_ones_own_is_checked_too(store, tmp_path):
    """An explicit path is taken as it is written, when the lock knows its files."""
    folder, config = own_folder(tmp_path, store)
    assert resolve(str(folder), "asr", config) == folder
    (folder / "model.bin").write_bytes(b"weig")
    sentence = refusal(str(folder), config)
    assert "model.bin is altered" in sentence
    assert "it is a folder of your own: put it in order there" in sentence


def test_a_folder_that_is_not_there(store, tmp_path):
    """A path that leads nowhere is not looked for in a hub."""
    sentence = refusal(str(tmp_path / "gone"), store)
    assert "gone is missing: it is a folder of your own" in sentence


def test_a_folder_that_is_not_pinned(store, tmp_path):
    """A folder whose files the lock does not know: refused in production, used on a laptop."""
    folder = tmp_path / "new"
    folder.mkdir()
    assert "is not pinned" in refusal(str(folder), store)
    assert resolve(str(folder), "asr", store.model_copy(update={"allow_unpinned": True})) == folder


def test_a_name_that_nobody_could_have(store):
    """Neither a folder nor a repository: the sentence says so."""
    assert "it is neither a folder nor the name of a repository" in refusal("WAV2VEC2_ASR_BASE_960H", store, "aligner")


def test_sizes_of_whisper_are_repositories(store):
    """`large-v3` means faster-whisper's repository."""
    assert "Systran/faster-whisper-large-v3 is missing" in refusal("large-v3", store)


@pytest.mark.parametrize("content", ["", "[", "version: 2", "version: 1\nmodels: [{kind: asr}]"])
def test_a_damaged_lock_is_named(store, content):
    """A lock that cannot be read stops the start, with its name."""
    store.lock.write_text(content)
    with pytest.raises(ModelLoadError, match=r"lock\.yaml is damaged"):
        resolve(REPOSITORY, "asr", store)
    store.lock.unlink()
    with pytest.raises(ModelLoadError, match=r"lock\.yaml cannot be read"):
        resolve(REPOSITORY, "asr", store)


def test_a_replica_fetches_nothing(store, hub):
    """Ten replicas that start at once ask no hub, whatever the settings say: the sentence tells who does."""
    sentence = refusal(REPOSITORY, store.model_copy(update={"offline": False, "allow_unpinned": True}), hub=hub)
    assert sentence.endswith("is missing: fetch it with `ml-server models fetch --config CONFIG`")
    assert hub.calls == []


CANARY = """
import socket, sys
def caught(*_):
    print("CONNECTED")
    raise OSError("no network here")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = caught
from pathlib import Path
from deployments.errors import ModelMissingError
from deployments.models.config import ModelsConfig
from deployments.models.store import resolve
config = ModelsConfig(lock=Path(sys.argv[1]), cache_dir=Path(sys.argv[2]), memory_dir=Path(sys.argv[3]))
print(resolve("example/tiny-whisper", "asr", config))
for kind in ("asr", "diarizer", "emotion"):
    try:
        resolve("example/gone", kind, config)
    except ModelMissingError:
        print("missing")
import huggingface_hub
try:
    huggingface_hub.snapshot_download("example/other", cache_dir=sys.argv[2])
except Exception as error:
    print(type(error).__name__)
"""


def test_s1_a_replica_connects_to_nobody(store, cache, tmp_path):
    """No connection and no look-up of a name, found or missing; the hub's library is shut too."""
    place(cache, REPOSITORY, REVISION, FILES)
    done = subprocess.run(
        [sys.executable, "-c", CANARY, store.lock, cache, store.memory_dir],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        env={name: value for name, value in os.environ.items() if "OFFLINE" not in name},
    )
    found, *rest = done.stdout.split()
    assert found == str(snapshot(cache, REPOSITORY, REVISION))
    assert rest == ["missing", "missing", "missing", "LocalEntryNotFoundError"]


def test_a_second_start_does_not_read_the_weights(store, cache, monkeypatch):
    """Digests are remembered over processes, so that a start with gigabytes of weights stays fast."""
    place(cache, REPOSITORY, REVISION, FILES)
    resolve(REPOSITORY, "asr", store)
    monkeypatch.setattr(digests_module.hashlib, "file_digest", None)
    assert resolve(REPOSITORY, "asr", store)


def test_what_is_remembered_holds_only_for_an_untouched_file(store, cache):
    """An altered file is noticed though its size and its times were put back."""
    folder = place(cache, REPOSITORY, REVISION, FILES)
    resolve(REPOSITORY, "asr", store)
    blob = (folder / "model.bin").resolve()
    before = blob.stat()
    blob.write_bytes(b"Weights" + FILES["model.bin"][7:])
    os.utime(blob, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert "model.bin is altered" in refusal(REPOSITORY, store)


def test_a_damaged_memory_is_no_obstacle(store, cache):
    """What was remembered may be garbage, or its place not to be written: then files are read again."""
    place(cache, REPOSITORY, REVISION, FILES)
    resolve(REPOSITORY, "asr", store)
    key = str((cache / "models--example--tiny-whisper" / "blobs" / sha256(FILES["model.bin"])).resolve())
    for garbage in ("{", "[]", json.dumps({key: 1}), json.dumps({key: []})):
        (store.memory_dir / MEMORY).write_text(garbage)
        assert resolve(REPOSITORY, "asr", store)
    blocked = store.model_copy(update={"memory_dir": store.lock})
    assert resolve(REPOSITORY, "asr", blocked)


def test_digests_are_sha256(tmp_path):
    """Equal to hashlib's over the whole content; the memory is for nobody else to read."""
    path = tmp_path / "file"
    path.write_bytes(os.urandom(100_000))
    digests = Digests(tmp_path / "state")
    assert digests.of(path) == hashlib.sha256(path.read_bytes()).hexdigest()
    digests.save()
    assert (tmp_path / "state" / MEMORY).stat().st_mode & 0o077 == 0


def test_errors_cross_processes():
    """Ray pickles what a replica raises at start."""
    error = pickle.loads(pickle.dumps(ModelMissingError("the asr model x is missing")))  # noqa: S301 - our own bytes
    assert (type(error), str(error)) == (ModelMissingError, "the asr model x is missing")
