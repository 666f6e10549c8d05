from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from pydantic import BaseModel, ValidationError

from deployments.errors import ModelLoadError, ModelMissingError
from deployments.models.config import ModelsConfig
from deployments.models.fetch import fetch
from deployments.models.hub import HuggingFace, needed
from deployments.models.lock import Lock, LockedModel, default_path, read, write
from deployments.models.names import SIZES, Wanted, wanted_by
from deployments.models.store import ModelState, resolve
from serve_app.cli.child_process import free_port
from serve_app.cli.main import main
from serve_app.cli.models import ModelInventory, fetch_models, list_models, verify_models
from serve_app.settings import Settings
from tests.support.live_server import serving
from tests.support.model_hub import FILES, LATER, REPOSITORY, REVISION, FakeHub, http_hub, sha256, snapshot

ROOT = Path(__file__).parents[2]
ASR = ROOT / "tests" / "models" / "asr"
WHISPER = Wanted(kind="asr", name=REPOSITORY)
LOADED = sorted(FILES.keys() - {"README.md"})
TOKEN = "hf_" + "secret"
pytestmark = pytest.mark.usefixtures("online")


@pytest.fixture
def lock(tmp_path):
    path = tmp_path / "lock.yaml"
    write(path, Lock(models=(LockedModel(kind="asr", name=REPOSITORY, licence="?"),)))
    return path


@pytest.fixture
def config(tmp_path, lock):
    return ModelsConfig(lock=lock, cache_dir=tmp_path / "hub", memory_dir=tmp_path / "state")


@pytest.fixture
def hub(config):
    return FakeHub(config.cache_dir)


@pytest.fixture
def inventory(config, lock, hub):
    return ModelInventory(
        wanted=[WHISPER], config=config, lock_path=lock, command="ml-server models fetch --config c", hub=hub
    )


def test_pinning_writes_down_what_came(config, lock, hub):
    """`--pin` fetches what loaders read of the newest revision; its commit, sizes and digests enter the lock."""
    standing = fetch(WHISPER, config, lock, hub, pin=True)
    assert (standing.state, standing.folder) == (ModelState.OK, snapshot(hub.cache, REPOSITORY, REVISION))
    entry = read(lock).find("asr", REPOSITORY)
    assert (entry.revision, entry.licence, entry.gated) == (REVISION, "mit", False)
    assert {name: (file.sha256, file.size) for name, file in entry.files.items()} == {
        name: (sha256(FILES[name]), len(FILES[name])) for name in LOADED
    }
    assert hub.calls == ["look_up", (REVISION, LOADED, [])]


def test_what_is_pinned_stays(config, lock, hub):
    """The hub moves on, the lock does not: another machine gets the pinned revision, with `--pin` and without."""
    fetch(WHISPER, config, lock, hub, pin=True)
    before = lock.read_text()
    hub.revision = LATER
    other = config.model_copy(update={"cache_dir": config.cache_dir.with_name("other")})
    hub.cache = other.cache_dir
    for pin in (False, True):
        assert fetch(WHISPER, other, lock, hub, pin=pin).folder == snapshot(hub.cache, REPOSITORY, REVISION)
    assert lock.read_text() == before
    assert len(hub.calls) == 3


def test_without_pin_nothing_unknown_is_fetched(config, lock, hub):
    """What is not pinned is not even downloaded, and the sentence says what to do."""
    with pytest.raises(ModelMissingError, match=r"fetch it with `ml-server models fetch --config CONFIG --pin`"):
        fetch(WHISPER, config, lock, hub, pin=False)
    assert hub.calls == []


def test_a_laptop_fetches_without_pinning(config, lock, hub):
    """Where unpinned models may be used, they may be fetched; the lock stays as it is."""
    before = lock.read_text()
    standing = fetch(WHISPER, config.model_copy(update={"allow_unpinned": True}), lock, hub, pin=False)
    assert (standing.state, lock.read_text()) == (ModelState.UNPINNED, before)
    assert sorted(path.name for path in standing.folder.iterdir()) == LOADED


def test_a_damaged_file_is_fetched_again(config, lock, hub):
    """Only what is missing or altered travels once more, although the library believes that it has it."""
    folder = fetch(WHISPER, config, lock, hub, pin=True).folder
    (folder / "model.bin").resolve().write_bytes(b"weig")
    (folder / "config.json").unlink()
    assert fetch(WHISPER, config, lock, hub, pin=False).state is ModelState.OK
    assert hub.calls[-1] == (REVISION, LOADED, ["config.json", "model.bin"])


