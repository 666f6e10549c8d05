"""Processes that are ready for jobs to come: counted where they are, and started as many as are missing."""

import os
from types import SimpleNamespace

import pytest
from ray.runtime_env import RuntimeEnv

from serve_app.orchestration import job_actor, spare_processes
from serve_app.orchestration.spare_processes import HOOK, HOOK_VARIABLE, SpareProcesses, environment

WITH_HOOK = f"PATH=/bin\0{HOOK_VARIABLE}={HOOK}\0"


@pytest.fixture
def proc(tmp_path, monkeypatch):
    """A folder in place of /proc, and a function that adds a process to it."""
    monkeypatch.setattr(spare_processes, "PROC", tmp_path)

    def add(pid: int, title: str, *, parent: int | None = None, environ: str = WITH_HOOK) -> None:
        folder = tmp_path / str(pid)
        folder.mkdir()
        parent = os.getppid() if parent is None else parent
        folder.joinpath("stat").write_text(f"{pid} (ray::IDLE) (x)) S {parent} 1 1")
        folder.joinpath("environ").write_text(environ)
        folder.joinpath("cmdline").write_text(title)

    tmp_path.joinpath("meminfo").touch()
    return add


@pytest.fixture
def asked(monkeypatch):
    """How many were asked for, call by call."""
    calls = []
    monkeypatch.setattr(spare_processes, "_prestart", calls.append)
    return calls


def test_as_many_as_are_missing_are_started(proc, asked):
    """Idle and starting ones count; other actors, other nodes' and other programs' processes do not."""
    spares = SpareProcesses(4)
    assert spares.idle() == 0
    proc(10, "ray::IDLE\0\0")
    proc(11, "python\0default_worker.py\0--node-ip\0")
    proc(12, "ray::JobActor(a)\0")
    proc(13, "ray::IDLE\0", parent=1)
    proc(14, "ray::IDLE\0", environ="PATH=/bin\0")
    assert spares.idle() == 1
    spares.fill()
    assert asked == [2]
    proc(15, "ray::IDLE\0")
    proc(16, "ray::IDLE\0")
    spares.fill()
    assert (asked, spares.idle()) == ([2], 3)


def test_what_was_asked_for_is_not_asked_for_again(proc, asked, monkeypatch):
    """Its process takes a while to appear; one that never comes is asked for again, and so is one that was used."""
    now_s = [100.0]
    monkeypatch.setattr(spare_processes.time, "monotonic", lambda: now_s[0])
    spares = SpareProcesses(1)
    spares.fill()
    now_s[0] += spare_processes.START_S - 1
    spares.fill()
    assert asked == [1]
    now_s[0] += 2
    spares.fill()
    assert asked == [1, 1]
    proc(10, "ray::IDLE\0")
    spares.fill()
    (spare_processes.PROC / "10" / "cmdline").write_text("ray::JobActor(a)\0")
    spares.fill()
    assert asked == [1, 1, 1]


def test_none_are_wanted_where_the_setting_says_so(proc, asked):
    """With 0 nothing is started, and none is used."""
    proc(10, "ray::IDLE\0")
    spares = SpareProcesses(0)
    spares.fill()
    assert (asked, spares.idle()) == ([], 0)


def test_a_ray_that_does_not_take_the_call_is_asked_once(proc, monkeypatch, caplog):
    """Jobs go on, later; the log has the reason, once."""
    calls = []

    def refused(count):
        calls.append(count)
        raise RuntimeError("unknown method")

    monkeypatch.setattr(spare_processes, "_prestart", refused)
    spares = SpareProcesses(1)
    for _ in range(3):
        spares.fill()
    assert calls == [1]
    assert [record.message for record in caplog.records] == ["no processes are started ahead: jobs start later"]


def test_job_actors_have_the_caller_s_environment_and_the_hook(monkeypatch):
    """A process fits an actor only if both have the same environment."""
    own = RuntimeEnv(env_vars={"A": "1"}, working_dir="https://a.example/b.zip")
    monkeypatch.setattr(spare_processes.ray, "get_runtime_context", lambda: SimpleNamespace(runtime_env=own))
    found = environment()
    assert found["env_vars"] == {"A": "1", HOOK_VARIABLE: HOOK}
    assert found["working_dir"] == own["working_dir"]
    assert own.env_vars() == {"A": "1"}


def test_the_hook_names_a_function_that_raises_nothing(monkeypatch):
    """Ray finds it by its name; where the import fails, the actor's start says so: Ray would repeat the hook."""
    nice = []
    monkeypatch.setattr(job_actor.os, "setpriority", lambda *values: nice.append(values))

    def broken(name):
        raise ImportError(name)

    monkeypatch.setattr(job_actor, "import_module", broken)
    module, _, name = HOOK.rpartition(".")
    assert (module, getattr(job_actor, name)) == (job_actor.__name__, job_actor.prepare_process)
    job_actor.prepare_process()
    assert nice == [(os.PRIO_PROCESS, 0, job_actor.NICENESS)]
