from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from ray.exceptions import ActorDiedError, OutOfMemoryError

from deployments.emotion.config import EmotionConfig
from deployments.errors import AudioExtractionError, DeviceError, TranscriptionError
from deployments.extraction.protocol import AudioMissingError
from deployments.transcriber.config import TranscriberConfig
from deployments.types import AudioInfo, Emotion, Span, Tracks, Transcript, Turn, Utterance, Word, WordProsody
from deployments.warnings import ResultWarning, WarningCode
from serve_app.jobs.progress import ProgressMeter
from serve_app.jobs.stages import Stage
from serve_app.pipeline.pipeline import Pipeline
from serve_app.settings import Settings
from serve_app.testing import FakeHandle, Response
from serve_app.warning_sentences import sentence
from tests.support.fake_graph import EARS, SECONDS, fails, graph, heard, job, measure

if TYPE_CHECKING:
    from serve_app.pipeline.stage_client import StageHandles


def run(
    stages: StageHandles, meter: ProgressMeter | None = None, *, settings: Settings | None = None, **options: Any
) -> dict[str, Any]:
    """The result of a run over `stages`."""
    settings = settings or Settings(profile="local", transcriber=EARS)
    meter = meter or ProgressMeter()
    pipeline = Pipeline(job(**options), settings, stages, report_progress=meter.report_progress)
    return asyncio.run(pipeline.run(spent_s=3.0))


def codes(result: dict[str, Any]) -> list[str]:
    return [warning["code"] for warning in result["metadata"]["warning_codes"]]


def test_the_stages_answers_become_the_result():
    """Words get the speaker of their turn, numbered in order of first speech; sound and mood are in their places."""
    result = run(graph())
    first, second = result["segments"]
    assert (first["speaker"]["speaker_id"], second["speaker"]["speaker_id"]) == ("SPEAKER_00", "SPEAKER_01")
    assert (first["start_time"], second["start_time"]) == (0, 10)
    assert first["words"][1] == {
        "word": "w1",
        "start": 1.0,
        "end": 1.5,
        "volume_db": -20.0,
        "pitch_hz": 200.0,
        "voiced": True,
        "confidence": 0.5,
    }
    assert first["emotion"] == {"label": "happy", "confidence": 0.4}
    assert (result["duration"], result["language"], result["metadata"]["filename"]) == (SECONDS + 1, "en", "a b.mp4")
    assert result["metadata"]["processing_time"] >= 3.0
    assert set(result["metadata"]["stages"]) == {
        "extraction",
        "detection",
        "transcription",
        "diarization",
        "prosody",
        "analysis",
    }


def test_m2_the_audio_is_fetched_once_and_no_stage_gets_a_path():
    """M2: one extraction a run; every stage gets the one reference to its sound, and nobody else the video's URL."""
    sound = object()
    got: list[Any] = []

    class Watching(FakeHandle):
        def __getattr__(self, name: str) -> Any:
            method = super().__getattr__(name)

            class Method:
                @staticmethod
                def remote(*args: Any) -> Response:
                    got.extend(args)
                    return method.remote(*args)

            return Method

    plain = graph()
    extractor = FakeHandle(**plain.extractor._methods | {"load": lambda *_: sound})
    others = ("detector", "transcriber", "diarizer", "prosody", "emotion")
    run(replace(plain, extractor=extractor, **{name: Watching(**getattr(plain, name)._methods) for name in others}))
    assert extractor.calls.count("prepare") == 1
    references = [each for each in got if isinstance(each, Response)]
    assert len(references) >= len(others)
    assert len({id(each) for each in references}) == 1
    assert not [each for each in got if isinstance(each, PurePath) or "/" in str(each)]


def test_chunks_are_heard_with_a_margin_of_the_pauses():
    """The detector's edges may cut into the first and last sounds of what is said between pauses."""
    heard_s = []

    def hear(audio: Any, chunk: Span, *rest: Any) -> Transcript:
        heard_s.append((chunk.start_s, chunk.end_s))
        return heard(audio, chunk, *rest)

    settings = Settings(profile="local", transcriber=TranscriberConfig(engine="whisperx", max_chunk_s=10))
    run(graph(transcriber=FakeHandle(transcribe=hear)), settings=settings, language="en")
    assert sorted(heard_s) == [(0, 8.3), (9.7, 18.3)]


