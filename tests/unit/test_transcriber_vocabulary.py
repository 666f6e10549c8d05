"""Names and terms that a job gives: which of them the recogniser gets, in which calls, and what it only copies."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from deployments.hallucinations.config import HallucinationThresholds
from deployments.hallucinations.hypotheses import Hypothesis, filtered
from deployments.hallucinations.recitations import is_recited
from deployments.transcriber.attention import Attended
from deployments.transcriber.batch_word_times import Untimed, with_words
from deployments.transcriber.config import TranscriberConfig
from deployments.transcriber.protocol import Chunk
from deployments.transcriber.vocabulary import MOST_TOKENS, text_before
from deployments.transcriber.whisper import WhisperRecognizer
from deployments.transcriber.whisper_model import Whisper, load
from deployments.types import SAMPLE_RATE_HZ, Transcript, Utterance
from deployments.warnings import ResultWarning, WarningCode
from tests.support import sounds

TESTS = Path(__file__).parents[1]
SPEECH = TESTS / "data" / "speech"
CONFIG = TranscriberConfig(model=str(TESTS / "models" / "asr"), device="cpu", threads=1)
GUARD = HallucinationThresholds()
TERMS = ("Kubernetes", "세종대로 12", "GraphQL")


@pytest.fixture(scope="module")
def model() -> Whisper:
    return Whisper(CONFIG)


@pytest.fixture(scope="module")
def chunks() -> list[Chunk]:
    """Synthesized sentences in English and Korean."""
    texts = json.loads((SPEECH / "texts.json").read_text(encoding="utf-8"))
    found = []
    for name in sorted(texts)[:2] + sorted(texts)[-2:]:
        audio = soundfile.read(SPEECH / name, dtype="int16")[0]
        found.append(Chunk(audio=audio, start_s=0.0, language=texts[name]["language"]))
    return found


def letters(text: str) -> list[int]:
    """A token per letter."""
    return list(map(ord, text))


def test_terms_fit_in_the_requests_order() -> None:
    """Until the first that does not fit; it and all behind it are counted, and none is cut in the middle."""
    whole = text_before(TERMS, letters)
    assert ("".join(map(chr, whole.ids)), whole.cut) == (" Kubernetes, 세종대로 12, GraphQL.", 0)
    many = [f"name{number:04}" for number in range(100)]
    fitting = text_before(many, letters)
    kept = 100 - fitting.cut
    assert "".join(map(chr, fitting.ids)) == f" {', '.join(many[:kept])}."
    assert len(fitting.ids) <= MOST_TOKENS < len(fitting.ids) + len(", name0000")
    assert text_before(["a" * 300, "b"], letters).cut == 2
    assert text_before([], letters).ids == ()


def test_a_term_is_text_and_no_command(model: Whisper) -> None:
    """What looks like one of the recogniser's own signs is letters to it; the sign that begins the text is its own."""
    begin, *ids = model.text_before(["<|endoftext|>", "<|ko|>", "GraphQL"]).ids
    sign = load(CONFIG, "cpu").hf_tokenizer.token_to_id
    assert begin == sign("<|startofprev|>")
    assert max(ids) < sign("<|endoftext|>")
    assert model.text_before([]).ids == ()


def test_texts_and_probabilities_are_faster_whispers(chunks: list[Chunk]) -> None:
    """Text, mean log-probability and probability of no speech are those of faster-whisper after the same text before.

    Mixed with items that have none, or another one: an item's answer is its own.
    """
    exact = CONFIG.model_copy(update={"compute_type": "float32"})
    model, oracle = Whisper(exact), load(exact, "cpu")
    terms: list[tuple[str, ...]] = [TERMS, (), TERMS[:1], TERMS]
    before = [model.text_before(each).ids for each in terms]
    encoded = model.encode([model.features(chunk.audio) for chunk in chunks])
    prompts = [[*ids, *model.prompt(chunk.language)] for ids, chunk in zip(before, chunks, strict=True)]
    for chunk, ids, written in zip(chunks, before, model.write(encoded, prompts), strict=True):
        padded = np.zeros(30 * SAMPLE_RATE_HZ, np.float32)
        padded[: len(chunk.audio)] = chunk.audio.astype(np.float32) / 32768
        options: dict[str, Any] = {"language": chunk.language, "without_timestamps": True, "temperature": 0}
        options |= {"no_speech_threshold": None, "log_prob_threshold": None, "initial_prompt": ids[1:] or None}
        [segment] = oracle.transcribe(padded, **options)[0]
        assert written.text == segment.text.strip()
        assert written.average_logprob == pytest.approx(segment.avg_logprob, abs=1e-4)
        assert written.no_speech == pytest.approx(segment.no_speech_prob, abs=1e-4)


