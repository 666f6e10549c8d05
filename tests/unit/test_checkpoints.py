from __future__ import annotations

import asyncio
import hashlib
import json
import re
import threading
import warnings
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from pydantic import ValidationError
from sqlalchemy import delete, select, update
from sqlalchemy.exc import OperationalError

from deployments.diarizer.protocol import Segmentation
from deployments.emotion.config import EmotionConfig
from deployments.errors import DownloadError
from deployments.prosody import words as words_module
from deployments.transcriber.config import TranscriberConfig
from deployments.transcriber.passages import Passage
from deployments.types import (
    AudioInfo,
    Emotion,
    Segment,
    Span,
    Tracks,
    Transcript,
    Turn,
    Utterance,
    Word,
    WordProsody,
)
from deployments.warnings import ResultWarning, WarningCode
from serve_app.jobs.progress import ProgressMeter
from serve_app.jobs.stages import Stage, Step
from serve_app.pipeline import checkpoint_codec
from serve_app.pipeline.checkpoint_codec import PartialTranscript, decode, encode
from serve_app.pipeline.checkpoint_writer import CheckpointWriter
from serve_app.pipeline.pipeline import Pipeline
from serve_app.pipeline.quality import Overlap
from serve_app.settings import Settings
from serve_app.storage import checkpoints as checkpoints_module
from serve_app.storage.checkpoints import Checkpoints
from serve_app.storage.database import Database
from serve_app.storage.tables import checkpoints as rows
from serve_app.testing import FakeHandle
from tests.support.fake_graph import EARS, SECONDS, fails, graph, heard, job, measure
from tests.support.jobs import BROKEN, DONE, begun, new_job, started
from tests.support.stores import stores

if TYPE_CHECKING:
    from serve_app.jobs.job import Attempt
    from serve_app.orchestration.opening import Stores
    from serve_app.pipeline.stage_client import StageHandles

TRACKS = Tracks(start_s=0, f0_hz=np.array([1, np.nan, 3], np.float32), level_dbfs=np.array([0.1, -2, -3], np.float32))
UNSURE = ResultWarning(code=WarningCode.SPEECH_UNCERTAIN, seconds=0.1 + 0.2)
DAMAGED = ResultWarning(code=WarningCode.AUDIO_DAMAGED, seconds=1.5, share=0.1)
BY_EAR = Settings(profile="local", transcriber=EARS, emotion=EmotionConfig(engine="wav2vec2", batch_s=1))
"""An engine whose answers come in parts, so that there is something to put in order."""
WORK = {
    Step.EXTRACTION: {"prepare", "load"},
    Step.DETECTION: {"detect"},
    Step.TRANSCRIPTION: {"transcribe"},
    Step.DIARIZATION: {"segment", "embed", "cluster"},
    Step.TRACKS: {"tracks"},
    Step.PROSODY: {"measure"},
    Step.EMOTION: {"analyze"},
}
"""The calls of each step."""
STEPS = list(WORK)


@pytest.fixture
def sqlite_database(tmp_path):
    yield from opened(f"sqlite:///{tmp_path / 'jobs.db'}")


def opened(url):
    database = Database(url)
    database.create()
    yield database
    database.close()


def store_of(database) -> Stores:
    return stores(database, queue_limit=3, running_limit=2)


def kept_rows(database) -> list[tuple[str, int, str]]:
    with database.read() as db:
        return [tuple(row) for row in db.execute(select(rows.c.job_id, rows.c.run, rows.c.stage))]


# The rows


def test_d5_what_is_kept_is_found(database):
    """A stage's newest bytes come back as they were, per job and stage; nothing else does."""
    store, checkpoints = store_of(database), Checkpoints(database)
    mine = started(store)
    body = np.random.default_rng(1).bytes(3_000_000)
    assert checkpoints.save(mine, "tracks", b"old")
    assert checkpoints.save(mine, "tracks", body)
    assert checkpoints.load("a", "tracks") == body
    assert checkpoints.sources("a").keys() == {"tracks"}
    for job_id, stage in (("b", "tracks"), ("a", "emotion")):
        assert checkpoints.load(job_id, stage) is None