def test_without_diarization_there_is_one_speaker_and_a_warning():
    """A failing diarizer never costs the transcript."""
    result = run(graph(diarizer=FakeHandle(segment=fails(ValueError("x")))))
    assert {segment["speaker"]["speaker_id"] for segment in result["segments"]} == {"SPEAKER_00"}
    assert "DIARIZATION_FAILED" in codes(result)


@pytest.mark.parametrize(
    "broken", [{"tracks": fails(ValueError("x"))}, {"tracks": lambda *_: None, "measure": fails(ValueError("x"))}]
)
def test_without_prosody_there_are_floor_values_and_a_warning(broken):
    """A failing prosody stage gives -60 dB, 100 Hz, not voiced."""
    tracks = Tracks(start_s=0, f0_hz=np.zeros(4, np.float32), level_dbfs=np.zeros(4, np.float32))
    result = run(graph(prosody=FakeHandle(**{"tracks": lambda *_: tracks} | broken)))
    word = result["segments"][0]["words"][0]
    assert (word["volume_db"], word["pitch_hz"], word["voiced"]) == (-60.0, 100.0, False)
    assert "PROSODY_FAILED" in codes(result)


def test_without_emotion_there_is_a_warning():
    """A failing emotion stage leaves its fields out."""
    result = run(graph(emotion=FakeHandle(analyze=fails(ValueError("x")))))
    assert all("emotion" not in segment for segment in result["segments"])
    assert "EMOTION_FAILED" in codes(result)


@pytest.mark.parametrize("locale", ["ko", "en"])
def test_warnings_of_all_chunks_are_told_once_in_the_servers_language(locale):
    """A code with the sum of its amounts, rounded as all seconds are, and beside it its sentence in the same place."""
    unsure = ResultWarning(code=WarningCode.SPEECH_UNCERTAIN, seconds=1 / 3)

    def transcribe(*asked: Any) -> Transcript:
        return replace(heard(*asked), warnings=(unsure,))

    settings = Settings(profile="local", locale=locale, transcriber=EARS)
    metadata = run(graph(transcriber=FakeHandle(transcribe=transcribe)), settings=settings)["metadata"]
    assert metadata["warning_codes"][0] == {"code": "SPEECH_UNCERTAIN", "seconds": 0.667}
    assert metadata["warnings"][0] == sentence(replace(unsure, seconds=2 / 3), locale)
    assert len(metadata["warnings"]) == len(metadata["warning_codes"]) == len(set(metadata["warnings"]))


def test_what_the_aligner_does_not_hear_is_left_out_and_counted():
    """A chunk of which no word is in the sound, and one word of another chunk that lies far from all speech."""

    def transcribe(*asked: Any) -> Transcript:
        transcript = heard(*asked)
        [spoken] = transcript.utterances
        first = spoken.start_s < 9
        words = [replace(word, alignment_score=0.001 if first else 0.9) for word in spoken.words]
        if not first:
            words.append(replace(words[-1], start_s=19.2, end_s=19.6, text="far", alignment_score=0.05))
        return replace(transcript, utterances=(replace(spoken, words=tuple(words)),))

    result = run(graph(transcriber=FakeHandle(transcribe=transcribe)))
    words = [word["word"] for segment in result["segments"] for word in segment["words"]]
    assert words
    assert not {"w1", "far"} & set(words)
    [warning] = [each for each in result["metadata"]["warning_codes"] if each["code"] == "UNHEARD_DROPPED"]
    assert warning["count"] == 2


@pytest.mark.parametrize(("engine", "judged"), [("wav2vec2", True), ("prosodic-lexical", False)])
def test_without_prosody_an_engine_that_hears_the_sound_still_judges(engine, judged):
    """Emotion is lost with the prosody only where the engine judges by its tracks."""
    settings = Settings(profile="local", transcriber=EARS, emotion=EmotionConfig(engine=engine))
    result = run(graph(prosody=FakeHandle(tracks=fails(ValueError("x")), measure=measure)), settings=settings)
    assert all(("emotion" in segment) == judged for segment in result["segments"])
    assert ("EMOTION_FAILED" in codes(result)) != judged


