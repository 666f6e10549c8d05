from __future__ import annotations

import json
import re

import pytest
import webvtt
from click.testing import CliRunner
from fastapi.testclient import TestClient

from serve_app.cli.main import main
from serve_app.exports.formats import MEDIA_TYPES
from serve_app.jobs.job import Outcome
from serve_app.settings import Settings
from serve_app.storage.database import Database
from tests.support.edge import edge as edge_over
from tests.support.fake_ml_server import result_for
from tests.support.jobs import BROKEN, begun, new_job
from tests.support.live_server import serving
from tests.support.stores import stores

RESULT = json.dumps(result_for("https://v/1.mp4")).encode()
DONE = Outcome(result=RESULT)


@pytest.fixture
def app(tmp_path):
    """The edge over a store with a job that is done, one that failed and one that waits."""
    database = Database(f"sqlite:///{tmp_path / 'jobs.db'}")
    database.create()
    store = stores(database, queue_limit=10, running_limit=10)
    for job_id, outcome in (("a:b", DONE), ("failed", BROKEN), ("waiting", None)):
        store.jobs.submit_job(new_job(job_id))
        if outcome:
            store.attempts.finish_job(begun(store, job_id), outcome)
    yield edge_over(Settings(profile="local"), database, store)
    database.close()


def get(app, job_id="a:b", **query):
    return TestClient(app).get(f"/api/upload-video/jobs/{job_id}/export", params=query)


@pytest.mark.parametrize(("name", "media_type"), MEDIA_TYPES.items())
def test_a_file_says_what_it_is(app, name, media_type):
    """Its type, a file name that every system takes, and that it is to be saved and not shown."""
    answer = get(app, format=name)
    assert answer.status_code == 200
    kind = f"{media_type}; charset=utf-8" if media_type.startswith("text/") else media_type
    assert answer.headers["content-type"] == kind
    assert answer.headers["content-disposition"] == f'attachment; filename="a_b.{name}"'
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "hello" in answer.text or name == "rttm"


def test_the_options_reach_the_file(app):
    """SubRip without a format; JSON is the result as delivered; speakers and lines as asked for."""
    assert get(app).text.startswith("1\n00:00:06,700 --> 00:00:07,700\nSPEAKER_00: Hello there\n")
    assert get(app, format="json").content == RESULT
    assert "SPEAKER_00" not in get(app, speakers="false").text
    narrow = get(app, line_length=20, lines_per_cue=1).text
    assert "SPEAKER_00: Hello\n" in narrow
    assert len(webvtt.WebVTT.from_string(get(app, format="vtt").text, strict=True).captions) == 2


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"format": "docx"}, "format"),
        ({"format": "SRT"}, "format"),
        ({"format": ""}, "format"),
        ({"line_length": 19}, "line_length"),
        ({"line_length": 201}, "line_length"),
        ({"lines_per_cue": 0}, "lines_per_cue"),
        ({"lines_per_cue": "two"}, "lines_per_cue"),
        ({"speakers": "all"}, "speakers"),
        ({"warnings": "de"}, "warnings"),
    ],
    ids=str,
)
def test_wrong_options_are_named(app, query, field):
    """400 in the contract's form."""
    answer = get(app, **query)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "INVALID_REQUEST")
    assert answer.json()["message"].startswith(f"{field} is invalid")


def test_a_job_without_a_result_has_no_file(app):
    """404 for nobody's job, 409 for one that waits or failed."""
    for job_id, status, code in [
        ("unknown", 404, "JOB_NOT_FOUND"),
        ("waiting", 409, "JOB_CONFLICT"),
        ("failed", 409, "JOB_CONFLICT"),
    ]:
        answer = get(app, job_id)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
        assert answer.json()["error"]["job_id"] == job_id


@pytest.fixture
def url(app):
    with serving(app) as url:
        yield url


def ask(url, *words):
    answer = CliRunner().invoke(main, ["export", *words, "--server", url], env={"LC_ALL": "C"})
    return answer.exit_code, answer.output