@pytest.mark.parametrize(("terms", "calls"), [([(), (), ()], 1), ([TERMS, (), TERMS], 2)])
def test_a_batch_is_one_call_for_each_length_of_prompt(
    model: Whisper, chunks: list[Chunk], monkeypatch: pytest.MonkeyPatch, terms: list[tuple[str, ...]], calls: int
) -> None:
    """Where nobody has a vocabulary it is one call, for the encoder's output as it is."""
    asked: list[Any] = []
    original = model._model.model

    class Counting:
        def __getattr__(self, name: str) -> Any:
            return getattr(original, name)

        def generate(self, encoded: Any, prompts: Any, **options: Any) -> Any:
            asked.append(encoded)
            return original.generate(encoded, prompts, **options)

    monkeypatch.setattr(model._model, "model", Counting())
    encoded = model.encode([model.features(chunk.audio) for chunk in chunks[:3]])
    model.write(encoded, [[*model.text_before(each).ids, *model.prompt("en")] for each in terms])
    assert len(asked) == calls
    assert (asked[0] is encoded) == (calls == 1)


@pytest.mark.parametrize(("words", "told"), [(3, True), (420, False)])
def test_words_have_the_decoders_probabilities_and_the_times_of_the_sound(
    model: Whisper, chunks: list[Chunk], monkeypatch: pytest.MonkeyPatch, words: int, *, told: bool
) -> None:
    """A term is as likely as with the vocabulary, and begins where it does without; others are asked for once.

    Where text and vocabulary are too long together, the text has the room.
    """
    begin = model.text_before(TERMS).ids[0]

    def attend(_encoded: Any, prompt: list[int], texts: list[Any], _durations_s: Any) -> list[Attended]:
        with_terms = float(prompt[0] == begin)
        return [Attended(starts_s=np.array([with_terms]), probabilities=np.array([with_terms])) for _ in texts]

    found: list[Any] = []
    monkeypatch.setattr(model, "attend", attend)
    monkeypatch.setattr(
        "deployments.transcriber.batch_word_times._timed",
        lambda each, _text, attended: found.append(attended) or (each.utterance, True),
    )
    said = Utterance(start_s=0.0, end_s=3.0, text="a " * words)
    written = [
        Untimed(item=0, chunk=replace(chunks[0], vocabulary=vocabulary), language="en", utterance=said)
        for vocabulary in (TERMS, ())
    ]
    with_words(model, model.encode([model.features(chunks[0].audio)]), written)
    assert [(each.starts_s[0], each.probabilities[0]) for each in found] == [(0.0, float(told)), (0.0, 0.0)]


class Scripted:
    """A model that writes one thing with a vocabulary before its prompt and another without; one token a term."""

    device = "cpu"

    def __init__(self, told: Hypothesis, plain: Hypothesis, *, cut: int = 0) -> None:
        self.answers = {True: told, False: plain}
        self.cut = cut
        self.asked: list[tuple[bool, float]] = []

    def window_s(self, _samples: int) -> float:
        return 30.0

    def features(self, _audio: Any, _window_s: float) -> Any:
        return np.zeros((1, 3000), np.float32)

    def encode(self, features: list[Any]) -> list[Any]:
        return features

    def prompt(self, _language: str) -> list[int]:
        return [1]

    def chosen(self, encoded: list[Any], items: list[int]) -> list[Any]:
        return [encoded[item] for item in items]

    def text_before(self, vocabulary: Any) -> Any:
        return replace(text_before(vocabulary, letters), cut=self.cut)

    def write(self, _encoded: Any, prompts: list[list[int]], *, temperature: float = 0.0) -> list[Hypothesis]:
        self.asked += [(len(prompt) > 1, temperature) for prompt in prompts]
        return [self.answers[len(prompt) > 1] for prompt in prompts]


def hypothesis(text: str, logprob: float = -0.1, no_speech: float = 0.0) -> Hypothesis:
    return Hypothesis(text=text, average_logprob=logprob, no_speech=no_speech)