def test_what_comes_altered_is_not_used(config, lock, hub):
    """A hub that has other bytes under the pinned revision is not believed."""
    fetch(WHISPER, config, lock, hub, pin=True)
    hub.cache = hub.cache.with_name("other")
    hub.files["model.bin"] = b"Weights" + FILES["model.bin"][7:]
    with pytest.raises(ModelMissingError, match=r"model\.bin is altered"):
        fetch(WHISPER, config, lock, hub, pin=False)


def test_a_download_that_differs_from_what_the_hub_states_is_not_pinned(config, lock, hub):
    """Bytes that were altered on the way never become the lock's."""
    before = lock.read_text()
    hub.stated["model.bin"] = sha256(b"what was uploaded")
    with pytest.raises(ModelLoadError, match=r"model\.bin of example/tiny-whisper is not what the hub says it has"):
        fetch(WHISPER, config, lock, hub, pin=True)
    assert lock.read_text() == before


def test_a_folder_of_ones_own_can_be_pinned(config, lock, hub, tmp_path, monkeypatch):
    """`--pin` measures a local folder; no hub is asked."""
    folder = tmp_path / "mine"
    (folder / "plda").mkdir(parents=True)
    for name in ("config.yaml", "plda/plda.npz", "notes.md"):
        (folder / name).write_bytes(name.encode())
    wanted = Wanted(kind="diarizer", name=str(folder))
    with pytest.raises(ModelMissingError, match="not pinned"):
        fetch(wanted, config, lock, hub, pin=False)
    assert fetch(wanted, config, lock, hub, pin=True).state is ModelState.OK
    entry = read(lock).find("diarizer", str(folder))
    assert (entry.revision, sorted(entry.files)) == (None, ["config.yaml", "plda/plda.npz"])
    monkeypatch.setattr("deployments.models.store.go_offline", lambda: None)  # it is for a process's whole life
    assert resolve(str(folder), "diarizer", config) == folder
    assert hub.calls == []


@pytest.mark.parametrize(
    ("kind", "read", "unread"),
    [
        ("asr", "config.json model.bin tokenizer.json vocabulary.txt", "README.md model.safetensors generation.json"),
        ("aligner", "config.json preprocessor_config.json pytorch_model.bin vocab.json", ".gitattributes model.py"),
        ("aligner", "config.json model.safetensors", "pytorch_model.bin flax_model.msgpack tf_model.h5"),
        ("emotion", "config.json model.safetensors", "training_args.bin runs/a.json optimizer.pt onnx/config.json"),
        ("diarizer", "config.yaml embedding/pytorch_model.bin plda/plda.npz segmentation/pytorch_model.bin", "a.md"),
    ],
)
def test_only_what_loaders_read_is_needed(kind, read, unread):
    """No code, no weights for other programs; safetensors in place of pickles."""
    assert needed(kind, [*unread.split(), *read.split()]) == read.split()


def test_the_real_library_fetches_from_a_hub(config, lock):
    """The Hugging Face library itself, against a server that speaks its protocol: look up, download, find offline."""
    app = http_hub(FILES)
    with serving(app) as url:
        hub = HuggingFace(cache_dir=config.cache_dir, token=TOKEN, endpoint=url)
        folder = fetch(WHISPER, config, lock, hub, pin=True).folder
        assert {authorization for _, _, authorization in app.state.requests} == {f"Bearer {TOKEN}"}
        (folder / "model.bin").resolve().write_bytes(b"weig")
        assert fetch(WHISPER, config, lock, hub, pin=False).state is ModelState.OK
        fetched = [path.rpartition("/")[2] for method, path, _ in app.state.requests if method == "GET"]
    assert sorted(name for name in fetched if name in FILES) == sorted([*LOADED, "model.bin"])
    assert (folder / "model.bin").read_bytes() == FILES["model.bin"]
    assert hub.folder(REPOSITORY, REVISION) == folder
    assert hub.folder(REPOSITORY, LATER) is None
    assert TOKEN not in lock.read_text()