@pytest.mark.parametrize(("engine", "by_tracks"), [("prosodic-lexical", True), ("wav2vec2", False)])
def test_emotion_is_judged_beside_the_prosody(engine, by_tracks):
    """Each needs nothing of the other: they are in flight at the same time, and each gets what it works with."""
    told: dict[str, Any] = {}
    together = asyncio.Barrier(2)

    async def meet() -> None:
        async with asyncio.timeout(5):
            await together.wait()

    async def measured(*args: Any) -> Any:
        await meet()
        return measure(*args)

    async def judge(_audio: Any, tracks: Any, segments: Any, job_id: str) -> list[Emotion]:
        await meet()
        told.update(tracks=tracks, job_id=job_id)
        return [Emotion(label="sad", confidence=0.5)] * len(segments)

    tracks = Tracks(start_s=0, f0_hz=np.zeros(4, np.float32), level_dbfs=np.zeros(4, np.float32))
    prosody = FakeHandle(tracks=lambda *_: tracks, measure=measured)
    stages = graph(emotion=FakeHandle(analyze=judge), prosody=prosody)
    result = run(stages, settings=Settings(profile="local", transcriber=EARS, emotion=EmotionConfig(engine=engine)))
    assert told["job_id"] == "a"
    assert (told["tracks"] is not None) == by_tracks
    assert {segment["emotion"]["label"] for segment in result["segments"]} == {"sad"}
    assert result["segments"][0]["words"][0]["volume_db"] == -20.0


def test_emotion_goes_in_parts_and_comes_in_order():
    """A long video's segments are judged some at a time; each gets its own mood."""
    settings = Settings(profile="local", transcriber=EARS, emotion=EmotionConfig(engine="wav2vec2", batch_s=1))
    named = FakeHandle(
        analyze=lambda _audio, _tracks, part, _job_id: [Emotion(label=s.words[0].text, confidence=1) for s in part]
    )
    segments = run(graph(emotion=named), settings=settings)["segments"]
    assert len(named.calls) == len(segments) > 1
    assert all(segment["emotion"]["label"] == segment["words"][0]["word"] for segment in segments)


def test_emotion_that_was_not_asked_for_is_not_judged():
    """emotion_detection false: the stage is not called."""
    stages = graph()
    result = run(stages, emotion_detection=False)
    assert stages.emotion.calls == []
    assert all("emotion" not in segment for segment in result["segments"])


@pytest.mark.parametrize("error", [TranscriptionError(), ValueError("our own mistake")])
def test_without_a_recogniser_the_job_fails(error):
    """The transcript itself cannot be done without. What is no fault of an engine is not called one."""
    with pytest.raises(type(error)) as failure:
        run(graph(transcriber=FakeHandle(transcribe=fails(error))))
    assert failure.value is error


def test_a_failed_extraction_ends_everything():
    """No audio: the extractor's own error, and no other stage is asked."""
    stages = graph(extractor=FakeHandle(prepare=fails(AudioExtractionError(reason="no_audio"))))
    with pytest.raises(AudioExtractionError):
        run(stages)
    assert stages.detector.calls == []


def test_a_dead_replica_is_asked_again(monkeypatch):
    """ActorDied is retried, a stage's own error is not."""
    monkeypatch.setattr("serve_app.pipeline.stage_calls.ISOLATED_WAITS_S", (0.001, 0.001))
    deaths = iter([ActorDiedError(), ActorDiedError()])

    def dies_twice(audio: Any, piece: Span) -> Any:
        if death := next(deaths, None):
            raise death
        return [Span(start_s=0, end_s=8)]

    assert run(graph(detector=FakeHandle(detect=dies_twice)))["segments"]
    once = FakeHandle(transcribe=fails(TranscriptionError()))
    with pytest.raises(TranscriptionError):
        run(graph(transcriber=once), max_workers=1)
    assert len(once.calls) == 1


def test_a_replica_that_the_memory_monitor_killed_is_asked_again(monkeypatch):
    """D6: Ray raises OutOfMemoryError, which is no RayActorError: it costs a retry and not the job."""
    monkeypatch.setattr("serve_app.pipeline.stage_calls.FIRST_WAIT_S", 0.001)
    kills = iter([OutOfMemoryError("killed"), OutOfMemoryError("killed")])

    def killed_twice(audio: Any, piece: Span) -> Any:
        if kill := next(kills, None):
            raise kill
        return [Span(start_s=0, end_s=8)]

    assert run(graph(detector=FakeHandle(detect=killed_twice)))["segments"]