def test_d5_an_attempt_that_no_longer_counts_keeps_nothing(database):
    """Older attempts, ended runs and unknown jobs are refused, and the newest attempt's row stays."""
    store, checkpoints = store_of(database), Checkpoints(database)
    old = started(store)
    now = begun(store)
    assert checkpoints.save(now, "tracks", b"mine")
    assert not checkpoints.save(old, "tracks", b"stale")
    assert not checkpoints.save(replace(now, job_id="b"), "tracks", b"x")
    assert checkpoints.load("a", "tracks") == b"mine"
    store.attempts.finish_job(now, DONE)
    assert not checkpoints.save(now, "tracks", b"late")
    assert checkpoints.load("a", "tracks") == b"mine"


@pytest.mark.parametrize(("outcome", "gone"), [(DONE, {Step.PARTIAL_TRANSCRIPT}), (BROKEN, set())])
def test_answers_stay_for_further_runs(database, outcome, gone):
    """The end of a run keeps its checkpoints, but for the partial transcript where there is a whole one."""
    store, checkpoints = store_of(database), Checkpoints(database)
    mine, other = started(store), started(store, "b")
    for each in (mine, other):
        for step in Step:
            checkpoints.save(each, step, b"x")
    store.attempts.finish_job(mine, outcome)
    assert {stage for job_id, _, stage in kept_rows(database) if job_id == "a"} == set(Step) - gone
    assert {stage for job_id, _, stage in kept_rows(database) if job_id == "b"} == set(Step)


def test_a_write_on_its_way_is_stored_before_the_end(database, monkeypatch):
    """A job does not end while a checkpoint is being written: nobody ends a job past the fence."""
    store, checkpoints = store_of(database), Checkpoints(database)
    mine = started(store)
    within, go_on, ended = threading.Event(), threading.Event(), threading.Event()
    digest = checkpoints_module._digest

    def paused(body: bytes) -> str:
        within.set()
        assert go_on.wait(20)
        return digest(body)

    monkeypatch.setattr(checkpoints_module, "_digest", paused)  # asked for between the fence and the row
    writer = threading.Thread(target=lambda: checkpoints.save(mine, "tracks", b"x"))
    ender = threading.Thread(target=lambda: (store.attempts.finish_job(mine, DONE), ended.set()))
    writer.start()
    assert within.wait(20)
    ender.start()
    assert not ended.wait(0.5)
    go_on.set()
    writer.join()
    ender.join()
    assert ended.is_set()
    assert kept_rows(database) == [("a", 1, "tracks")]


def test_d5_a_failed_job_that_is_posted_again_starts_from_nothing(database):
    """The video at its URL may be another now: no answer of the run before is left."""
    store, checkpoints = store_of(database), Checkpoints(database)
    mine = started(store)
    checkpoints.save(mine, "tracks", b"x")
    store.attempts.finish_job(mine, BROKEN)
    assert kept_rows(database) == [("a", 1, "tracks")]
    store.jobs.submit_job(new_job())
    assert kept_rows(database) == []


def test_d12_a_deleted_job_takes_its_checkpoints_with_it(database):
    """The rows go with the job's."""
    store = store_of(database)
    store.attempts.finish_job(started(store), BROKEN)
    with database.write() as db:
        db.execute(rows.insert().values(job_id="a", run=1, stage="tracks", body=b"x", digest=""))
    store.jobs.delete_job("a")
    assert kept_rows(database) == []


# The answers' bytes


def answers() -> dict[Step, Any]:
    """Of each step one with every kind of value, of floats that need all their digits."""
    dice = np.random.default_rng(7)
    word = Word(start_s=dice.random(), end_s=0.1 + 0.2, text='w\n"한', probability=dice.random() * 1e-9)
    scored = replace(word, probability=None, alignment_score=dice.random())
    spoken = Utterance(start_s=1 / 3, end_s=2e22, text="", words=(word, scored))
    transcript = Transcript(language="ko", device="cuda", utterances=(spoken,), warnings=(UNSURE,))
    hearing = PartialTranscript(
        chunks=[Passage(start_s=dice.random(), end_s=9.0, language="ko")],
        language_probability=dice.random(),
        warnings=[UNSURE],
        transcripts={0: transcript, 12: transcript},
    )
    return {
        Step.EXTRACTION: AudioInfo(duration_s=dice.random(), samples=5, sha256="0", warnings=(UNSURE, DAMAGED)),
        Step.DETECTION: [Span(start_s=dice.random(), end_s=dice.random()) for _ in range(1000)],
        Step.PARTIAL_TRANSCRIPT: hearing,
        Step.TRANSCRIPTION: replace(hearing, language_probability=None),
        Step.OVERLAP: Overlap(share=dice.random()),
        Step.DIARIZATION: [Turn(start_s=dice.random(), end_s=9.0, speaker=3)],
        Step.TRACKS: TRACKS,
        Step.PROSODY: [(WordProsody(volume_db=-dice.random(), pitch_hz=dice.random(), voiced=True),), ()],
        Step.EMOTION: [None, Emotion(label="sad", confidence=dice.random())],
    }


