"""The demo with real programs, a real backend and real ffmpeg; only the ML Server is the fake one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from serve_app.cli import demo
from serve_app.cli.child_process import ChildProcess
from serve_app.cli.samples import conversation
from tests.support.process import ROOT
from tests.support.screen import Screen

if TYPE_CHECKING:
    from collections.abc import Callable


def fake_server(*more: str) -> Callable[[int, Path], list[str]]:
    """The fake, started with the arguments that `ml-server up` would get."""

    def command(port: int, state_dir: Path) -> list[str]:
        arguments = demo.up_command("configs/local.yaml", port, state_dir)[3:]
        return [sys.executable, "-m", "tests.support.fake_ml_server", *arguments, *more]

    return command


def programs_about(folder: Path) -> list[str]:
    """Command lines of living processes that were started with this folder in arguments or environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes()
            if str(folder).encode() in words + (process / "environ").read_bytes():
                found.append(words.replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found


@pytest.fixture
def marked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state folder whose name all programs of the demo carry in their environment."""
    monkeypatch.setenv("DEMO_TEST_FOLDER", str(tmp_path))
    monkeypatch.chdir(ROOT)
    return tmp_path


def test_the_demo_shows_everything_and_leaves_nothing(marked: Path) -> None:
    """Exit 0; progress from the callbacks, reference beside transcript, JSON on disk; every program is gone."""
    console = Screen(width=140)
    script = json.dumps({"twice": True, "unhealthy_answers": 2})
    code = demo.run_demo(
        state_dir=marked,
        samples=[conversation()],
        server_command=fake_server("--script", script),
        console=console,
    )
    output = console.text
    assert code == 0, output
    assert "conversation.mp4  100 %  Done" in output
    assert "fake-1" in output
    assert "Sheila And I'm Sheila in Texas, originally from Chicago." in output
    assert "happy 70%" in output
    assert "210 Hz" in output
    path = Path(output.partition("Full result: ")[2].strip())
    assert json.loads(path.read_text())["metadata"]["filename"] == "conversation.mp4"
    assert programs_about(marked) == []


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--say-and-exit", "no GPU was found"), "The server ended while it started (exit code 1)."),
        (
            ("--script", json.dumps({"error": ["TRANSCRIPTION_ERROR", "Speech recognition failed"]})),
            "Speech recognition failed [TRANSCRIPTION_ERROR]",
        ),
    ],
)
def test_a_failure_gives_the_reason_and_the_servers_last_words(
    marked: Path, arguments: tuple[str, ...], reason: str
) -> None:
    """Exit 1, the reason in a sentence, the tail of the log, and no program left."""
    console = Screen(width=140)
    code = demo.run_demo(
        state_dir=marked, samples=[conversation()], server_command=fake_server(*arguments), console=console
    )
    output = console.text
    assert code == 1
    assert reason in output
    assert "server.log" in output
    assert arguments[0] != "--say-and-exit" or "no GPU was found" in output
    assert programs_about(marked) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_stops_all_that_it_started(marked: Path, number: signal.Signals) -> None:
    """Ctrl-C or SIGTERM in the middle of a job: exit 130, and no program is left."""
    program = f"""
        import json, sys
        from pathlib import Path
        from serve_app.cli import demo
        from serve_app.cli.samples import conversation
        from tests.integration.light.test_demo import fake_server
        command = fake_server("--script", json.dumps({{"stop_at": 45}}))
        sys.exit(demo.run_demo(state_dir=Path({str(marked)!r}), samples=[conversation()], server_command=command))
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout is not None
        seen = ""
        while "45 %" not in seen:
            line = process.stdout.readline()
            assert line, seen
            seen += line
        process.send_signal(number)
        rest = process.stdout.read()
    assert process.returncode == demo.EXIT_INTERRUPTED, rest
    assert "nothing is left running" in rest
    assert programs_about(marked) == []


def test_a_program_that_ignores_sigterm_is_killed_with_its_children(tmp_path: Path) -> None:
    """What does not end in time, and what it started, in other process groups too, is ended by force."""
    program = """
        import signal, subprocess, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        subprocess.Popen(["sleep", "600.25"])
        subprocess.Popen(["sleep", "600.25"], process_group=0)
        print("ready", flush=True)
        time.sleep(600)
    """
    log = tmp_path / "log"
    child = ChildProcess(
        [sys.executable, "-c", textwrap.dedent(program)],
        log_path=log,
        environment={"MARK": str(tmp_path)},
        stop_timeout_s=0.2,
    )
    with child:
        while child.tail() != "ready":
            assert child.exit_code is None
            time.sleep(0.01)
        assert len(programs_about(tmp_path)) == 3
    deadline_s = time.monotonic() + 5
    while programs_about(tmp_path) and time.monotonic() < deadline_s:  # the grandchild's parent is now init
        time.sleep(0.01)
    assert programs_about(tmp_path) == []


def test_old_runs_are_removed(tmp_path: Path) -> None:
    """Only the newest runs stay, this one among them."""
    for day in range(10, 18):
        (tmp_path / f"202001{day}-000000-1").mkdir()
    folder = demo.new_run_folder(tmp_path)
    kept = sorted(path.name for path in tmp_path.iterdir())
    assert kept == [*(f"202001{day}-000000-1" for day in range(14, 18)), folder.name]
    assert os.access(folder / "server", os.W_OK)
