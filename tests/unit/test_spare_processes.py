"""Processes that are ready for jobs to come: counted where they are, and started as many as are missing."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
from ray.runtime_env import RuntimeEnv

from serve_app.orchestration import job_actor, spare_processes
from serve_app.orchestration.spare_processes import (
    HOOK,
    HOOK_VARIABLE,
    RELEASE_VARIABLE,
    SpareProcesses,
    environment,
    release_of,
)
from serve_app.settings import Settings

RELEASE = "release-1"
FITTING = f"PATH=/bin\0{HOOK_VARIABLE}={HOOK}\0{RELEASE_VARIABLE}={RELEASE}\0"


@pytest.fixture
def proc(tmp_path, monkeypatch):
    """A folder in place of /proc, and a function that adds a process to it."""
    monkeypatch.setattr(spare_processes, "PROC", tmp_path)

    def add(pid: int, title: str, *, parent: int | None = None, environ: str = FITTING) -> None:
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
    monkeypatch.setattr(spare_processes, "_prestart", lambda count, _: calls.append(count))
    return calls


@pytest.fixture
def clock(monkeypatch):
    """The time in seconds, which the test moves."""
    now = SimpleNamespace(s=100.0)
    monkeypatch.setattr(spare_processes.time, "monotonic", lambda: now.s)
    return now


def test_as_many_as_are_missing_are_started(proc, asked):
    """Idle and starting ones count; other actors, other nodes' and other programs' processes do not."""
    spares = SpareProcesses(4, RELEASE)
    assert spares.count() == (0, 0)
    proc(10, "ray::IDLE\0\0")
    proc(11, "python\0default_worker.py\0--node-ip\0")
    proc(12, "ray::JobActor(a)\0")
    proc(13, "ray::IDLE\0", parent=1)
    proc(14, "ray::IDLE\0", environ="PATH=/bin\0")
    proc(17, "ray::IDLE\0", environ=FITTING.replace(RELEASE, "release-10"))
    assert spares.count() == (1, 1)
    spares.fill()
    assert asked == [2]
    proc(15, "ray::IDLE\0")
    proc(16, "ray::IDLE\0")
    spares.fill()
    assert (asked, spares.count()) == ([2], (3, 1))


def test_what_was_asked_for_is_not_asked_for_again(proc, asked, clock):
    """Its process takes a while to appear; each that ends unused lets more time pass, one that was used none."""
    spares = SpareProcesses(1, RELEASE)
    proc(10, "ray::IDLE\0")
    title = spare_processes.PROC / "10" / "cmdline"
    for waits_s in (spare_processes.FIRST_WAIT_S, 2 * spare_processes.FIRST_WAIT_S):
        title.write_text("ray::IDLE\0")
        spares.fill()
        title.write_text("")
        spares.fill()
        clock.s += waits_s - 1
        spares.fill()
        clock.s += 1.5
    assert asked == [1, 1]
    spares.fill()
    spares.was_used()
    spares.fill()
    assert asked == [1, 1, 1, 1]


def test_where_none_ever_appears_none_is_asked_for_any_more(proc, asked, clock):
    """As where another program starts Ray's processes: each would be one more."""
    spares = SpareProcesses(1, RELEASE)
    for _ in range(10):
        spares.fill()
        clock.s += spare_processes.LONGEST_WAIT_S
    assert asked == [1] * spare_processes.MOST_FRUITLESS


def test_none_are_wanted_where_the_setting_says_so(proc, asked):
    """With 0 nothing is started, and none is used."""
    proc(10, "ray::IDLE\0")
    spares = SpareProcesses(0, RELEASE)
    spares.fill()
    assert (asked, spares.count()) == ([], (0, 0))


def test_a_ray_that_does_not_take_the_call(proc, monkeypatch, caplog, clock):
    """Jobs go on, later; the log has the reason; a raylet that was only busy is asked again."""
    calls = []

    def refused(count, _):
        calls.append(count)
        raise RuntimeError("unknown method")

    monkeypatch.setattr(spare_processes, "_prestart", refused)
    spares = SpareProcesses(1, RELEASE)
    for _ in range(9):
        spares.fill()
        clock.s += spare_processes.LONGEST_WAIT_S
    assert calls == [1] * spare_processes.MOST_FRUITLESS
    assert {record.message for record in caplog.records} == {"no process was started ahead: jobs start later"}