def test_a_failed_device_is_asked_again(monkeypatch):
    """A replica whose device failed costs its chunks a retry and not the job; the batcher's job is the caller's."""
    monkeypatch.setattr("serve_app.pipeline.stage_calls.FIRST_WAIT_S", 0.001)
    failures = iter([DeviceError(), DeviceError()])
    asked: list[Any] = []

    def fails_twice(audio: Any, chunk: Span, language: str, job_id: str, speech: list[Span]) -> Transcript:
        if failure := next(failures, None):
            raise failure
        asked.append((language, job_id, speech))
        return heard(audio, chunk, language, job_id, speech)

    spans = [Span(start_s=0, end_s=2), Span(start_s=4, end_s=8)]
    stages = graph(detector=FakeHandle(detect=lambda *_: spans), transcriber=FakeHandle(transcribe=fails_twice))
    assert run(stages, language="en")["segments"]
    assert asked == [("en", "a", spans)]


@pytest.mark.parametrize("workers", [1, 3])
def test_max_workers_bounds_what_is_in_flight(workers):
    """Never more pieces of a job at once than it allows."""
    many = [Span(start_s=float(i), end_s=i + 0.9) for i in range(0, 300, 16)]
    stages = graph(detector=FakeHandle(detect=lambda *_: many))
    run(stages, max_workers=workers)
    assert stages.transcriber.most_busy <= workers
    if workers > 1:
        assert stages.transcriber.most_busy > 1


def test_no_speech_gives_an_empty_result():
    """No segments, text "", 0 speakers, and the requested language."""
    result = run(graph(detector=FakeHandle(detect=lambda *_: [])))
    assert (result["segments"], result["text"], result["language"]) == ([], "", "auto")
    assert result["metadata"]["unique_speakers"] == 0


def test_progress_names_the_earliest_stage_and_never_goes_back():
    """Fractions of later stages do not show before the earlier ones are done."""
    meter = ProgressMeter()
    meter.report_progress(Stage.STARTING, 1)
    meter.report_progress(Stage.EXTRACTION, 1)
    meter.report_progress(Stage.TRANSCRIPTION, 0.9)
    assert (meter.now.percent, meter.now.stage) == (25, Stage.DETECTION)
    meter.report_progress(Stage.DETECTION, 0.5)
    assert meter.now.percent == 32
    meter.report_progress(Stage.DETECTION, 0.1)
    assert meter.now.percent == 32
    meter.report_progress(Stage.DETECTION, 1)
    meter.report_progress(Stage.DIARIZATION, 1)
    assert (meter.now.percent, meter.now.stage) == (73, Stage.TRANSCRIPTION)


def test_all_stages_are_counted():
    """At the end of a run every stage is done, and 100 is left to the completed callback."""
    meter = ProgressMeter()
    run(graph(), meter)
    assert (meter.now.percent, meter.now.stage) == (99, Stage.ASSEMBLY)


def test_diarization_runs_beside_transcription():
    """The wall time is that of the longer branch, not of both."""

    def slow(seconds: float, answer: Any):
        async def work(*_: Any) -> Any:
            await asyncio.sleep(seconds)
            return answer

        return work

    diarizer = FakeHandle(segment=slow(0.4, "s"), embed=slow(0, "e"), cluster=slow(0, []))

    async def recognise(*args: Any) -> Transcript:
        await asyncio.sleep(0.4)
        return heard(*args)

    began = time.monotonic()
    run(graph(diarizer=diarizer, transcriber=FakeHandle(transcribe=recognise)))
    assert time.monotonic() - began < 0.75


def hears(asked: list[str], detect_language: Any) -> StageHandles:
    """A graph whose recogniser notes the languages that it is asked for."""

    def transcribe(audio: Any, chunk: Span, language: str, *more: Any) -> Transcript:
        asked.append(language)
        return replace(heard(audio, chunk, language, *more), language=language, device="cuda")

    return graph(transcriber=FakeHandle(transcribe=transcribe, detect_language=detect_language))


WHISPER = Settings(profile="local", transcriber=TranscriberConfig(engine="whisperx", max_chunk_s=9))


def test_auto_is_a_vote_of_several_chunks():
    """`auto`: the chunks' probabilities decide for the whole video, all is heard in that language, and it is told."""
    asked: list[str] = []

    def detect_language(_audio: Any, chunk: Span, _job_id: str, *, brief: bool) -> dict[str, float]:
        first = {"ko": 0.8, "en": 0.1} if brief else {"ko": 0.9, "en": 0.1}
        return first if chunk.start_s < 9 else {"ko": 0.3, "en": 0.7}

    result = run(hears(asked, detect_language), settings=WHISPER)
    assert asked == ["ko", "ko"]
    assert result["language"] == "ko"
    assert result["metadata"]["language_probability"] == 0.6
    assert {"code": "LANGUAGE_UNCERTAIN", "language": "ko", "share": 0.6} in result["metadata"]["warning_codes"]
    assert result["metadata"]["device"] == "cuda"


