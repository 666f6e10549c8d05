from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ctranslate2
import numpy as np
import pytest
import soundfile

from deployments.errors import ModelLoadError
from deployments.hallucinations.config import HallucinationThresholds
from deployments.hallucinations.hypotheses import Hypothesis
from deployments.transcriber.attention import Attended, Tokenized
from deployments.transcriber.config import TranscriberConfig
from deployments.transcriber.passages import likeliest
from deployments.transcriber.protocol import AUTO, BRIEF_S, Chunk, Question, Recognizer, answer
from deployments.transcriber.registry import create
from deployments.transcriber.whisper import WhisperRecognizer
from deployments.transcriber.whisper_model import Whisper, load
from deployments.types import SAMPLE_RATE_HZ, Transcript
from deployments.warnings import ResultWarning, WarningCode
from tests.support import sounds

if TYPE_CHECKING:
    from deployments.types import Audio

TESTS = Path(__file__).parents[1]
MODEL = TESTS / "models" / "asr"
SPEECH = TESTS / "data" / "speech"
CONFIG = TranscriberConfig(engine="whisperx", model=str(MODEL), device="cpu", threads=1)


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    return create(CONFIG)


@pytest.fixture(scope="module")
def clips() -> list[tuple[Chunk, str]]:
    """Synthesized sentences in English and Korean, and what is said in them."""
    texts = json.loads((SPEECH / "texts.json").read_text(encoding="utf-8"))
    clips = []
    for at, name in enumerate(sorted(texts, key=lambda name: name.partition("_")[2])):
        audio: Audio = soundfile.read(SPEECH / name, dtype="int16")[0]
        audio.flags.writeable = False  # as Ray hands it out
        clips.append((Chunk(audio=audio, start_s=10.0 * at, language=texts[name]["language"]), texts[name]["text"]))
    assert {chunk.language for chunk, _ in clips} == {"en", "ko"}
    return clips


def chunks_of(clips: list[tuple[Chunk, str]]) -> list[Chunk]:
    return [chunk for chunk, _ in clips]


def transcripts(recognizer: Recognizer, chunks: list[Chunk]) -> list[Transcript]:
    answers = recognizer.transcribe(chunks)
    assert [each for each in answers if not isinstance(each, Transcript)] == []
    return [each for each in answers if isinstance(each, Transcript)]


def text_of(transcript: Transcript) -> str:
    return " ".join(utterance.text for utterance in transcript.utterances)


def as_audio(samples: Any) -> Audio:
    return np.clip(samples, -32768, 32767).astype(np.int16)


def test_every_word_is_right(recognizer: Recognizer, clips: list[tuple[Chunk, str]]) -> None:
    """English and Korean in one batch: words, capitals, stops, spaces; one utterance as long as its chunk."""
    for (chunk, text), heard in zip(clips, transcripts(recognizer, chunks_of(clips)), strict=True):
        [utterance] = heard.utterances
        assert (utterance.text, heard.language) == (text, chunk.language)
        assert utterance.start_s == chunk.start_s
        assert [word.text for word in utterance.words] == text.split()
        assert utterance.end_s == pytest.approx(chunk.start_s + len(chunk.audio) / SAMPLE_RATE_HZ)
        assert utterance.confidence is not None
        assert 0.8 < utterance.confidence <= 1
        assert heard.warnings == ()


def test_a_batch_gives_what_each_chunk_gives_alone(recognizer: Recognizer, clips: list[tuple[Chunk, str]]) -> None:
    """Two jobs of different languages in one batch get, word for word, what each gets alone."""
    chunks = chunks_of(clips)
    alone = [transcripts(recognizer, [chunk])[0] for chunk in chunks]
    for together in (transcripts(recognizer, chunks), transcripts(recognizer, chunks[::-1])[::-1]):
        for one, other in zip(together, alone, strict=True):
            assert (text_of(one), one.language, one.warnings) == (text_of(other), other.language, other.warnings)
            assert one.utterances[0].confidence == pytest.approx(other.utterances[0].confidence, abs=1e-3)


def test_the_prompt_is_the_items_own(recognizer: Recognizer, clips: list[tuple[Chunk, str]]) -> None:
    """The same audio asked for in two languages in one batch: each answer is in the language asked for."""
    chunk = next(chunk for chunk, _ in clips if chunk.language == "en")
    foreign = replace(chunk, language="ko")
    own, other = transcripts(recognizer, [chunk, foreign])
    assert (own.language, other.language) == ("en", "ko")
    assert own == transcripts(recognizer, [chunk])[0]