def test_job_actors_have_the_caller_s_environment_and_the_hook(monkeypatch):
    """A process fits an actor only if both have the same environment."""
    own = RuntimeEnv(env_vars={"A": "1"}, working_dir="https://a.example/b.zip")
    monkeypatch.setattr(spare_processes.ray, "get_runtime_context", lambda: SimpleNamespace(runtime_env=own))
    found = environment(RELEASE)
    assert found["env_vars"] == {"A": "1", HOOK_VARIABLE: HOOK, RELEASE_VARIABLE: RELEASE}
    assert found["working_dir"] == own["working_dir"]
    assert own.env_vars() == {"A": "1"}


def test_other_settings_and_other_code_are_another_release(monkeypatch, tmp_path):
    """A process that has imported the code of before fits no actor of after."""
    monkeypatch.setattr(spare_processes.serve_app, "__path__", [str(tmp_path)])
    monkeypatch.setattr(spare_processes.deployments, "__path__", [str(tmp_path)])
    module = tmp_path / "module.py"
    module.touch()
    os.utime(module, (1000, 1000))
    before = release_of(SimpleNamespace(identity="a"))
    assert before == release_of(SimpleNamespace(identity="a")) != release_of(SimpleNamespace(identity="b"))
    os.utime(module, (2000, 2000))
    assert before != release_of(SimpleNamespace(identity="a"))


@pytest.mark.parametrize(("idle", "in_use", "nodes", "taken"), [(1, 9, 1, True), (0, 0, 1, False), (1, 5, 2, False)])
def test_a_spare_draws_a_job_to_its_node(monkeypatch, idle, in_use, nodes, taken):
    """Up to the node's share of the running jobs: they are not all to end with one node."""
    actors = job_actor.JobActors(Settings(profile="local"), None)
    used = []
    actors._spares = SimpleNamespace(count=lambda: (idle, in_use), was_used=lambda: used.append(1))
    monkeypatch.setattr(job_actor.placement, "nodes_with_cores", lambda: nodes)
    monkeypatch.setattr(job_actor.ray, "get_runtime_context", lambda: SimpleNamespace(get_node_id=lambda: "here"))
    assert actors._node_with_spare() == ("here" if taken else None)
    assert bool(used) is taken


def test_the_hook_names_a_function_that_raises_nothing(monkeypatch, capfd):
    """Ray finds it by its name; where the import fails, the actor's start says so: Ray would repeat the hook.

    A system that forbids niceness keeps nothing from being imported.
    """

    def broken(name):
        raise ImportError(name)

    def forbidden(_):
        raise PermissionError

    monkeypatch.setattr(job_actor, "import_module", broken)
    module, _, name = HOOK.rpartition(".")
    assert (module, getattr(job_actor, name)) == (job_actor.__name__, job_actor.prepare_process)
    monkeypatch.setattr(job_actor.os, "nice", forbidden)
    job_actor.prepare_process()
    assert "ImportError: serve_app.orchestration.job_runner" in capfd.readouterr().err


@pytest.mark.skipif(sys.platform != "linux", reason="niceness is a thread's on Linux alone")
@pytest.mark.parametrize(("priority", "expected"), [("idle", [15, 5, 5]), ("fair", [5, 0, 0])])
def test_a_job_actor_is_less_nice_at_work_than_while_it_loads(priority, expected):
    """It imports with niceness 15, and has 5 when it writes, in the threads, too, that it starts then.

    Where computing has an ordinary priority, it is above that all the same.
    """
    program = """
import os, threading
from unittest.mock import Mock
from serve_app.orchestration import job_actor
def told():
    print(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
def import_module(name):
    told()
    return Mock()
job_actor.LOADED_AHEAD = ()
job_actor.import_module = import_module
job_actor.prepare_process()
told()
thread = threading.Thread(target=told)
thread.start()
thread.join()
"""
    environment = os.environ | {"ML_SERVER_COMPUTE_PRIORITY": priority}
    told = subprocess.check_output([sys.executable, "-c", program], text=True, env=environment)
    ours = os.getpriority(os.PRIO_PROCESS, 0)
    assert [int(each) for each in told.split()] == [min(ours + more, 19) for more in expected]