def test_auto_hears_each_part_in_its_own_language():
    """A video whose first seconds are surely in another language: they are heard in it, and it is told."""
    asked: list[str] = []

    def detect_language(_audio: Any, chunk: Span, _job_id: str, *, brief: bool) -> dict[str, float]:
        assert chunk.duration_s <= (7 if brief else 9)
        return {"ko": 0.95} if chunk.start_s < 3 else {"en": 0.95}

    result = run(hears(asked, detect_language), settings=WHISPER)
    assert asked == ["ko", "en", "en"]
    assert result["metadata"]["language_probability"] == 0.95
    other = {"code": "OTHER_LANGUAGE", "language": "ko", "seconds": 4.0, "share": 0.25}
    assert (result["language"], other in result["metadata"]["warning_codes"]) == ("en", True)


def pool_settings() -> Settings:
    """The production engines on a GPU; a CPU pool with the embedded ones."""
    return Settings(
        profile="local",
        transcriber=TranscriberConfig(model="large-v3", device="cuda"),
        aligner={"engine": "ctc", "models": {"en": "example/letters"}, "device": "cuda"},
        diarizer={"engine": "pyannote", "device": "cuda"},
        emotion={"engine": "wav2vec2", "device": "cuda"},
        cpu_pool={"transcriber": {"device": "cpu"}, "aligner": {}, "diarizer": {}, "emotion": {}},
    )


def two_graphs() -> StageHandles:
    """Stages with a CPU pool whose recogniser times its words itself."""
    here, there = (
        graph(transcriber=FakeHandle(transcribe=lambda *heard_as: replace(heard(*heard_as), device="cuda"))),
        graph(),
    )
    align = FakeHandle(align=lambda _audio, transcript, _job_id: transcript)
    pool = {name: getattr(there, name) for name in ("transcriber", "aligner", "diarizer", "emotion")}
    return replace(here, aligner=align, cpu=pool)


@pytest.mark.parametrize("enable_gpu", [True, False])
def test_enable_gpu_chooses_the_stages(enable_gpu):
    """`false`: recogniser, diarizer and emotion of the CPU pool, by the pool's settings, and nobody asks the others."""
    stages = two_graphs()
    result = run(stages, settings=pool_settings(), enable_gpu=enable_gpu, language="en")
    metadata = result["metadata"]
    asked, spared = (stages, stages.on(enable_gpu=False)) if enable_gpu else (stages.on(enable_gpu=False), stages)
    assert asked.transcriber.calls
    assert asked.diarizer.calls
    assert asked.emotion.calls
    assert spared.transcriber.calls + spared.diarizer.calls + spared.emotion.calls == []
    assert bool(stages.aligner.calls) == enable_gpu
    if enable_gpu:
        assert metadata["model_version"].startswith("whisperx-large-v3+ctc-wav2vec2+")
        assert (metadata["device"], metadata["warnings"]) == ("cuda", [])
    else:
        assert metadata["model_version"].startswith("whisperx-base+cross-attention+")
        assert metadata["device"] == "cpu"
        assert metadata["warning_codes"] == [{"code": "EMOTION_BY_RULES"}]


def test_where_there_is_no_pool_enable_gpu_is_no_matter():
    """The preference of a job that nobody can follow costs it nothing."""
    assert run(graph(), enable_gpu=False)["segments"] == run(graph(), enable_gpu=True)["segments"]


def test_a_language_that_was_asked_for_is_not_guessed():
    """No vote, and no probability in the result, where the request names the language."""
    settings = Settings(profile="local", transcriber=TranscriberConfig(engine="whisperx"))
    result = run(graph(), settings=settings, language="en")
    assert "language_probability" not in result["metadata"]


NAN = float("nan")
NO_LEVEL = WordProsody(volume_db=NAN, pitch_hz=1.0, voiced=True)