def test_languages_are_told_apart(recognizer: Recognizer, clips: list[tuple[Chunk, str]]) -> None:
    """Each clip's language is the most probable by far, and `auto` writes the same words as the right code."""
    found = recognizer.detect(chunks_of(clips))
    for (chunk, _), probabilities in zip(clips, found, strict=True):
        assert not isinstance(probabilities, Exception)
        assert sum(probabilities.values()) == pytest.approx(1, abs=1e-3)
        assert probabilities[chunk.language] > 0.9
    asked = [replace(chunk, language=AUTO) if i % 3 else chunk for i, chunk in enumerate(chunks_of(clips))]
    heard = transcripts(recognizer, asked)
    assert [(each.language, text_of(each)) for each in heard] == [(chunk.language, text) for chunk, text in clips]


def counted_encodings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many chunks the encoder is given from now on, call by call."""
    encode, encoded = Whisper.encode, []
    monkeypatch.setattr(
        Whisper, "encode", lambda self, features: encoded.append(len(features)) or encode(self, features)
    )
    return encoded


def test_a_chunk_whose_language_was_detected_is_encoded_once(
    recognizer: Recognizer, clips: list[tuple[Chunk, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And its transcript, words and times included, is the same as that of a chunk that is encoded for it."""
    chunks = chunks_of(clips)
    expected = transcripts(recognizer, chunks)
    encoded = counted_encodings(monkeypatch)
    fresh = WhisperRecognizer(recognizer._model, recognizer._thresholds)  # type: ignore[attr-defined]
    fresh.detect(chunks[:-1])
    fresh.detect(chunks[-1:], brief=True)
    assert transcripts(fresh, chunks) == expected
    assert encoded == [len(chunks) - 1, 1, 1]


def test_short_and_long_chunks_keep_what_is_their_own(recognizer: Recognizer, clips: list[tuple[Chunk, str]]) -> None:
    """Windows of 20 and of 30 s in one call, detected and then transcribed: each has what it has alone."""
    short, *rest = chunks_of(clips)
    silence = np.zeros(18 * SAMPLE_RATE_HZ, np.int16)
    long = [replace(each, audio=np.append(each.audio, silence)) for each in rest[:2]]
    chunks = [long[0], short, long[1]]
    alone = [transcripts(recognizer, [chunk])[0] for chunk in chunks]
    languages = [recognizer.detect([chunk])[0] for chunk in chunks]
    fresh = WhisperRecognizer(recognizer._model, recognizer._thresholds)  # type: ignore[attr-defined]
    for found, expected in zip(fresh.detect(chunks), languages, strict=True):
        assert found == pytest.approx(expected, abs=1e-3)
    together = transcripts(fresh, chunks)
    assert all(text_of(each) for each in alone)
    assert [(text_of(each), each.language) for each in together] == [(text_of(each), each.language) for each in alone]