def test_the_real_library_goes_on_with_what_packages_brought(config, lock):
    """Plain files in place of the library's links, one of them altered: the hub's library finds and replaces them."""
    app = http_hub(FILES)
    with serving(app) as url:
        hub = HuggingFace(cache_dir=config.cache_dir, token=None, endpoint=url)
        fetch(WHISPER, config, lock, hub, pin=True)
        other = HuggingFace(cache_dir=config.cache_dir.with_name("other"), token=None, endpoint=url)
        folder = other.place(REPOSITORY, REVISION)
        folder.mkdir(parents=True)
        for name in LOADED:
            (folder / name).write_bytes(FILES[name] if name != "model.bin" else b"weig")
        assert other.folder(REPOSITORY, REVISION) == folder
        standing = fetch(WHISPER, config, lock, other, pin=False)
    assert (standing.state, standing.folder) == (ModelState.OK, folder)


@pytest.mark.parametrize(
    ("server", "words"),
    [
        ({"gated": True}, "accept them on the model's page, and name a token"),
        ({"status": 404}, "no such repository"),
        ({"status": 401}, "no such repository, or the token may not see it"),
        ({"status": 403}, "HTTP 403"),
        ({"status": 500}, "HTTP 500"),
        (None, "cannot be reached"),
    ],
)
def test_a_hub_that_refuses_is_told_in_words(config, lock, server, words):
    """What to do about it, without the token or an address."""
    with serving(http_hub(FILES, **(server or {}))) as url:
        endpoint = url if server is not None else f"http://127.0.0.1:{free_port()}"
        hub = HuggingFace(cache_dir=config.cache_dir, token=TOKEN, endpoint=endpoint)
        with pytest.raises(ModelLoadError) as refused:
            fetch(WHISPER, config, lock, hub, pin=True)
    assert words in str(refused.value)
    assert TOKEN not in str(refused.value)
    assert "127.0.0.1" not in str(refused.value)


def test_the_lock_reads_as_it_was_written(lock):
    """Nothing is lost between two pins, and the file says on top what it is."""
    before = read(lock)
    write(lock, before)
    assert read(lock) == before
    assert lock.read_text().startswith("# Which models the server uses")
    assert [path.name for path in lock.parent.iterdir()] == [lock.name]


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/../../b", "a\\b", "a//b", "./a"])
def test_the_lock_names_no_file_outside_a_model(name):
    """Digests are compared inside the model's folder only."""
    with pytest.raises(ValidationError, match="inside the model's folder"):
        LockedModel(kind="asr", name="a/b", files={name: {"sha256": "0" * 64, "size": 1}})


def test_the_lock_contradicts_itself_nowhere():
    """One entry per model, and no revision without digests."""
    entry = LockedModel(kind="asr", name="a/b")
    with pytest.raises(ValidationError, match="more than one entry for a/b"):
        Lock(models=(entry, entry))
    with pytest.raises(ValidationError, match="no digests"):
        LockedModel(kind="asr", name="a/b", revision=REVISION)
    with pytest.raises(ValidationError, match="revision"):
        LockedModel(kind="asr", name="a/b", revision="main")


def test_the_committed_lock_names_the_production_models():
    """Every kind of production model has an entry, so that `fetch --pin` has something to fill."""
    lock = read(default_path())
    assert {entry.kind for entry in lock.models} == {"asr", "aligner", "diarizer", "emotion"}
    assert all(bool(entry.revision) == entry.pinned for entry in lock.models)
    assert lock.find("diarizer", "pyannote/speaker-diarization-community-1").gated


def test_sizes_are_faster_whispers_own():
    """`large-v3` and its like mean what faster-whisper means by them."""
    source = Path(importlib.util.find_spec("faster_whisper").origin).with_name("utils.py").read_text()
    tables = [node.value for node in ast.parse(source).body if ast.unparse(node).startswith("_MODELS")]
    assert ast.literal_eval(tables[0]) == SIZES


def test_what_a_config_wants():
    """Engines that bring their models want none; others the one they name, or one per language, each once."""

    class Stage(BaseModel):
        engine: str
        model: str = "c/d"
        models: dict[str, str] = {}

    assert [wanted.name for wanted in Settings(profile="local").wanted_models] == ["Systran/faster-whisper-base"]
    stages = {
        "asr": Stage(engine="whisperx", model="large-v3"),
        "aligner": Stage(engine="ctc", models={"en": "e/f", "ko": "g/h", "xx": "e/f"}),
        "diarizer": Stage(engine="pyannote"),
        "emotion": Stage(engine="prosodic-lexical"),
    }
    found = [(wanted.kind, wanted.name) for wanted in wanted_by(stages)]
    assert found == [
        ("asr", "Systran/faster-whisper-large-v3"),
        ("aligner", "e/f"),
        ("aligner", "g/h"),
        ("diarizer", "c/d"),
    ]