@pytest.mark.parametrize(
    ("stage", "method", "answer", "code"),
    [
        ("emotion", "analyze", lambda *_: [Emotion(label="happy", confidence=NAN)] * 2, "EMOTION_FAILED"),
        ("emotion", "analyze", lambda *_: [None], "EMOTION_FAILED"),
        ("prosody", "measure", lambda *_: [(NO_LEVEL,) * 8] * 2, "PROSODY_FAILED"),
        ("prosody", "measure", lambda *_: [()], "PROSODY_FAILED"),
        ("diarizer", "cluster", lambda *_: [Turn(start_s=0, end_s=float("inf"), speaker=0)], "DIARIZATION_FAILED"),
    ],
    ids=["NaN emotion", "too few emotions", "NaN level", "too few words", "infinite turn"],
)  # fmt: skip
def test_an_optional_stage_that_answers_nonsense_costs_its_part_only(stage, method, answer, code):
    """What is no number, or not of as many parts, is a warning; the transcript is there."""
    plain = graph()
    result = run(graph(**{stage: FakeHandle(**getattr(plain, stage)._methods | {method: answer})}))
    assert code in codes(result)
    assert len(result["segments"]) > 0
    json.dumps(result, allow_nan=False)


def test_a_confidence_that_is_no_number_is_left_out():
    """The recogniser's word stands, without its probability."""

    def nonsense(*args):
        transcript = heard(*args)
        words = tuple(replace(word, probability=NAN) for word in transcript.utterances[0].words)
        return replace(transcript, utterances=(replace(transcript.utterances[0], words=words),))

    result = run(graph(transcriber=FakeHandle(transcribe=nonsense)))
    assert "confidence" not in result["segments"][0]["words"][0]
    json.dumps(result, allow_nan=False)


def test_d5_audio_that_is_gone_is_extracted_again(monkeypatch):
    """D5: the stored audio was damaged or swept away: it is extracted once more, and the job ends."""
    prepared = []
    plain = graph()

    def prepare(*args):
        prepared.append(args)
        return plain.extractor._methods["prepare"](*args)

    def detect(*args):
        if len(prepared) == 1:
            raise AudioMissingError
        return plain.detector._methods["detect"](*args)

    result = run(graph(extractor=FakeHandle(prepare=prepare, load=lambda *_: None), detector=FakeHandle(detect=detect)))
    assert len(prepared) == 2
    assert len(result["segments"]) == 2


def test_audio_that_stays_gone_fails_the_job():
    """It is extracted again once, and not for ever."""
    with pytest.raises(AudioMissingError):
        run(graph(detector=FakeHandle(detect=fails(AudioMissingError()))))


@pytest.mark.parametrize(
    ("asked", "fewer"),
    [
        ({"num_speakers": 2}, False),
        ({"num_speakers": 3}, True),
        ({"min_speakers": 3}, True),
        ({"max_speakers": 3}, False),
    ],
)
def test_the_diarizer_is_told_how_many_speakers_there_are(asked, fewer):
    """What the job says reaches the clustering; where fewer are found than it says, the result tells how many."""
    told = []
    turns = [Turn(start_s=0, end_s=9, speaker=7), Turn(start_s=9, end_s=20, speaker=4)]
    diarizer = FakeHandle(
        segment=lambda *_: "s", embed=lambda *_: "e", cluster=lambda *_, **counts: told.append(counts) or turns
    )
    result = run(graph(diarizer=diarizer), **asked)
    assert told == [asked]
    warnings = [each for each in result["metadata"]["warning_codes"] if each["code"] == "FEWER_SPEAKERS"]
    assert warnings == ([{"code": "FEWER_SPEAKERS", "count": 2}] if fewer else [])


def test_the_extractor_is_told_the_language_that_was_asked_for():
    """By it a track is chosen. Where none was asked for, a replica of the release before, which takes none, will do."""
    told = []
    info = AudioInfo(duration_s=SECONDS + 1, samples=int(SECONDS * 16_000), sha256="")

    def extractor(prepare: Any) -> FakeHandle:
        return FakeHandle(prepare=prepare, load=lambda *_: None)

    for asked in ({"language": "ko"}, {"languages": ("ko",)}, {"languages": ("en", "ko")}):
        run(graph(extractor=extractor(lambda *args: told.append(args[4:]) or info)), **asked)
    assert told == [("ko",), ("ko",), ()]
    assert run(graph(extractor=extractor(lambda _job, _run, _url, _reporter: info)))["segments"]