def test_the_command_writes_the_same_file(app, url, tmp_path):
    """To stdout or into a file, to the byte."""
    assert ask(url, "a:b") == (0, get(app).text)
    narrow = ["--line-length", "20", "--lines-per-cue", "1", "--no-speakers"]
    expected = get(app, format="vtt", line_length=20, lines_per_cue=1, speakers=False, warnings="en")
    assert ask(url, "a:b", "--format", "vtt", *narrow) == (0, expected.text)
    with_warnings = ask(url, "a:b", "--format", "txt")
    assert with_warnings == (0, get(app, format="txt", warnings="en").text)
    assert with_warnings[1].startswith("[this is a fake]\n\nSPEAKER_00: ")
    assert ask(url, "a:b", "--format", "txt", "--no-warnings") == (0, get(app, format="txt").text)
    assert ask(url, "a:b", "--format", "json", "--output", str(tmp_path / "a.json")) == (0, "")
    assert (tmp_path / "a.json").read_bytes() == RESULT


def test_the_command_says_what_is_wrong(url, tmp_path):
    """A refusal is the server's own sentence; a place that cannot be written is named."""
    code, text = ask(url, "waiting")
    assert (code, "This job has no result" in text, "[JOB_CONFLICT]" in text) == (1, True, True)
    code, text = ask(url, "a:b", "--output", str(tmp_path / "nowhere" / "a.srt"))
    assert (code, "cannot be written: No such file or directory" in " ".join(text.split())) == (1, True)
    assert ask(url, "a:b", "--format", "docx")[0] == 2
    assert ask("http://127.0.0.1:1", "a:b")[0] == 1


def test_the_terminal_gets_no_control_characters(app, url, monkeypatch):
    """A transcript, which JSON gives as it is, does not move the cursor of whoever looks at it."""
    monkeypatch.setattr("serve_app.cli.client.ServerClient.export", lambda *_: b'"\x1b[2J\xc2\x9b2J"\nnext\n')
    monkeypatch.setattr("serve_app.cli.jobs.sys", Terminal())
    assert ask(url, "a:b", "--format", "json") == (0, '" [2J 2J"\nnext\n')


def named(url, *words):
    answer = CliRunner().invoke(main, [*words, "--server", url], env={"LC_ALL": "C", "COLUMNS": "200"})
    return answer.exit_code, " ".join(answer.output.split())


def test_the_command_names_the_speakers(app, url):
    """`speakers` gives names, replaces, prints and clears them; exports, `status` and `jobs show` have them."""
    assert named(url, "speakers", "a:b") == (0, "Speaker Name SPEAKER_00 - SPEAKER_01 -")
    both = ["SPEAKER_00=김철수", "SPEAKER_01=a=b"]
    assert named(url, "speakers", "a:b", *both) == (0, "Speaker Name SPEAKER_00 김철수 SPEAKER_01 a=b")
    assert get(app).text.startswith("1\n00:00:06,700 --> 00:00:07,700\n김철수: Hello there\n")
    assert get(app, format="json").content == RESULT
    told = named(url, "status", "a:b")[1]
    assert "Speakers: SPEAKER_00 김철수, SPEAKER_01 a=b" in told
    assert re.search("7.30 │ 김철수 +│ Hello there", told)
    assert "Speakers: SPEAKER_00 김철수, SPEAKER_01 a=b" in named(url, "jobs", "show", "a:b")[1]
    assert named(url, "speakers", "a:b", both[1]) == (0, "Speaker Name SPEAKER_00 - SPEAKER_01 a=b")
    assert named(url, "speakers", "a:b", "--clear") == (0, "Speaker Name SPEAKER_00 - SPEAKER_01 -")


@pytest.mark.parametrize(("words", "code", "sentence"), [
    (["a:b", "SPEAKER_07=x"], 1, "no speaker SPEAKER_07: it has SPEAKER_00, SPEAKER_01"),
    (["waiting"], 1, "This job has no result"), (["failed", "A=b"], 1, "This job has no result"),
    (["a:b", "SPEAKER_00"], 2, "write SPEAKER_00=NAME"), (["a:b", "--clear", "A=b"], 2, "give none with it"),
    (["a:b", "A=1", "A=2"], 2, "A has two names"),
])  # fmt: skip
def test_the_command_says_what_is_wrong_with_names(url, words, code, sentence):
    """The server's own sentence, or the command's."""
    answered, text = named(url, "speakers", *words)
    assert (answered, sentence in text) == (code, True), text


class Terminal:
    """A `sys` whose stdout is a terminal."""

    stdout = property(lambda self: self)

    def isatty(self) -> bool:
        return True