@pytest.mark.parametrize("step", Step)
def test_d5_an_answer_comes_back_exactly(step):
    """What is decoded equals what was encoded, every float and every array's bytes."""
    answer = answers()[step]
    back = decode(step, encode(step, answer))
    if step is Step.TRACKS:
        assert (back.start_s, back.f0_hz.tobytes()) == (answer.start_s, answer.f0_hz.tobytes())
        assert back.level_dbfs.tobytes() == answer.level_dbfs.tobytes()
        assert back.f0_hz.dtype == back.level_dbfs.dtype == np.float32
    else:
        assert back == answer
        assert repr(back) == repr(answer)


def test_d5_the_prosody_of_words_is_saved_as_the_stage_returns_it():
    """The codec knows its type: pydantic would warn of another one with every save."""
    words = (Word(start_s=0.0, end_s=0.02, text="yes"),)
    answer = words_module.measure(TRACKS, [Segment(start_s=0.0, end_s=0.02, speaker=0, words=words)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        body = encode(Step.PROSODY, answer)
    assert decode(Step.PROSODY, body) == answer


@pytest.mark.parametrize("step", Step)
def test_d5_what_is_no_answer_is_not_read_as_one(step):
    """Bytes cut anywhere, and another step's, are an error."""
    body = encode(step, answers()[step])
    other = Step.EXTRACTION if step is Step.TRACKS else Step.TRACKS
    wrong = encode(other, answers()[other])
    for bad in (b"", b"{}", b"null", b"[1]", wrong, *(body[:at] for at in range(1, len(body), 1 + len(body) // 20))):
        with pytest.raises(Exception):  # noqa: B017, PT011 - each library has its own
            decode(step, bad)


@pytest.mark.parametrize("step", [Step.EXTRACTION, Step.PARTIAL_TRANSCRIPT, Step.TRANSCRIPTION])
def test_d5_warnings_of_earlier_releases_are_not_read(step):
    """They were sentences: the stage runs again, and warns in codes. Without any warning the answer is as good."""
    body = encode(step, answers()[step])
    codes = re.compile(rb'"warnings":\[.+?\]')
    assert codes.search(body)
    with pytest.raises(ValidationError, match="warnings"):
        decode(step, codes.sub(b'"warnings":["LOOP_CUT"]', body))
    with pytest.raises(ValidationError, match="warnings"):
        decode(step, codes.sub(b'"warnings":[{"code":"UNKNOWN"}]', body))
    assert decode(step, codes.sub(b'"warnings":[]', body))


def test_d5_words_of_earlier_releases_are_not_read():
    """They had one measure for two: the stage runs again, and no score is lost in silence. Nor is any other field."""
    body = encode(Step.TRANSCRIPTION, answers()[Step.TRANSCRIPTION])
    assert decode(Step.TRANSCRIPTION, body)
    for had in (rb'"confidence":', rb'"confidence":0.1,"probability":'):
        other = re.sub(rb'"probability":', had, body)
        assert other != body
        with pytest.raises(ValueError, match="release"):
            decode(Step.TRANSCRIPTION, other)


# The pipeline


def voices(**replaced: Any):
    """A graph whose stages warn, and whose answers need all their digits."""
    sure = np.random.default_rng(3).random(100)
    sure[0] = 0.0025  # numbers of numpy's round otherwise than Python's

    def transcribe(*asked: Any) -> Transcript:
        transcript = heard(*asked)
        (spoken,) = transcript.utterances
        words = tuple(replace(word, probability=sure[round(word.start_s)]) for word in spoken.words)
        language = "en" if asked[2] == "auto" else asked[2]
        return replace(
            transcript,
            language=language,
            utterances=(replace(spoken, words=words),),
            warnings=(replace(UNSURE, seconds=asked[1].start_s),),
        )

    def judge(_audio: Any, _tracks: Any, part: Any, _job_id: str) -> list[Emotion]:
        return [Emotion(label=f"{s.words[0].text}/{s.speaker}", confidence=sure[len(s.words)]) for s in part]

    info = AudioInfo(duration_s=SECONDS + 1 / 3, samples=int(SECONDS * 16_000), sha256="d", warnings=(DAMAGED,))
    stages: dict[str, Any] = {
        "extractor": FakeHandle(prepare=lambda *_: info, load=lambda *_: None),
        "transcriber": FakeHandle(transcribe=transcribe, detect_language=lambda *_, **__: {"ko": 0.9, "en": 0.1}),
        "prosody": FakeHandle(tracks=lambda *_: TRACKS, measure=measure),
        "emotion": FakeHandle(analyze=judge),
    }
    return graph(**stages | replaced)


def calls(stages) -> set[str]:
    """What was asked of the graph."""
    names = ("extractor", "detector", "transcriber", "diarizer", "prosody", "emotion")
    return {call for name in names for call in getattr(stages, name).calls}


class Dying(CheckpointWriter):
    """Ends its attempt as a crash would, as soon as a step is kept."""

    def __init__(self, checkpoints: Checkpoints, attempt: Attempt, last: Step) -> None:
        super().__init__(checkpoints, attempt)
        self._last = last
        self.work: asyncio.Task[Any] | None = None

    def save(self, step: Step, source: str, answer: Any) -> None:
        self._write(step, source, answer)
        if step is self._last:
            self.work.cancel()


class Story:
    """A job over its attempts."""

    def __init__(self, database: Database, *, job_id: str = "a", settings: Settings = BY_EAR, **options: Any) -> None:
        self.database = database
        self.store, self.checkpoints = store_of(database), Checkpoints(database)
        self._settings = settings
        self._options = options
        self._job_id = job_id
        self.meter = ProgressMeter()
        self.told: list[int] = []
        started(self.store, job_id)

    def dies_after(self, step: Step, stages) -> frozenset[str]:
        """An attempt that dies when `step` is kept; what is kept then."""
        keeper = Dying(self.checkpoints, begun(self.store, self._job_id), step)

        async def work() -> None:
            keeper.work = asyncio.create_task(self._pipeline(stages, keeper).run(spent_s=0))
            with pytest.raises(asyncio.CancelledError):
                await keeper.work

        asyncio.run(work())
        return self.checkpoints.sources(self._job_id).keys()

    def ends(self, stages, *, settings: Settings | None = None) -> dict[str, Any]:
        """The result of an attempt that nobody disturbs, without what may differ."""
        self._settings = settings or self._settings
        keeper = CheckpointWriter(self.checkpoints, begun(self.store, self._job_id))

        async def work() -> dict[str, Any]:
            result = await self._pipeline(stages, keeper).run(spent_s=0)
            await keeper.flush()
            return result

        result = asyncio.run(work())
        del result["metadata"]["processing_time"]
        self.stages_s = result["metadata"].pop("stages")
        return result

    def _pipeline(self, stages, keeper: CheckpointWriter) -> Pipeline:
        def report_progress(stage: Stage, fraction: float) -> None:
            self.meter.report_progress(stage, fraction)
            self.told.append(self.meter.now.percent)

        self.meter = ProgressMeter(self.meter.now.percent)
        return Pipeline(
            job(**self._options), self._settings, stages, report_progress=report_progress, checkpoints=keeper
        )


@pytest.fixture
def story(sqlite_database):
    return Story(sqlite_database)


@pytest.fixture
def undisturbed(tmp_path):
    for database in opened(f"sqlite:///{tmp_path / 'undisturbed.db'}"):
        yield Story(database).ends(voices())


@pytest.mark.parametrize("last", STEPS)
def test_d5_finished_stages_are_not_run_again(story, undisturbed, last):
    """After a crash at any stage's checkpoint no kept stage is called, the others are, and the result is the same."""
    kept = story.dies_after(last, voices())
    assert last in kept
    stages = voices()
    assert story.ends(stages) == undisturbed
    asked = calls(stages)
    for step in set(STEPS) - {Step.EXTRACTION}:
        assert asked.isdisjoint(WORK[step]) if step in kept else asked >= WORK[step], step
    assert ("transcription" in story.stages_s) == (Step.TRANSCRIPTION not in kept)
    assert story.told == sorted(story.told)
    assert story.told[-1] == 99


def test_d5_where_all_is_kept_the_audio_is_not_even_loaded(story, undisturbed):
    """A run that died at its very end asks nobody for anything."""
    story.ends(voices())
    stages = voices()
    assert story.ends(stages) == undisturbed
    assert calls(stages) == set()
    assert story.stages_s == {}


def test_d5_a_long_transcription_goes_on_where_it_was(story, tmp_path, monkeypatch):
    """Chunks that were heard and kept before the crash are not heard again, nor is the language voted on again."""
    monkeypatch.setattr("serve_app.pipeline.pipeline.SAVE_PARTIAL_EVERY_S", -1)
    spans = [Span(start_s=at, end_s=at + 1.5) for at in range(0, 20, 2)]
    settings = Settings(profile="local", transcriber=TranscriberConfig(engine="whisperx", max_chunk_s=2))

    def stages():
        return voices(detector=FakeHandle(detect=lambda *_: spans))

    first, second, whole = stages(), stages(), stages()
    kept = Story(story.database, settings=settings, max_workers=1, job_id="b")
    assert Step.TRANSCRIPTION not in kept.dies_after(Step.PARTIAL_TRANSCRIPT, first)
    result = kept.ends(second)
    assert second.transcriber.calls.count("transcribe") < len(spans)
    assert second.transcriber.calls.count("detect_language") == 0
    assert result["language"] == "ko"
    for database in opened(f"sqlite:///{tmp_path / 'whole.db'}"):
        assert Story(database, settings=settings, job_id="b").ends(whole) == result
    assert whole.transcriber.calls.count("transcribe") == len(spans)


def sealed(body: bytes) -> dict[str, Any]:
    """With a digest that is right."""
    return {"body": body, "digest": hashlib.sha256(body).hexdigest()}


def flipped(body: bytes) -> bytes:
    """The lowest bit of the last digit: JSON as good as before."""
    at = max(at for at, byte in enumerate(body) if byte in b"0123456789")
    return body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]


DAMAGE = {
    "truncated": lambda body: {"body": body[: len(body) // 2]},
    "one bit flipped": lambda body: {"body": flipped(body)},
    "of another digest": lambda _body: {"digest": "0" * 64},
    "undecodable": lambda body: sealed(body[:65] + b"\x00garbage"),
    "of another form": lambda body: sealed(body[:65] + b'{"start_s": 1}'),
    "of another source": lambda body: sealed(b"0" * 64 + body[64:]),
    "empty": lambda _body: sealed(b""),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_d5_what_is_damaged_is_worked_out_again(story, undisturbed, damage, caplog):
    """A checkpoint that is not what was written costs its stage's time and a line in the log: never garbage out."""
    story.ends(voices())
    with story.database.write() as db:
        for row in db.execute(select(rows)).all():
            changed = DAMAGE[damage](row.body)
            db.execute(update(rows).where(rows.c.stage == row.stage).values(**changed))
    stages = voices()
    with caplog.at_level("INFO"):
        assert story.ends(stages) == undisturbed
    assert calls(stages) == set.union(*WORK.values())
    assert "a checkpoint" in caplog.text
    again = voices()
    assert story.ends(again) == undisturbed  # from what was kept in place of it
    assert calls(again) == set()


@pytest.mark.parametrize("step", STEPS)
def test_d5_one_damaged_checkpoint_costs_one_stage(story, undisturbed, step):
    """Only the stage whose checkpoint is damaged runs again, with its audio, which is fetched for it."""
    story.ends(voices())
    with story.database.write() as db:
        db.execute(update(rows).where(rows.c.stage == step).values(body=b"x"))
    stages = voices()
    assert story.ends(stages) == undisturbed
    again = {*WORK[step]} if step is Step.PROSODY else {*WORK[step], *WORK[Step.EXTRACTION]}
    assert calls(stages) == again


def measurable() -> StageHandles:
    """A graph whose quality has every figure."""
    levels = np.full(2000, -50, np.float32)
    levels[:800] = levels[1000:1800] = -20
    tracks = Tracks(start_s=0, f0_hz=np.full(2000, np.nan, np.float32), level_dbfs=levels)
    scores = np.random.default_rng(4).random((7, 11, 3), np.float32)
    turns = [Turn(start_s=0, end_s=20, speaker=0)]
    return voices(
        prosody=FakeHandle(tracks=lambda *_: tracks, measure=measure),
        diarizer=FakeHandle(
            segment=lambda *_: Segmentation(first_window=0, duration_s=SECONDS, scores=scores),
            embed=lambda *_: "e",
            cluster=lambda *_: turns,
        ),
    )


@pytest.mark.parametrize("last", STEPS)
def test_a_resumed_attempt_measures_the_same_quality(story, tmp_path, last):
    """Whatever it loads and whatever it computes: each figure is there, and is that of an attempt nobody disturbed."""
    for database in opened(f"sqlite:///{tmp_path / 'undisturbed.db'}"):
        whole = Story(database).ends(measurable())["metadata"]["quality"]
    assert {"snr_db", "speech_share", "overlap_share", "mean_confidence"} < set(whole)
    story.dies_after(last, measurable())
    assert story.ends(measurable())["metadata"]["quality"] == whole


def test_without_the_saved_overlap_the_other_figures_stay(story):
    """Of a job of the release before, which saved its turns only: its share of overlap is not known, and not zero."""
    whole = story.ends(measurable())["metadata"]["quality"]
    with story.database.write() as db:
        db.execute(delete(rows).where(rows.c.stage == Step.OVERLAP))
    stages = measurable()
    del whole["overlap_share"]
    whole["reasons"].remove("OVERLAPPED")
    assert story.ends(stages)["metadata"]["quality"] == whole
    assert calls(stages) == set()


def test_under_contract_1_0_nothing_is_measured(story):
    """No quality in the result, no checkpoint for it, and no detection again where its checkpoint is damaged."""
    settings = BY_EAR.model_copy(update={"contract_version": "1.0"})
    assert "quality" not in story.ends(measurable(), settings=settings)["metadata"]
    assert Step.OVERLAP not in story.checkpoints.sources("a")
    with story.database.write() as db:
        db.execute(update(rows).where(rows.c.stage == Step.DETECTION).values(body=b"x"))
    stages = measurable()
    story.ends(stages, settings=settings)
    assert "detect" not in calls(stages)


def in_the_form_before(database) -> None:
    """Give all rows the form of the release before: its source had no number of the form, and no step its new name."""
    with database.write() as db:
        for row in db.execute(select(rows)).all():
            source, _, answer = row.body.partition(b"\n")
            old = b"run" if row.stage == "extraction" else SOURCES_BEFORE[source.decode()]
            stage = "hearing" if row.stage == "partial_transcript" else row.stage
            db.execute(
                update(rows).where(rows.c.stage == row.stage).values(stage=stage, **sealed(old + b"\n" + answer))
            )


SOURCES_BEFORE: dict[str, bytes] = {}
"""By its source of today, what an answer's source was."""


def test_d5_checkpoints_in_the_form_of_the_release_before_are_not_read(sqlite_database, undisturbed, monkeypatch):
    """Their rows carry no form: each stage runs again, the job completes, and its checkpoints have today's form."""
    made = checkpoint_codec.source_of

    def source_of(*parts: str | bytes) -> str:
        digest = hashlib.sha256()
        for part in parts:
            data = part.encode() if isinstance(part, str) else part
            digest.update(b"%d:" % len(data) + data)
        SOURCES_BEFORE[made(*parts)] = digest.hexdigest().encode()
        return made(*parts)

    for module in ("pipeline", "reuse"):
        monkeypatch.setattr(f"serve_app.pipeline.{module}.source_of", source_of)
    monkeypatch.setattr("serve_app.pipeline.pipeline.SAVE_PARTIAL_EVERY_S", -1)
    story = Story(sqlite_database)
    story.ends(voices())
    in_the_form_before(story.database)
    assert "hearing" in story.checkpoints.sources("a")
    stages = voices()
    assert story.ends(stages) == undisturbed
    assert calls(stages) >= set.union(*WORK.values())
    again = voices()
    assert story.ends(again) == undisturbed
    assert calls(again) == set()


def test_d5_a_change_of_what_is_saved_raises_the_form():
    """Where the fields differ from those below, raise `FORM` and write both here."""
    stored = (AudioInfo, PartialTranscript, Passage, Transcript, Utterance, Word, Overlap, Turn, WordProsody, Emotion)
    assert checkpoint_codec.FORM == 3
    assert {each.__name__: " ".join(field.name for field in fields(each)) for each in (*stored, ResultWarning)} == {
        "AudioInfo": "duration_s samples sha256 warnings channels",
        "PartialTranscript": "chunks language_probability warnings transcripts",
        "Passage": "start_s end_s language",
        "Transcript": "language device utterances warnings dropped",
        "Utterance": "start_s end_s text words confidence",
        "Word": "start_s end_s text probability alignment_score interpolated",
        "Overlap": "share",
        "Turn": "start_s end_s speaker",
        "WordProsody": "volume_db pitch_hz voiced",
        "Emotion": "label confidence",
        "ResultWarning": "code seconds share count track language",
    }


def test_d5_audio_of_one_channel_is_saved_as_by_the_release_before():
    """It knew no channels, and each reads what the other has saved. More than one come back."""
    answer = answers()[Step.EXTRACTION]
    body = encode(Step.EXTRACTION, answer)
    assert list(json.loads(body)) == ["duration_s", "samples", "sha256", "warnings"]
    assert decode(Step.EXTRACTION, body).channels == 1
    apart = replace(answer, channels=2)
    assert decode(Step.EXTRACTION, encode(Step.EXTRACTION, apart)) == apart


@pytest.mark.parametrize("count", [1, 2])
def test_d5_a_job_with_separate_channels_goes_on_without_its_audio(sqlite_database, count):
    """With all else saved, nothing is extracted; speakers are the channels, or, where these are alike, saved."""
    story = Story(sqlite_database, channels="separate", start_s=100.0)
    info = AudioInfo(duration_s=SECONDS / count, samples=int(SECONDS * 16_000), sha256="d", channels=count)
    extractor = FakeHandle(prepare=lambda *_, **__: info, load=lambda *_: None)
    first = story.ends(voices(extractor=extractor))
    again = voices(extractor=FakeHandle(prepare=fails(DownloadError(reason="http_403")), load=lambda *_: None))
    assert story.ends(again) == first
    assert first["segments"][0]["start_time"] >= 100
    assert calls(again) == set()


def test_d5_other_engines_do_not_go_on_with_what_was_kept(story):
    """A release with another recogniser starts anew: a result says which engines made it."""
    story.ends(voices())
    stages = voices()
    other = Settings(
        profile="local", transcriber=EARS, emotion=EmotionConfig(engine="wav2vec2", batch_s=1, model="another")
    )
    assert "another" in story.ends(stages, settings=other)["metadata"]["model_version"]
    assert calls(stages) >= {"transcribe", "detect", "cluster", "tracks", "measure", "analyze"}


@pytest.mark.parametrize(
    "broken",
    [
        {"diarizer": FakeHandle(segment=fails(ValueError("x")))},
        {"prosody": FakeHandle(tracks=fails(ValueError("x")), measure=measure)},
        {"prosody": FakeHandle(tracks=lambda *_: TRACKS, measure=fails(ValueError("x")))},
    ],
    ids=["diarization", "tracks", "prosody"],
)
def test_d5_a_stage_that_failed_is_tried_again(story, undisturbed, broken):
    """A stage that the transcript can do without leaves nothing when it fails, nor does what was built on it."""
    story.dies_after(Step.EMOTION, voices(**broken))
    assert story.ends(voices()) == undisturbed
    assert undisturbed["metadata"]["unique_speakers"] == 2


def test_d5_a_failed_emotion_stage_is_tried_again(story, undisturbed):
    """The same for the last of them."""
    story.dies_after(Step.PROSODY, voices(emotion=FakeHandle(analyze=fails(ValueError("x")))))
    assert story.ends(voices()) == undisturbed


@pytest.mark.parametrize("method", ["save", "load", "sources"])
def test_d5_a_database_that_fails_costs_no_job(story, undisturbed, method, monkeypatch, caplog):
    """Checkpoints that cannot be written or read cost time and a line in the log; the result is the same."""
    if method != "save":
        story.ends(voices())

    def fail(*_: Any) -> None:
        raise OperationalError("busy", {}, Exception())

    monkeypatch.setattr(Checkpoints, method, fail)
    assert story.ends(voices()) == undisturbed
    assert "checkpoint" in caplog.text


def test_d5_without_emotion_the_audio_is_not_loaded_for_it(sqlite_database):
    """A job that asks for no emotion needs none to be kept."""
    story = Story(sqlite_database, emotion_detection=False)
    first = story.ends(voices())
    stages = voices()
    assert story.ends(stages) == first
    assert calls(stages) == set()