def test_quality_is_in_the_result_and_under_contract_1_0_nothing_else_is_changed():
    """`metadata.quality` of the fake graph, 16 of whose 20 s are speech; under 1.0 all the rest is the same."""
    found = run(graph())
    assert found["metadata"]["quality"] == {
        "verdict": "poor",
        "reasons": ["LOW_CONFIDENCE"],
        "damaged_s": 0.0,
        "clipped_share": 0.0,
        "speech_share": 0.8,
        "wordless_share": 0.025,
        "mean_confidence": 0.5,
        "dropped_texts": 0,
    }
    before = run(graph(), settings=Settings(profile="local", transcriber=EARS, contract_version="1.0"))
    for result in (found, before):
        del result["metadata"]["processing_time"], result["metadata"]["stages"]
    del found["metadata"]["quality"]
    assert before == found


@pytest.mark.parametrize("part", ["report", "overlap_of"])
def test_quality_that_fails_costs_nothing_else(monkeypatch, caplog, part):
    """A fault in it is logged, and the result is there: without `quality`, or without the one figure."""

    def fail(*_: Any, **__: Any) -> Any:
        raise ValueError("x")

    monkeypatch.setattr(f"serve_app.pipeline.quality.{part}", fail)
    result = run(graph())
    assert result["text"]
    assert codes(result) == ["EMOTION_BY_RULES"]
    assert "quality" not in result["metadata"] or "overlap_share" not in result["metadata"]["quality"]
    assert ("quality" in result["metadata"]) == (part == "overlap_of")
    assert "was not measured" in caplog.text


CHOSEN = {"audio_track": "ko", "channels": "separate", "start_s": 1.5, "end_s": 100.0}


@pytest.mark.parametrize("chosen", [{}, *({name: value} for name, value in CHOSEN.items()), CHOSEN])
def test_the_extractor_is_told_what_to_listen_to(chosen):
    """The track, the part and the channels, as far as they were given; a replica of the release before takes none."""
    told = []
    info = AudioInfo(duration_s=SECONDS, samples=int(SECONDS * 16_000), sha256="")
    extractor = FakeHandle(prepare=lambda *_, **more: told.append(more) or info, load=lambda *_: None)
    run(graph(extractor=extractor), **chosen)
    assert told == [chosen]


def test_audio_that_an_extractor_of_the_release_before_has_sent():
    """It was pickled without the field of channels: it has one."""
    info = AudioInfo(duration_s=SECONDS, samples=int(SECONDS * 16_000), sha256="")
    object.__delattr__(info, "channels")
    extractor = FakeHandle(prepare=lambda *_: info, load=lambda *_: None)
    assert len(run(graph(extractor=extractor))["segments"]) == 2


def test_times_of_a_part_are_the_videos():
    """Words and segments begin as much later as the part does; nothing else changes."""
    everything, part = run(graph()), run(graph(), start_s=100.25)
    for one, other in zip(everything["segments"], part["segments"], strict=True):
        assert other["start_time"] == one["start_time"] + 100.25
        assert other["end_time"] == one["end_time"] + 100.25
        for word, later in zip(one["words"], other["words"], strict=True):
            assert later == word | {"start": word["start"] + 100.25, "end": word["end"] + 100.25}
    assert part["duration"] == everything["duration"]


EACH_S = 9.0
"""Of each of two channels, with the silence behind it."""


def apart(spans: list[Span], **replaced: Any) -> StageHandles:
    """A graph whose audio has two channels of 8 s, one after the other, with speech in these spans."""
    info = AudioInfo(duration_s=8.0, samples=round(2 * EACH_S * 16_000), sha256="", channels=2)

    def transcribe(_audio: Any, chunk: Span, _language: str, _job_id: str, speech: Any) -> Transcript:
        """Four words for each span of speech; the first and the last one reach to the chunk's edges."""
        inner = [edge_s for span in speech for edge_s in (span.start_s, span.end_s)][1:-1]
        edges = [chunk.start_s, *inner, chunk.end_s]
        said = []
        for start_s, end_s in zip(edges[::2], edges[1::2], strict=True):
            times = pairwise(np.linspace(start_s, end_s, 5).tolist())
            words = tuple(Word(start_s=a, end_s=b, text=f"w{a:.2f}", probability=0.5) for a, b in times)
            text = " ".join(word.text for word in words)
            said.append(Utterance(start_s=start_s, end_s=end_s, text=text, words=words))
        return Transcript(language="en", utterances=tuple(said))

    stages: dict[str, Any] = {
        "extractor": FakeHandle(prepare=lambda *_, **__: info, load=lambda *_: None),
        "detector": FakeHandle(detect=lambda *_: spans),
        "transcriber": FakeHandle(transcribe=transcribe),
    }
    return graph(**stages | replaced)