def test_on_a_gpu_nothing_is_kept(
    recognizer: Recognizer, clips: list[tuple[Chunk, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its memory cannot be read by numpy, and it encodes a chunk in milliseconds."""
    encoded = counted_encodings(monkeypatch)
    monkeypatch.setattr(recognizer._model, "device", "cuda")  # type: ignore[attr-defined]
    fresh = WhisperRecognizer(recognizer._model, recognizer._thresholds)  # type: ignore[attr-defined]
    fresh.detect(chunks_of(clips)[:2])
    transcripts(fresh, chunks_of(clips)[:2])
    assert encoded == [2, 2]


def test_at_a_glance_languages_are_told_apart_too(recognizer: Recognizer, clips: list[tuple[Chunk, str]]) -> None:
    """In a window of 7 s, asked alone or among other questions; what is longer is refused."""
    short = [chunk for chunk, _ in clips if len(chunk.audio) <= BRIEF_S * SAMPLE_RATE_HZ]
    questions = [Question(chunk=chunk, language_only=True, brief=brief) for chunk in short for brief in (True, False)]
    brief, careful = answer(recognizer, questions)[::2], answer(recognizer, questions)[1::2]
    assert brief == recognizer.detect(short, brief=True)
    assert careful == recognizer.detect(short)
    for chunk, probabilities in zip(short, brief, strict=True):
        assert isinstance(probabilities, dict)
        assert likeliest(probabilities) == chunk.language
    too_long = replace(short[0], audio=np.resize(short[0].audio, round(BRIEF_S * SAMPLE_RATE_HZ) + 2))
    assert isinstance(recognizer.detect([too_long], brief=True)[0], ValueError)


def test_words_and_languages_in_one_batch(recognizer: Recognizer, clips: list[tuple[Chunk, str]]) -> None:
    """Questions of both kinds, mixed, are answered in their order."""
    (first, text), (second, _) = clips[:2]
    language, words = answer(recognizer, [Question(chunk=second, language_only=True), Question(chunk=first)])
    assert isinstance(language, dict)
    assert language[second.language] > 0.9
    assert isinstance(words, Transcript)
    assert text_of(words) == text


SECONDS = np.arange(4 * SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ
NO_SPEECH = {
    "nothing": np.zeros(0),
    "one sample": np.full(1, 9000),
    "a click": np.concatenate([np.zeros(8000), np.full(100, 9000), np.zeros(8000)]),
    "silence": np.zeros(2 * SAMPLE_RATE_HZ),
    "offset": np.full(2 * SAMPLE_RATE_HZ, 5000),
    "hiss": np.random.default_rng(0).normal(scale=40, size=SECONDS.size),
    "noise": np.random.default_rng(0).normal(scale=3000, size=SECONDS.size),
    "30 s of noise": np.random.default_rng(0).normal(scale=3000, size=30 * SAMPLE_RATE_HZ),
    "rumble": np.cumsum(np.random.default_rng(0).normal(scale=30, size=SECONDS.size)),
    "hum": 8000 * np.sin(2 * np.pi * 50 * SECONDS),
    "tone": 8000 * np.sin(2 * np.pi * 440 * SECONDS),
    "chord": sum(3000 * np.sin(2 * np.pi * hz * SECONDS) for hz in (220, 277, 330)),
    "beeps": 8000 * np.sin(2 * np.pi * 1000 * SECONDS) * (SECONDS * 2 % 1 < 0.04),
}


@pytest.mark.parametrize("sound", NO_SPEECH)
def test_nothing_is_invented_in_silence(recognizer: Recognizer, sound: str) -> None:
    """Silence, noise and tones raise nothing; what is written there all the same comes with a warning or not at all."""
    chunk = Chunk(audio=as_audio(NO_SPEECH[sound]), start_s=7, language="en")
    [believed, doubted] = transcripts(recognizer, [chunk, replace(chunk, speech_share=0.1)])
    assert not believed.utterances or {"SPEECH_UNCERTAIN", "LOOP_CUT"} & {each.code for each in believed.warnings}
    assert believed.utterances or believed.warnings
    assert doubted.utterances == ()


def test_speech_that_cannot_be_heard_is_told(recognizer: Recognizer) -> None:
    """What the detector took for speech, and nobody tried to write down, comes with the reason."""
    tone, silence = (Chunk(audio=as_audio(NO_SPEECH[name]), start_s=0, language="en") for name in ("tone", "silence"))
    heard = transcripts(recognizer, [tone, silence])
    assert [each.warnings for each in heard] == [
        (ResultWarning(code=WarningCode.NOT_SPEECH, seconds=tone.audio.size / SAMPLE_RATE_HZ),),
        (ResultWarning(code=WarningCode.SPEECH_TOO_QUIET, seconds=silence.audio.size / SAMPLE_RATE_HZ),),
    ]
    assert [each.utterances for each in heard] == [(), ()]


def test_what_was_dropped_is_told_and_counted(recognizer: Recognizer) -> None:
    """A rumble in which the detector hears no speech: the model's word is left out, with a sentence and a count."""
    chunk = Chunk(audio=as_audio(NO_SPEECH["rumble"]), start_s=0, language="en", speech_share=0.0)
    [heard] = transcripts(recognizer, [chunk])
    told = ResultWarning(code=WarningCode.SILENT_TEXT_DROPPED, count=1)
    assert (heard.utterances, heard.warnings) == ((), (told,))


def test_damaged_speech(recognizer: Recognizer, clips: list[tuple[Chunk, str]]) -> None:
    """60 dB too quiet (5 bits are left) costs no word, nor does clipping by 12 dB; by 34 dB, text is a guess."""
    for chunk, text in clips:
        quiet, faint = (replace(chunk, audio=as_audio(np.round(chunk.audio * gain))) for gain in (0.01, 0.001))
        assert [text_of(each) for each in transcripts(recognizer, [quiet, faint])] == [text, text]
    chunk, text = next((chunk, text) for chunk, text in clips if text.startswith("Your yellow"))
    clipped, torn = (replace(chunk, audio=as_audio(chunk.audio * gain)) for gain in (4.0, 50.0))
    heard = transcripts(recognizer, [clipped, torn])
    assert text_of(heard[0]) == text
    for utterance in heard[1].utterances:
        assert utterance.confidence is not None
        assert utterance.confidence < 1


def test_a_chunk_that_cannot_be_heard_fails_alone(recognizer: Recognizer, clips: list[tuple[Chunk, str]]) -> None:
    """Wrong samples, lengths and languages are errors in their own places; the neighbours are answered."""
    (good, text), (other, other_text) = clips[:2]
    bad = [
        replace(good, audio=good.audio.astype(np.float32)),
        replace(good, audio=np.zeros((2, 16_000), np.int16)),
        replace(good, audio=np.zeros(31 * SAMPLE_RATE_HZ, np.int16)),
        replace(good, audio=None),  # type: ignore[arg-type]
        replace(good, language="xx"),
        replace(good, language="transcribe"),
    ]
    first, *failed, last = recognizer.transcribe([good, *bad, other])
    assert all(isinstance(each, Exception) for each in failed), failed
    assert isinstance(first, Transcript)
    assert isinstance(last, Transcript)
    assert [text_of(first), text_of(last)] == [text, other_text]
    found = recognizer.detect([bad[0], good])
    assert isinstance(found[0], Exception)
    assert isinstance(found[1], dict)


def test_thirty_seconds_fit(recognizer: Recognizer, clips: list[tuple[Chunk, str]]) -> None:
    """A chunk of 30 s whose edges were rounded apart is heard."""
    chunk, _ = clips[0]
    audio = np.zeros(30 * SAMPLE_RATE_HZ + 1, np.int16)
    audio[: len(chunk.audio)] = chunk.audio
    [heard] = transcripts(recognizer, [replace(chunk, audio=audio)])
    assert text_of(heard)


def test_threads_do_not_mix(recognizer: Recognizer, clips: list[tuple[Chunk, str]]) -> None:
    """Calls from several threads at once get the words that they get alone."""
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(lambda chunk: recognizer.transcribe([chunk])[0], chunks_of(clips)))
    assert [text_of(each) for each in together if isinstance(each, Transcript)] == [text for _, text in clips]


def test_the_spectrum_is_that_of_thirty_seconds(clips: list[tuple[Chunk, str]]) -> None:
    """Filling up the spectrum gives what the feature extractor gives for the audio filled up with zeros."""
    model = Whisper(CONFIG)
    extractor = load(CONFIG, "cpu").feature_extractor
    for audio in (clips[0][0].audio, clips[0][0].audio[:1000], np.zeros(0, np.int16), np.zeros(8000, np.int16)):
        filled = extractor(audio.astype(np.float32) / 32768, padding=30 * SAMPLE_RATE_HZ - len(audio))
        np.testing.assert_allclose(model.features(audio), filled, atol=1e-5)


def test_a_window_leaves_silence_behind_the_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """20 s on a CPU where 3 s of them are left, else 30: less silence costs words. On a GPU all have one length."""
    model = Whisper(CONFIG)
    assert [model.window_s(round(each * SAMPLE_RATE_HZ)) for each in (0, 17, 17.01, 30)] == [20, 20, 30, 30]
    monkeypatch.setattr(model, "device", "cuda")
    assert model.window_s(0) == 30


def test_one_after_the_other_the_encoder_gives_what_a_batch_gives(clips: list[tuple[Chunk, str]]) -> None:
    """In order: what each gives alone, to the digit; a batch's last digits may be others on another processor."""
    model = Whisper(CONFIG)
    spectra = [model.features(chunk.audio) for chunk in chunks_of(clips)[:3]]
    together = np.asarray(model._model.model.encode(ctranslate2.StorageView.from_array(np.stack(spectra))))
    found = np.asarray(model.encode(spectra))
    np.testing.assert_array_equal(found, np.concatenate([np.asarray(model.encode([each])) for each in spectra]))
    np.testing.assert_allclose(found, together, atol=1e-4)


def test_texts_and_probabilities_are_faster_whispers(clips: list[tuple[Chunk, str]]) -> None:
    """What the batch says of each clip is what faster-whisper's own `transcribe` says of it, to the digit."""
    model = Whisper(CONFIG)
    chunks = chunks_of(clips)
    encoded = model.encode([model.features(chunk.audio) for chunk in chunks])
    written = model.write(encoded, [model.prompt(chunk.language) for chunk in chunks])
    oracle = load(CONFIG, "cpu")
    for chunk, hypothesis in zip(chunks, written, strict=True):
        padded = np.zeros(30 * SAMPLE_RATE_HZ, np.float32)
        padded[: len(chunk.audio)] = chunk.audio.astype(np.float32) / 32768
        [segment] = oracle.transcribe(padded, language=chunk.language, without_timestamps=True, temperature=0)[0]
        assert hypothesis.text == segment.text.strip()
        assert hypothesis.average_logprob == pytest.approx(segment.avg_logprob, abs=1e-4)
        assert hypothesis.no_speech == pytest.approx(segment.no_speech_prob, abs=1e-4)


class ScriptedModel:
    """A model whose texts are given: `script[item][temperature]`. Remembers who was written at which temperature."""

    device = "cpu"

    def __init__(self, script: list[dict[float, Hypothesis]]) -> None:
        self.script = script
        self.written: list[tuple[float, list[int]]] = []
        self.encoded: list[list[int]] = []

    def window_s(self, samples: int) -> float:
        return 20.0 if samples < 5 * SAMPLE_RATE_HZ else 30.0

    def features(self, audio: Audio, window_s: float) -> Any:
        return np.full((1, round(100 * window_s)), audio[0] - 1000, np.float32)

    def encode(self, features: list[Any]) -> list[int]:
        self.encoded.append([int(each[0, 0]) for each in features])
        return self.encoded[-1]

    def prompt(self, language: str) -> str:
        return language

    def chosen(self, encoded: list[int], items: list[int]) -> list[int]:
        return [encoded[item] for item in items]

    def tokenized(self, text: str, *, spaced: bool) -> Tokenized:
        assert spaced
        return Tokenized(text=text, ids=(0,), offsets=((0, len(text)),))

    def attend(self, encoded: list[int], prompt: str, texts: list[Tokenized], durations_s: list[float]) -> list[Any]:
        """Hears the text from end to end."""
        assert prompt == f"l{encoded[0]}"
        return [
            Attended(starts_s=np.array([0.0, duration_s]), probabilities=np.array([0.5]))
            for _, duration_s in zip(texts, durations_s, strict=True)
        ]

    def write(self, encoded: list[int], prompts: list[str], *, temperature: float = 0.0) -> list[Hypothesis]:
        assert prompts == [f"l{item}" for item in encoded]
        self.written.append((temperature, encoded))
        return [self.script[item][temperature] for item in encoded]


def hypothesis(text: str, logprob: float = -0.1, no_speech: float = 0.0) -> Hypothesis:
    return Hypothesis(text=text, average_logprob=logprob, no_speech=no_speech)


def numbered(count: int) -> list[Chunk]:
    """Chunks that a `ScriptedModel` knows by their first sample, each with a language of its own."""
    sound = sounds.syllables_of_noise(1.0)[1:]
    return [Chunk(audio=np.append(np.int16(1000 + i), sound), start_s=0, language=f"l{i}") for i in range(count)]


def test_only_failing_items_are_tried_again() -> None:
    """A loop and a guess rise in temperature until they pass; the good and the silent item are written once."""
    loop, guess = hypothesis("go on " * 50), hypothesis("guess", -2.0)
    model = ScriptedModel(
        [
            {0.0: hypothesis("good")},
            {0.0: loop, 0.2: guess, 0.4: hypothesis("third")},
            {0.0: hypothesis("silent", -2.0, 0.9)},
            {0.0: guess, 0.2: hypothesis("second")},
        ]
    )
    answers = WhisperRecognizer(model, HallucinationThresholds()).transcribe(numbered(4))  # type: ignore[arg-type]
    assert model.written == [(0.0, [0, 1, 2, 3]), (0.2, [1, 3]), (0.4, [1])]
    assert [text_of(each) for each in answers if isinstance(each, Transcript)] == ["good", "third", "", "second"]


def test_when_every_temperature_fails_the_best_text_stands() -> None:
    """The likeliest text that is no loop, with its low confidence and a warning; encoded once for all."""
    texts = {temperature: hypothesis(f"t{temperature}", -2 - temperature) for temperature in (0.4, 0.6, 0.8, 1.0)}
    doubtful = texts | {0.0: hypothesis("go on " * 50), 0.2: hypothesis("best", -1.5)}
    model = ScriptedModel([{0.0: hypothesis("good")}, doubtful])
    _, heard = WhisperRecognizer(model, HallucinationThresholds()).transcribe(numbered(2))  # type: ignore[arg-type]
    assert isinstance(heard, Transcript)
    told = ResultWarning(code=WarningCode.SPEECH_UNCERTAIN, seconds=1.0)
    assert (text_of(heard), heard.warnings) == ("best", (told,))
    assert heard.utterances[0].confidence == pytest.approx(np.exp(-1.5))
    assert model.encoded == [[0, 1]]
    assert [temperature for temperature, _ in model.written] == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]


def test_chunks_of_one_window_are_computed_together() -> None:
    """Whatever stands between them: each answer is its own chunk's, silence and errors included."""
    short, *_, silent, bad = numbered(6)
    long = [replace(each, audio=np.append(each.audio, np.resize(each.audio[1:], 80_000))) for each in numbered(4)[1:]]
    silent = replace(silent, audio=np.zeros(16_000, np.int16))
    bad = replace(bad, audio=bad.audio.astype(np.float32))
    model = ScriptedModel([{0.0: hypothesis(f"text {item}")} for item in range(4)])
    chunks = [long[0], short, bad, long[1], silent, long[2]]
    answers = WhisperRecognizer(model, HallucinationThresholds()).transcribe(chunks)  # type: ignore[arg-type]
    assert model.encoded == [[1, 2, 3], [0]]
    heard = [text_of(each) if isinstance(each, Transcript) else type(each) for each in answers]
    assert heard == ["text 1", "text 0", ValueError, "text 2", "", "text 3"]


def test_a_lack_of_memory_is_the_batchs() -> None:
    """What hits the whole batch is raised, so that a smaller one can be tried."""

    class Full(ScriptedModel):
        def write(self, *_: Any, **__: Any) -> list[Hypothesis]:
            raise RuntimeError("CUDA failed with error out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        WhisperRecognizer(Full([]), HallucinationThresholds()).transcribe(numbered(2))  # type: ignore[arg-type]


def test_a_device_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for a GPU on a machine without one, the start fails and says so; `auto` takes the CPU."""
    monkeypatch.setattr("ctranslate2.get_cuda_device_count", lambda: 0)
    with pytest.raises(ModelLoadError, match="device is cuda"):
        create(CONFIG.model_copy(update={"device": "cuda"}))
    assert Whisper(CONFIG.model_copy(update={"device": "auto"})).device == "cpu"


def test_a_gpu_that_does_not_compute(monkeypatch: pytest.MonkeyPatch) -> None:
    """CTranslate2 finds a GPU, but a library of CUDA's is missing: the start fails with the setting's name."""

    def missing(*_: object) -> object:
        raise RuntimeError("Library libcublas.so.12 is not found or cannot be loaded")

    monkeypatch.setattr("ctranslate2.get_cuda_device_count", lambda: 1)
    monkeypatch.setattr("deployments.transcriber.whisper_model.load", lambda config, _: load(config, "cpu"))
    monkeypatch.setattr(Whisper, "encode", missing)
    with pytest.raises(
        ModelLoadError, match=r"^transcriber.device is auto, but CTranslate2 .* here: Library libcublas"
    ):
        create(CONFIG.model_copy(update={"device": "auto"}))


def test_a_damaged_model_is_named(tmp_path: Path) -> None:
    """Half-downloaded, without its tokenizer, with another size's features, or not there: an error that names it."""

    def damaged(name: str, file: str, content: bytes | None) -> Path:
        folder = shutil.copytree(MODEL, tmp_path / name)
        if content is None:
            (folder / file).unlink()
        else:
            (folder / file).write_bytes(content)
        return folder

    folders = [
        damaged("half", "model.bin", (MODEL / "model.bin").read_bytes()[:700_000]),
        damaged("other", "model.bin", b"not a model"),
        damaged("no-tokenizer", "tokenizer.json", None),
        damaged("torn-tokenizer", "tokenizer.json", b'{"version": '),
        damaged("no-weights", "model.bin", None),
        damaged("wrong-bands", "preprocessor_config.json", b'{"feature_size": 128}'),
        tmp_path / "nowhere",
    ]
    for folder in folders:
        config = TranscriberConfig(engine="whisperx", model=str(folder), device="cpu")
        with pytest.raises(ModelLoadError, match=folder.name):
            create(config)


def test_a_compute_type_that_the_device_cannot_do() -> None:
    """It is refused at the start, with its name."""
    with pytest.raises(ModelLoadError, match="int3"):
        create(CONFIG.model_copy(update={"compute_type": "int3"}))
