"""Examples of the documents that need no server: an engine, a memory in a database, backup and restore."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import text

from ml_server_client import Callback, Receiver
from serve_app.storage.database import Database
from tests.support.jobs import new_job
from tests.support.needs import need
from tests.support.pages import ROOT, page
from tests.support.stores import stores

HEARS = """
import asyncio
import numpy as np
from deployments.emotion.config import EmotionConfig
from deployments.emotion.deployment import EmotionAnalyzer
from deployments.models.config import ModelsConfig
from deployments.types import SAMPLE_RATE_HZ, Segment
from serve_app.settings import Settings

settings = Settings(profile="local", emotion={"engine": "loudness"})
assert {model.kind for model in settings.wanted_models} == {"asr"}, settings.wanted_models
wave = np.sin(np.arange(2 * SAMPLE_RATE_HZ) / 8)
sound = (np.concatenate([0.9 * wave, 0.01 * wave]) * 32767).astype(np.int16)
fields = {name: None for name in Segment.__dataclass_fields__} | {"speaker": 0, "words": ()}
segments = [Segment(**fields | {"start_s": at, "end_s": at + 2.0}) for at in (0.0, 2.0)]

async def main():
    stage = EmotionAnalyzer.func_or_class(settings.emotion, settings.models)
    return await stage.analyze(sound, None, segments, "j")

print(settings.model_version, *(emotion.label for emotion in asyncio.run(main())))
"""


def test_the_example_engine_is_added_as_the_page_says(tmp_path):
    """docs/engines.md: the module and the patch, in a copy of the tree; then the stage judges sound with it."""
    for folder in ("serve_app", "deployments", "configs"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    text = page("docs/engines.md")
    module = text.block("# deployments/emotion/loudness.py\n")
    (tmp_path / "deployments/emotion/loudness.py").write_text(module.content.partition("\n")[2])
    [patch] = [block for block in text.blocks if block.language == "diff"]
    subprocess.run(["git", "apply", "--verbose"], cwd=tmp_path, input=patch.content, text=True, check=True)
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    heard = subprocess.run(
        [sys.executable, "-c", HEARS], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert heard.returncode == 0, heard.stderr[-2000:]
    assert re.fullmatch(r"\S+\+loudness-1 angry neutral", heard.stdout.strip())
    ruff = [sys.executable, "-m", "ruff", "check", "--quiet", "deployments"]
    assert subprocess.run(ruff, cwd=tmp_path, check=False).returncode == 0


@pytest.fixture
def memory_block() -> str:
    return page("docs/integration.md").block("# memory.py\n").content


def test_the_memory_in_a_database_works(memory_block, tmp_path):
    """The guide's memory: duplicates and late ones over a restart; a handler that fails takes its rows back."""
    scope: dict[str, object] = {}
    exec(compile(memory_block, "memory.py", "exec"), scope)  # noqa: S102 - it is the guide's
    heard: list[int] = []
    fails = [True]

    async def handle(callback: Callback) -> None:
        if callback.progress == 3 and fails:
            fails.pop()
            raise OSError
        heard.append(callback.progress)

    def receive(number: int) -> str:
        """In a process of its own, as it were."""
        db = sqlite3.connect(tmp_path / "backend.db")
        body = json.dumps({"job_id": "j", "status": "processing", "progress": number, "message": ""}).encode()
        headers = {"webhook-id": f"m{number}", "x-ml-sequence": str(number)}
        try:
            receiver = Receiver(handle, secrets=(), memory=scope["DatabaseMemory"](db))  # type: ignore[operator]
            return asyncio.run(receiver.receive(body, headers))
        finally:
            db.close()

    assert [receive(number) for number in (2, 2, 1)] == ["applied", "duplicate", "stale"]
    with pytest.raises(OSError):  # noqa: PT011 - the handler's own
        receive(3)
    assert receive(3) == "applied"
    assert heard == [2, 3]


def test_postgresql_takes_the_same_statements(memory_block, postgresql_url):
    """As the guide says of its memory."""
    statements = [
        "".join(re.findall(r'"([^"]*)"', found)) for found in re.findall(r'execute\(\s*((?:"[^"]*"\s*)+)', memory_block)
    ]
    assert len(statements) == 4
    database = Database(postgresql_url)
    names = ({}, {}, {"a": "m1"}, {"a": "j", "b": 7})
    with database.write() as db:
        for count in (1, 0):
            for statement, values in zip(statements, names, strict=True):
                places = iter(values)
                rows = db.execute(text(re.sub(r"\?", lambda _, places=places: f":{next(places)}", statement)), values)
                assert not values or len(rows.fetchall()) == count
    database.close()


def commands_of(start: str) -> str:
    return page("docs/operations.md").block(start).content


def run(script: str, **environment: str) -> None:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def known(url: str) -> set[str]:
    database = Database(url)
    database.create()
    try:
        with database.read() as db:
            return set(db.execute(text("SELECT job_id FROM jobs")).scalars())
    finally:
        database.close()


def backed_up_and_restored(url: str, backup: str, restore: str, **environment: str) -> None:
    """A job, the backup beside an open server, another job; then the restore."""
    database = Database(url)
    database.create()
    store = stores(database, queue_limit=9, running_limit=9)
    store.jobs.submit_job(new_job("before"))
    run(backup, **environment)
    store.jobs.submit_job(new_job("after"))
    database.close()
    assert known(url) == {"before", "after"}
    run(restore, **environment)
    assert known(url) == {"before"}


def test_sqlite_comes_back_from_its_backup(tmp_path):
    """docs/operations.md: the copy beside a running server, and the way back."""
    need(shutil.which("sqlite3"), "no sqlite3 program")
    state = tmp_path / ".local/state/ml-server"
    state.mkdir(parents=True)
    backup, restore = (
        commands_of(start).replace("/backup/", f"{tmp_path}/")
        for start in ("sqlite3 ", "rm -f ~/.local/state/ml-server/")
    )
    backed_up_and_restored(f"sqlite:///{state / 'ml-server.db'}", backup, restore, HOME=str(tmp_path))


def test_postgresql_comes_back_from_its_backup(tmp_path, postgresql_url):
    """The same with pg_dump and pg_restore, and the URL as the server takes it."""
    dump, restore = commands_of("pg_dump ").replace("/backup/", f"{tmp_path}/").splitlines()
    backed_up_and_restored(postgresql_url, dump, restore, ML_SERVER_DATABASE_URL=postgresql_url)


def test_ten_lines_are_ten_lines():
    """The guide's promise, counted; comments and empty lines aside."""
    lines = page("docs/integration.md").block("# backend.py\n").content.splitlines()
    assert len([line for line in lines if line and not line.startswith("#")]) == 10
    assert Path(ROOT / "examples/backend/client_app.py").exists()