def heard(model: Scripted, vocabulary: tuple[str, ...] = TERMS, speech_share: float = 1.0) -> tuple[str, list[str]]:
    """The text and the warnings of a chunk of 3 s."""
    chunk = Chunk(audio=sounds.syllables_of_noise(3.0), start_s=0.0, language="en", vocabulary=vocabulary)
    ears = WhisperRecognizer(model, GUARD, frozenset({"en"}))  # type: ignore[arg-type]
    [found] = ears.transcribe([replace(chunk, speech_share=speech_share)])
    assert isinstance(found, Transcript)
    return " ".join(each.text for each in found.utterances), [each.code for each in found.warnings]


def test_without_a_vocabulary_nothing_is_told() -> None:
    """The prompt of a job that gives none is the release before's, and so is the number of tries."""
    model = Scripted(hypothesis("told"), hypothesis("Kubernetes, GraphQL."))
    assert heard(model, ()) == ("Kubernetes, GraphQL.", [])
    assert model.asked == [(False, 0.0)]
    assert heard(model) == ("told", [])
    assert model.asked[1:] == [(True, 0.0)]


def test_a_list_that_is_said_stays() -> None:
    """Nothing but terms, and without the vocabulary about as much is heard."""
    model = Scripted(hypothesis("Kubernetes, GraphQL."), hypothesis("Cooper nettys graph cue ell."))
    assert heard(model) == ("Kubernetes, GraphQL.", [])


@pytest.mark.parametrize("plain", ["", "you"])
def test_a_list_that_is_only_copied_is_not_believed(plain: str) -> None:
    """Nothing but terms, of which hardly a letter is heard without the vocabulary: that stands instead."""
    model = Scripted(hypothesis("Kubernetes, 세종대로 12, Graph"), hypothesis(plain))
    assert heard(model)[0] == plain
    assert model.asked == [(True, 0.0), (False, 0.0)]


def test_what_is_doubtful_is_tried_again_without_the_vocabulary() -> None:
    """A guess may come from the text before: at higher temperatures that is left out, as Whisper does."""
    model = Scripted(hypothesis("Kubernetes is a guess", -2.0), hypothesis("Good morning."))
    assert heard(model) == ("Good morning.", [])
    assert model.asked == [(True, 0.0), (False, GUARD.temperatures[0])]


def test_terms_that_do_not_fit_are_told() -> None:
    """With their number, by each chunk; a result tells it once (test_warnings.py)."""
    assert heard(Scripted(hypothesis("told"), hypothesis("plain"), cut=7)) == ("told", [WarningCode.VOCABULARY_CUT])


@pytest.mark.parametrize(
    ("text", "recited"),
    [
        ("Kubernetes, 세종대로 12, GraphQL.", True),
        ("GraphQL GraphQL GraphQL", True),
        ("kubernetes", True),
        ("Kubernetes, 세종대", True),
        ("Kubernetes and GraphQL.", False),
        ("Kuber", False),
        ("", False),
        ("...", False),
    ],
)
def test_what_is_nothing_but_terms(text: str, *, recited: bool) -> None:
    """In any case and order, again and again, the last one cut short; not with another word, nor without a term."""
    assert is_recited(text, TERMS) == recited
    assert not is_recited(text, ())


@pytest.mark.parametrize(
    ("no_speech", "share", "speech_s", "left"),
    [(0.0, 1.0, 3.0, True), (0.7, 1.0, 3.0, False), (0.0, 0.1, 3.0, False), (0.0, 1.0, 0.1, False)],
)
def test_a_list_over_hardly_any_speech_is_left_out(no_speech: float, share: float, speech_s: float, left: bool) -> None:  # noqa: FBT001
    """Where the model or the detector finds no speech, or too little for so many letters; a sentence may stay there."""
    text = "Kubernetes, GraphQL."
    found = filtered(hypothesis(text, no_speech=no_speech), share, GUARD, speech_s=speech_s, vocabulary=TERMS)
    assert found.text == (text if left else "")
    assert found.warnings == (() if left else (WarningCode.SILENT_TEXT_DROPPED,))
    sentence = filtered(hypothesis("I like GraphQL."), 0.1, GUARD, speech_s=3.0, vocabulary=TERMS)
    assert sentence.text == "I like GraphQL."


def test_the_warning_of_all_chunks_is_one() -> None:
    """Its count is the vocabulary's, not the sum over the chunks."""
    from deployments.warnings import merged

    cut = ResultWarning(code=WarningCode.VOCABULARY_CUT, count=7)
    assert merged([cut, cut, cut]) == [cut]
