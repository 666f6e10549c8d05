"""What processes of the release before (040e870) call and unpickle while `serve deploy` replaces them (D14).

To be removed, with the aliases that it holds, by the release after this one. `tests/integration/test_upgrade.py` does
the whole upgrade.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
from types import SimpleNamespace

import pytest
from ray.exceptions import ActorDiedError

from deployments.aligner.deployment import Aligner
from deployments.diarizer.deployment import Diarizer
from deployments.emotion.deployment import EmotionAnalyzer
from deployments.extraction.deployment import AudioExtractor
from deployments.prosody.deployment import ProsodyAnalyzer
from deployments.speech_detector.deployment import SpeechDetector
from deployments.transcriber.deployment import Transcriber
from serve_app.jobs import actor as old_actor
from serve_app.orchestration.job_actor import NAME_BEFORE, JobActor, remote_method
from serve_app.orchestration.manager import JobManager
from serve_app.orchestration.manager_client import ManagerClient
from tests.support.managers import settings_in

CALLED = (
    (JobManager, {"poke": [], "look": [], "leave": [], "drain": [], "discard": ["job_id"]}),
    (JobActor, {"ping": [], "stage_progress": ["step", "fraction"], "leave": [], "cancel": []}),
    # Ray's pickle of an actor's class names each function: where one is missing or another's, no actor starts
    (
        old_actor.JobDriver,
        {"__repr__": [], "ping": [], "stage_progress": ["step", "fraction"], "leave": [], "cancel": []},
    ),
    (
        AudioExtractor,
        {
            "prepare": ["job_id", "run", "url", "report"],
            "load": ["job_id", "run"],
            "discard": ["job_id", "run"],
            "kept_jobs": [],
        },
    ),
    (SpeechDetector, {"detect": ["audio", "piece"]}),
    (
        Transcriber,
        {
            "transcribe": ["audio", "chunk", "language", "job_id", "speech", "alone"],
            "detect_language": ["audio", "chunk", "job_id", "brief", "alone"],
        },
    ),
    (Aligner, {"align": ["audio", "transcript", "job_id", "alone"]}),
    (
        Diarizer,
        {
            "segment": ["audio", "piece"],
            "embed": ["audio", "segmentation"],
            "cluster": ["segmentations", "embeddings"],
        },
    ),
    (ProsodyAnalyzer, {"tracks": ["audio", "piece"], "measure": ["tracks", "segments"]}),
    (EmotionAnalyzer, {"analyze": ["audio", "tracks", "segments", "job_id", "alone"]}),
)
"""Remote methods and their arguments."""
KEYWORDS = {"alone", "brief"}
"""Arguments that are given by name."""
UNPICKLED = (
    ("serve_app.jobs.actor", "JobDriver"),
    ("deployments.diarizer.engine", "Segmentation"),
    ("deployments.diarizer.engine", "Embeddings"),
    ("deployments.types", "Transcript"),
    ("deployments.types", "Tracks"),
    ("deployments.types", "Segment"),
    ("deployments.types", "Span"),
)
"""Classes whose objects processes of both releases send each other, by the module that a pickle names."""


@pytest.mark.parametrize(
    ("owner", "name", "wanted"),
    [
        (getattr(owner, "func_or_class", owner), name, taken)
        for owner, methods in CALLED
        for name, taken in methods.items()
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_d14_methods_of_the_release_before_are_answered(owner, name, wanted):
    """D14: each is there and takes the same arguments; others that it may have got are optional."""
    method = getattr(owner, name)
    assert inspect.isfunction(method), "inherited from object"
    parameters = list(inspect.signature(method).parameters.values())[1:]
    positional = [each for each in wanted if each not in KEYWORDS]
    assert len([each for each in parameters if each.kind is not each.KEYWORD_ONLY]) >= len(positional)
    assert {each.name for each in parameters} >= KEYWORDS & set(wanted)
    others = [each for each in parameters[len(positional) :] if each.kind is not each.VAR_KEYWORD]
    assert all(each.default is not each.empty for each in others)


@pytest.mark.parametrize(("module", "name"), UNPICKLED)
def test_d14_pickles_of_the_release_before_are_read(module, name):
    """D14: an object that an old process sends is found under the name that its pickle has."""
    assert inspect.isclass(getattr(importlib.import_module(module), name))


def test_d14_actors_of_the_release_before_are_called_by_their_names():
    """D14: where an actor does not know the new name of a method, the old one is called."""
    new, old = SimpleNamespace(**{name: name for name in NAME_BEFORE}), SimpleNamespace(poke=1, look=2, leave=3)
    assert [remote_method(new, name) for name in NAME_BEFORE] == list(NAME_BEFORE)
    assert [remote_method(old, name) for name in NAME_BEFORE] == [1, 2, 3, 3]


def test_d14_the_manager_of_the_release_before_is_replaced(tmp_path):
    """D14: it knows `look`, `leave` and `poke` only."""
    settings = settings_in(tmp_path)
    calls = []

    def old_manager(identity, *, can_leave):
        def method(name, answer=None):
            async def call():
                calls.append(name)
                return answer

            return SimpleNamespace(remote=call)

        methods = {"look": method("look", (identity, 0.0, 0.0))}
        return SimpleNamespace(**methods, **({"leave": method("leave")} if can_leave else {}))

    managers = [old_manager("another", can_leave=True), old_manager(settings.identity, can_leave=False)]
    client = ManagerClient(settings, None, 1e9)
    client._get_or_create = lambda: managers.pop(0)
    assert asyncio.run(client._check()) == ()
    assert calls == ["look", "leave", "look"]


async def test_d14_what_the_old_manager_starts_ends_with_it(monkeypatch):
    """D14: the actor does nothing while the old manager answers, and is gone as soon as it does not."""
    monkeypatch.setattr(old_actor, "POLL_S", 0.0)
    answers = [None] * 3
    killed = []
    context = SimpleNamespace(current_actor="itself")
    monkeypatch.setattr(old_actor, "ray", SimpleNamespace(get_runtime_context=lambda: context, kill=killed.append))

    async def look():
        if not answers:
            raise ActorDiedError
        assert not killed
        answers.pop()

    actor = old_actor.JobDriver("a", 1, b"no pickle", SimpleNamespace(look=SimpleNamespace(remote=look)))
    await actor.ping()
    await asyncio.gather(actor._task, return_exceptions=True)
    assert (answers, killed) == ([], ["itself"])