def test_each_channel_has_a_speaker_of_its_own_and_the_videos_times():
    """Both speak at once: all words of both are there, sorted by time, by speakers that are the channels' numbers."""
    stages = apart([Span(start_s=1, end_s=3), Span(start_s=6, end_s=7.5), Span(start_s=9 + 1.5, end_s=9 + 4)])
    result = run(stages, channels="separate", start_s=100.0)
    told = [(each["speaker"]["speaker_id"], each["start_time"], each["end_time"]) for each in result["segments"]]
    assert told == [
        ("SPEAKER_00", pytest.approx(100.7, abs=1e-6), pytest.approx(103.0, abs=1e-6)),
        ("SPEAKER_01", pytest.approx(101.2, abs=1e-6), pytest.approx(104.3, abs=1e-6)),
        ("SPEAKER_00", pytest.approx(106.0, abs=1e-6), pytest.approx(107.8, abs=1e-6)),
    ]
    assert [len(segment["words"]) for segment in result["segments"]] == [4, 4, 4]
    assert stages.diarizer.calls == []
    assert (result["duration"], result["metadata"]["unique_speakers"], codes(result)) == (8.0, 2, ["EMOTION_BY_RULES"])


def test_a_speaker_has_the_channels_number_though_the_first_is_silent():
    """The caller knows who is who; and who speaks first is not the first speaker for it."""
    second = [Span(start_s=9 + 1, end_s=9 + 3)]
    assert [each["speaker"]["speaker_id"] for each in run(apart(second), channels="separate")["segments"]] == [
        "SPEAKER_01"
    ]
    both = run(apart([Span(start_s=5, end_s=7), *second]), channels="separate")["segments"]
    assert [each["speaker"]["speaker_id"] for each in both] == ["SPEAKER_01", "SPEAKER_00"]


def test_nothing_crosses_the_border_of_channels():
    """A span of speech is cut there, no chunk has sound of both, and no word lies outside of the video."""
    chunks = []
    stages = apart([Span(start_s=6.5, end_s=11)])
    transcribe = stages.transcriber._methods["transcribe"]
    stages.transcriber._methods["transcribe"] = lambda *args: chunks.append(args[1]) or transcribe(*args)
    result = run(stages, channels="separate")
    assert [(round(each.start_s, 6), round(each.end_s, 6)) for each in chunks] == [(6.2, 8.3), (8.7, 11.3)]
    times = [time for each in result["segments"] for word in each["words"] for time in (word["start"], word["end"])]
    assert (min(times), max(times)) == (0.0, 8.0)
    assert [each["speaker"]["speaker_id"] for each in result["segments"]] == ["SPEAKER_01", "SPEAKER_00"]


def test_sound_and_mood_stay_with_their_segments_when_channels_are_put_in_place():
    """They are measured in the audio's order, and told in the video's."""
    spans = [Span(start_s=1, end_s=2), Span(start_s=6, end_s=7), Span(start_s=9 + 3, end_s=9 + 4)]

    def measured(_tracks: Any, segments: Any) -> Any:
        return [
            (WordProsody(volume_db=-each.start_s, pitch_hz=200, voiced=True),) * len(each.words) for each in segments
        ]

    def judged(_audio: Any, _tracks: Any, segments: Any, _job_id: str) -> Any:
        return [Emotion(label=f"at {each.start_s:.1f}", confidence=0.5) for each in segments]

    plain = apart(spans).prosody._methods
    prosody = FakeHandle(tracks=plain["tracks"], measure=measured)
    result = run(apart(spans, prosody=prosody, emotion=FakeHandle(analyze=judged)), channels="separate")
    told = [(each["words"][0]["volume_db"], each["emotion"]["label"]) for each in result["segments"]]
    assert told == [(-0.7, "at 0.7"), (-11.7, "at 11.7"), (-6.0, "at 6.0")]


def test_channels_that_are_alike_go_to_the_diarizer():
    """The extractor found one sound in them: its speakers are told apart by their voices."""
    result = run(graph(), channels="separate")
    assert [each["speaker"]["speaker_id"] for each in result["segments"]] == ["SPEAKER_00", "SPEAKER_01"]