def test_production_never_loads_what_is_not_pinned():
    """A production config that allows unpinned models does not start."""
    with pytest.raises(ValidationError, match="allow_unpinned"):
        Settings(profile="production", backend_url="https://b.example.com", models={"allow_unpinned": True})
    assert Settings(profile="local", models={"allow_unpinned": True}).models.allow_unpinned


def test_memory_lies_in_the_state_directory(tmp_path):
    """Unless the config names another place."""
    assert Settings(profile="local", state_dir=tmp_path).models.memory_dir == tmp_path
    other = Settings(profile="local", state_dir=tmp_path, models={"memory_dir": "/other"})
    assert other.models.memory_dir == Path("/other")


def test_the_commands_from_nothing_to_verified(inventory, hub, capsys):
    """Verify refuses, fetch without --pin refuses, with it fetches; then verify and list agree."""
    assert verify_models(inventory) == 1
    assert (
        f"{REPOSITORY} is missing: fetch it with `ml-server models fetch --config c --pin`" in capsys.readouterr().err
    )
    assert fetch_models(inventory, pin=False) == 1
    assert "--config c --pin" in capsys.readouterr().err
    list_models(inventory)
    assert capsys.readouterr().out.splitlines()[1].split() == [
        "asr",
        REPOSITORY,
        "not",
        "pinned",
        "?",
        "missing",
        "hub",
        "?",
    ]
    assert fetch_models(inventory, pin=True) == 0
    assert verify_models(inventory) == 0
    assert capsys.readouterr().err == ""
    list_models(inventory)
    assert capsys.readouterr().out.splitlines()[1].split() == [
        "asr",
        REPOSITORY,
        REVISION[:12],
        "7.01",
        "kB",
        "ok",
        "hub",
        "mit",
    ]


def test_verify_names_the_altered_file_and_the_command(inventory, capsys):
    """Exit code 1, the model, the file, and what to type."""
    fetch_models(inventory, pin=True)
    folder = snapshot(inventory.config.cache_dir, REPOSITORY, REVISION)
    (folder / "model.bin").resolve().write_bytes(b"weig")
    capsys.readouterr()
    assert verify_models(inventory) == 1
    assert capsys.readouterr().err == (
        f"the asr model {REPOSITORY} is damaged (model.bin is altered, with 4 bytes in place of 7000):"
        " fetch it with `ml-server models fetch --config c`\n"
    )


def test_verify_refuses_what_is_not_pinned_unless_it_may_be_used(inventory, config, capsys):
    """As the server would."""
    laptop = ModelInventory(
        wanted=inventory.wanted,
        config=config.model_copy(update={"allow_unpinned": True}),
        lock_path=inventory.lock_path,
        command=inventory.command,
        hub=inventory.hub,
    )
    assert fetch_models(laptop, pin=False) == 0
    assert verify_models(laptop) == 0
    assert "allow_unpinned lets it be used" in capsys.readouterr().out
    assert verify_models(inventory) == 1
    assert "is not pinned" in capsys.readouterr().err


def test_one_model_that_fails_keeps_no_other_back(config, lock, hub, capsys):
    """Each model is tried; the exit code tells that not all could be had."""
    gone = Wanted(kind="emotion", name="neither folder nor repository")
    inventory = ModelInventory(wanted=[gone, WHISPER], config=config, lock_path=lock, command="fetch", hub=hub)
    assert fetch_models(inventory, pin=True) == 1
    assert "neither a folder nor the name of a repository" in capsys.readouterr().err
    assert read(lock).find("asr", REPOSITORY).pinned


def test_the_commands_as_they_are_typed(tmp_path):
    """The transcriber's model is told of, here a folder; a file that is no Serve config is named."""
    config = tmp_path / "serve.yaml"
    args = {"profile": "local", "transcriber": {"model": str(ASR)}, "models": {"allow_unpinned": True}}
    config.write_text(yaml.safe_dump({"applications": [{"args": args}]}))
    for command in ("fetch", "verify", "list"):
        done = CliRunner().invoke(main, ["models", command, "--config", str(config)])
        assert done.exit_code == 0, done.output
        assert str(ASR) in done.output
    done = CliRunner().invoke(main, ["models", "verify", "--config", str(ROOT / "README.md")])
    assert done.exit_code == 1
    assert "README.md is no Serve config" in done.output
