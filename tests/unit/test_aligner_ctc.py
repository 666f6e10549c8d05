from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.aligner import acoustic
from deployments.aligner.config import AlignerConfig
from deployments.aligner.ctc import CtcAligner, batches
from deployments.aligner.proportional import timed
from deployments.aligner.protocol import AlignItem
from deployments.aligner.registry import create
from deployments.batch_backoff import BatchBackoff, in_halves
from deployments.errors import ModelLoadError
from deployments.types import SAMPLE_RATE_HZ, Transcript, Utterance, Word
from deployments.warnings import ResultWarning, WarningCode
from tests.support.alignment_clips import MODEL, MODELS, Clip, clips

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deployments.types import Audio

FRAME_S = 0.0206
"""A frame of the longest and shortest clips: 20 ms, stretched so that the frames fill the audio."""
ALONE_OR_NOT = 1e-4
"""By so much may an answer (seconds, scores) differ with its neighbours in a batch: by rounding."""
KEPT = ResultWarning(code=WarningCode.LOOP_CUT, count=1)
NUMERALS = {"three": "3", "six": "6", "seven": "7", "eight": "8", "ten": "10"}


@pytest.fixture(scope="module")
def aligner() -> CtcAligner:
    engine = create(AlignerConfig(engine="ctc", models={"en": MODEL, "ko": MODEL}, preload=("en",)))
    assert isinstance(engine, CtcAligner)
    return engine


@pytest.fixture(scope="module")
def recorded() -> list[Clip]:
    return clips()


@pytest.fixture(scope="module")
def english(recorded: list[Clip]) -> Clip:
    return next(clip for clip in recorded if clip.name == "flite_slt")


def transcripts(aligner: CtcAligner, items: Sequence[AlignItem]) -> list[Transcript]:
    answers = aligner.align(items)
    assert [answer for answer in answers if isinstance(answer, Exception)] == []
    return [answer for answer in answers if isinstance(answer, Transcript)]


def item_of(clip: Clip) -> AlignItem:
    return AlignItem(audio=clip.audio, transcript=clip.transcript)


def words_of(transcript: Transcript) -> list[Word]:
    return [word for utterance in transcript.utterances for word in utterance.words]


def align_text(aligner: CtcAligner, audio: Audio, text: str, language: str = "en") -> tuple[Utterance, Transcript]:
    """The answer to `text` said in the whole of `audio`."""
    utterance = Utterance(start_s=0.0, end_s=len(audio) / SAMPLE_RATE_HZ, text=text, confidence=0.25)
    transcript = Transcript(language=language, utterances=(utterance,))
    [answer] = transcripts(aligner, [AlignItem(audio=audio, transcript=transcript)])
    return answer.utterances[0], answer


def assert_in_order(utterance: Utterance) -> None:
    edges = [utterance.start_s, *(edge for w in utterance.words for edge in (w.start_s, w.end_s)), utterance.end_s]
    assert all(a <= b for a, b in itertools.pairwise(edges)), edges


def whisperx_words(recorded: list[Clip]) -> list[Word]:
    """`whisperx.align`'s words of all clips, by the same model."""
    import whisperx

    model, metadata = whisperx.load_align_model("en", "cpu", model_name=MODEL)
    found = []
    for clip in recorded:
        segments = [{"text": u.text, "start": u.start_s, "end": u.end_s} for u in clip.transcript.utterances]
        audio = clip.audio.astype(np.float32) / 32768
        told = whisperx.align(segments, model, metadata, audio, "cpu")["word_segments"]
        found += [Word(start_s=w["start"], end_s=w["end"], text=w["word"], alignment_score=w["score"]) for w in told]
    return found


@pytest.fixture
def whisperx_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """NLTK, which whisperx cuts sentences with, finds its data here."""
    import nltk

    monkeypatch.setattr(nltk.data, "path", [str(MODELS / "nltk_data")])


@pytest.mark.usefixtures("whisperx_offline")
def test_words_lie_where_whisperx_puts_them_and_end_better(aligner: CtcAligner, recorded: list[Clip]) -> None:
    """95 % of the starts within a frame (20 ms) of whisperx.align's by the same model; ends nearer to the truth."""
    ours = [word for answer in transcripts(aligner, [item_of(clip) for clip in recorded]) for word in words_of(answer)]
    theirs = whisperx_words(recorded)
    truth = [word for clip in recorded for utterance in clip.truth for word in utterance.words]
    assert [word.text for word in ours] == [word.text for word in theirs]
    apart_s = np.abs([a.start_s - b.start_s for a, b in zip(ours, theirs, strict=True)])
    assert np.mean(apart_s <= 0.020) >= 0.95
    assert np.mean(apart_s <= FRAME_S) >= 0.98
    our_ends_s = np.abs([a.end_s - b.end_s for a, b in zip(ours, truth, strict=True)])
    their_ends_s = np.abs([a.end_s - b.end_s for a, b in zip(theirs, truth, strict=True)])
    for quantile in (0.5, 0.9):
        assert np.quantile(our_ends_s, quantile) <= np.quantile(their_ends_s, quantile)


def test_boundaries_are_the_synthesizers(aligner: CtcAligner, recorded: list[Clip]) -> None:
    """For every voice, unheard ones included: starts and ends within 40 ms in median of what the synthesizer says."""
    for clip, answer in zip(recorded, transcripts(aligner, [item_of(clip) for clip in recorded]), strict=True):
        truth = [word for utterance in clip.truth for word in utterance.words]
        found = words_of(answer)
        assert [word.text.strip(".").lower() for word in found] == [word.text for word in truth]
        starts_s = np.abs([a.start_s - b.start_s for a, b in zip(found, truth, strict=True)])
        ends_s = np.abs([a.end_s - b.end_s for a, b in zip(found, truth, strict=True)])
        assert np.median(starts_s) <= 0.04, clip.name
        assert np.median(ends_s) <= 0.04, clip.name
        assert all(word.alignment_score is not None and 0 < word.alignment_score <= 1 for word in found)
        for utterance in answer.utterances:
            assert_in_order(utterance)


def test_an_answer_does_not_depend_on_its_neighbours(aligner: CtcAligner, recorded: list[Clip]) -> None:
    """Alone, among other jobs' items of other lengths and languages, and in any order: the same to rounding."""
    items = [item_of(clip) for clip in recorded]
    alone = [transcripts(aligner, [item])[0] for item in items]
    assert {answer.language for answer in alone} == {"en", "ko"}
    order = np.random.default_rng(0).permutation(len(items)).tolist()
    together = transcripts(aligner, [items[index] for index in order])
    for index, answer in zip(order, together, strict=True):
        assert_same(answer, alone[index])


def assert_same(answer: Transcript, other: Transcript) -> None:
    assert answer.language == other.language
    for a, b in zip(words_of(answer), words_of(other), strict=True):
        assert a.text == b.text
        assert (a.start_s, a.end_s, a.alignment_score) == pytest.approx(
            (b.start_s, b.end_s, b.alignment_score), abs=ALONE_OR_NOT
        )


def test_threads_do_not_mix(aligner: CtcAligner, recorded: list[Clip]) -> None:
    """Calls from several threads at once get the answers that they get alone."""
    items = [item_of(clip) for clip in recorded]
    alone = [transcripts(aligner, [item])[0] for item in items]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(lambda item: transcripts(aligner, [item])[0], items))
    for answer, other in zip(together, alone, strict=True):
        assert_same(answer, other)


def test_numerals_get_the_times_of_what_was_said(aligner: CtcAligner, recorded: list[Clip]) -> None:
    """Words written as numerals begin and end where they do when they are spelled, mostly; the others do not move."""
    apart_s = []
    for clip in recorded:
        texts = [" ".join(NUMERALS.get(word.text, word.text) for word in utterance.words) for utterance in clip.truth]
        utterances = [
            replace(utterance, text=text, words=()) for utterance, text in zip(clip.truth, texts, strict=True)
        ]
        transcript = Transcript(language=clip.language, utterances=tuple(utterances))
        spelled, written = transcripts(aligner, [item_of(clip), AlignItem(audio=clip.audio, transcript=transcript)])
        for a, b in zip(words_of(spelled), words_of(written), strict=True):
            if b.text.isdigit():
                apart_s += [abs(a.start_s - b.start_s), abs(a.end_s - b.end_s)]
    assert len(apart_s) >= 20
    assert np.median(apart_s) <= 0.03
    assert np.quantile(apart_s, 0.9) <= 0.15


def test_signs_have_times_too(aligner: CtcAligner, english: Clip) -> None:
    """A numeral, a currency and a lone exclamation mark are words like others: start, end and score."""
    utterance, answer = align_text(aligner, english.audio, "It costs 42 $ !")
    assert [word.text for word in utterance.words] == ["It", "costs", "42", "$", "!"]
    assert_in_order(utterance)
    assert all(word.alignment_score is not None and 0 <= word.alignment_score <= 1 for word in utterance.words)
    assert answer.warnings == ()


def test_a_language_without_an_aligner_keeps_its_words_and_else_says_so(aligner: CtcAligner, english: Clip) -> None:
    """Words that the recogniser timed stay as they are; without those, letters are counted, with a warning.

    Neighbours in the call are aligned.
    """
    own = Transcript(language="xx", utterances=english.truth)
    assert transcripts(aligner, [AlignItem(audio=english.audio, transcript=own)]) == [own]
    strange = replace(english.transcript, language="xx", warnings=(KEPT,))
    answer, neighbour = transcripts(aligner, [AlignItem(audio=english.audio, transcript=strange), item_of(english)])
    assert answer.utterances == tuple(timed(utterance, "xx") for utterance in strange.utterances)
    spoken_s = sum(utterance.duration_s for utterance in strange.utterances)
    assert answer.warnings == (
        KEPT,
        ResultWarning(code=WarningCode.ALIGNER_MISSING, language="xx", seconds=spoken_s),
    )
    assert_same(neighbour, transcripts(aligner, [item_of(english)])[0])


def test_a_model_that_cannot_be_loaded_costs_its_own_items(english: Clip, tmp_path: object) -> None:
    """A folder that is not there: an error for that language's items alone; at start where it is to be preloaded."""
    config = AlignerConfig(engine="ctc", models={"en": MODEL, "de": f"{tmp_path}/none"})
    german = replace(english.transcript, language="de")
    failed, answer = create(config).align([AlignItem(audio=english.audio, transcript=german), item_of(english)])
    assert isinstance(failed, OSError)
    assert isinstance(answer, Transcript)
    with pytest.raises(OSError, match="none"):
        create(config.model_copy(update={"preload": ("de",)}))
    with pytest.raises(ValueError, match="'xx'"):
        create(config.model_copy(update={"preload": ("xx",)}))


@pytest.mark.parametrize(
    ("samples", "text"),
    [
        (0, "hello"),
        (1, "hello"),
        (399, "hello again"),
        (400, "hello"),
        (800, "hello hello hello"),
        (SAMPLE_RATE_HZ, "the old doctor sees my small garden from your window " * 9),
        (SAMPLE_RATE_HZ, "..."),
        (SAMPLE_RATE_HZ, "— !"),
    ],
)
def test_what_cannot_be_placed_is_shared_out(aligner: CtcAligner, english: Clip, samples: int, text: str) -> None:
    """Too short for a frame, too long a text, punctuation only: every word, by the share of its letters."""
    utterance, _ = align_text(aligner, english.audio[:samples], text)
    assert utterance == timed(replace(utterance, words=()), "en")
    assert [word.text for word in utterance.words] == text.split()


@pytest.mark.parametrize("text", ["", "   "])
def test_no_text_no_words(aligner: CtcAligner, english: Clip, text: str) -> None:
    """Nothing said, nothing timed, nothing raised."""
    assert align_text(aligner, english.audio, text)[0].words == ()


@pytest.mark.parametrize("text", ["I", "hello", "7", "42", "안녕", "B2"])
def test_a_single_word_is_aligned(aligner: CtcAligner, english: Clip, text: str) -> None:
    """One word, numerals only or of another script: inside its utterance, with a score of its own."""
    [word] = align_text(aligner, english.audio[: 2 * SAMPLE_RATE_HZ], text)[0].words
    assert 0 <= word.start_s < word.end_s <= 2
    assert word.alignment_score is not None
    assert word.alignment_score != 0.25


def test_a_transcript_beyond_its_audio_is_not_lost(aligner: CtcAligner, english: Clip) -> None:
    """An utterance that ends after the audio, and one that begins there."""
    half = Utterance(start_s=1.0, end_s=4.0, text="please wait")
    gone = Utterance(start_s=5.0, end_s=6.0, text="hello again")
    transcript = Transcript(language="en", utterances=(half, gone))
    [answer] = transcripts(aligner, [AlignItem(audio=english.audio[: 2 * SAMPLE_RATE_HZ], transcript=transcript)])
    assert [len(utterance.words) for utterance in answer.utterances] == [2, 2]
    for utterance in answer.utterances:
        assert_in_order(utterance)


def test_the_last_word_stays_inside_between_two_samples(aligner: CtcAligner, english: Clip) -> None:
    """Spans that lie between samples are cut at the nearest ones; the times still end where the utterance does."""
    between = Utterance(start_s=0.00003, end_s=1.99998, text="hello —")
    transcript = Transcript(language="en", utterances=(between,))
    [answer] = transcripts(aligner, [AlignItem(audio=english.audio, transcript=transcript)])
    assert_in_order(answer.utterances[0])
    assert answer.utterances[0].words[-1].end_s == between.end_s


def test_words_that_have_times_stay(aligner: CtcAligner, english: Clip) -> None:
    """An utterance that the recogniser has timed itself comes back as it was."""
    told = Utterance(start_s=0, end_s=2, text="yes", words=(Word(start_s=1.5, end_s=1.7, text="yes"),))
    transcript = Transcript(language="en", utterances=(told,))
    assert transcripts(aligner, [AlignItem(audio=english.audio, transcript=transcript)]) == [transcript]


def test_times_are_the_videos(aligner: CtcAligner, english: Clip) -> None:
    """The same speech an hour into a video has the same times, an hour later; the audio is not written to."""
    first = english.transcript.utterances[0]
    hour = np.zeros(3600 * SAMPLE_RATE_HZ, np.int16)
    late = np.concatenate([hour, english.audio])
    late.flags.writeable = False
    moved = replace(first, start_s=first.start_s + 3600, end_s=first.end_s + 3600)
    early, later = transcripts(
        aligner,
        [
            AlignItem(audio=english.audio, transcript=Transcript(language="en", utterances=(first,))),
            AlignItem(audio=late, transcript=Transcript(language="en", utterances=(moved,))),
        ],
    )
    for a, b in zip(words_of(early), words_of(later), strict=True):
        assert (a.start_s + 3600, a.end_s + 3600) == pytest.approx((b.start_s, b.end_s), abs=ALONE_OR_NOT)


@pytest.mark.parametrize(
    "audio",
    [
        np.zeros(SAMPLE_RATE_HZ),
        np.full(SAMPLE_RATE_HZ, 32767),
        np.random.default_rng(0).normal(scale=6000, size=SAMPLE_RATE_HZ),
        8000 * np.sin(np.arange(SAMPLE_RATE_HZ) * 2 * np.pi * 440 / SAMPLE_RATE_HZ),
    ],
    ids=["silence", "constant", "noise", "tone"],
)
def test_no_speech_still_gives_words_in_order(aligner: CtcAligner, audio: np.ndarray) -> None:
    """Text that nobody said in silence, noise or a tone: times inside, finite scores."""
    utterance, _ = align_text(aligner, audio.astype(np.int16), "hello old friend")
    assert_in_order(utterance)
    assert all(word.alignment_score is not None and 0 <= word.alignment_score <= 1 for word in utterance.words)


@settings(deadline=None, max_examples=60)
@given(
    text=st.lists(st.text(alphabet="abzé'ß|<>-—!?.,♪$%&42½ﬁ가한字の\u0301\u200b", min_size=1), max_size=8).map(
        " ".join
    ),
    language=st.sampled_from(["en", "ko", "xx"]),
    samples=st.integers(0, 3 * SAMPLE_RATE_HZ),
)
def test_odd_texts_give_all_their_words_in_order(
    aligner: CtcAligner, english: Clip, text: str, language: str, samples: int
) -> None:
    """Whatever is written, in whatever audio: every word once, in order, without overlap, inside the utterance."""
    utterance, _ = align_text(aligner, english.audio[:samples], text, language)
    assert [word.text for word in utterance.words] == text.split()
    assert_in_order(utterance)


def test_a_device_that_is_not_there_fails_at_start() -> None:
    """With the setting's name, and not in each call, where it would look like a failed alignment."""
    with pytest.raises(ModelLoadError, match=r"^aligner.device is cuda:77, but torch cannot compute there: "):
        create(AlignerConfig(engine="ctc", models={"en": MODEL}, device="cuda:77"))


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of models that are loaded; each is the tests' own model."""
    names: list[str] = []

    def load(name: str, device: str) -> acoustic.AcousticModel:
        names.append(name)
        return really_load(MODEL, device)

    really_load = acoustic.load
    monkeypatch.setattr(acoustic, "load", load)
    return names


def test_few_models_stay_loaded(loaded: list[str], english: Clip) -> None:
    """With room for one model two languages in turn load each time, with room for two once; a name is loaded once."""
    for kept, times in ((1, 4), (2, 2)):
        engine = create(AlignerConfig(engine="ctc", models={"en": "a", "ko": "b"}, models_kept=kept))
        loaded.clear()
        for language in ("en", "ko", "en", "ko"):
            transcript = replace(english.transcript, language=language)
            assert isinstance(engine.align([AlignItem(audio=english.audio, transcript=transcript)])[0], Transcript)
        assert len(loaded) == times


def test_threads_load_a_model_once(loaded: list[str], english: Clip) -> None:
    """Four first calls at once: one load."""
    engine = create(AlignerConfig(engine="ctc", models={"en": "a"}))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(engine.align, [[item_of(english)]] * 4))
    assert loaded == ["a"]


@given(st.lists(st.integers(1, 500_000), max_size=40), st.integers(1, 2_000_000))
def test_batches_hold_what_they_may(lengths: list[int], most: int) -> None:
    """Everything once, longest first, neighbours in length together; no batch of several is more than it may be."""
    made = batches(dict(enumerate(lengths)), most)
    assert sorted(itertools.chain.from_iterable(made)) == list(range(len(lengths)))
    order = [lengths[index] for index in itertools.chain.from_iterable(made)]
    assert order == sorted(order, reverse=True)
    assert all(len(batch) == 1 or lengths[batch[0]] * len(batch) <= most for batch in made)


def test_a_batch_that_fails_is_halved(aligner: CtcAligner, english: Clip) -> None:
    """Who fails alone fails for himself; the others are done in halves of the batch."""
    model = aligner._model("en")
    sizes: list[int] = []

    class Small:
        def emissions(self, audios: Sequence[Audio]) -> list[object]:
            sizes.append(len(audios))
            if any(len(audio) == 500 for audio in audios):
                raise ValueError
            return list(model.emissions(audios))

    audios = [english.audio[:length] for length in (8000, 7000, 6000, 500, 400)]
    answers = in_halves(Small().emissions, audios)
    assert [isinstance(answer, ValueError) for answer in answers] == [False, False, False, True, False]
    assert sizes == [5, 2, 3, 1, 2, 1, 1]


@pytest.mark.parametrize("text", ["CUDA out of memory", "CUDA error: device-side assert triggered"])
def test_what_is_the_devices_is_no_utterances_failure(
    monkeypatch: pytest.MonkeyPatch, english: Clip, text: str
) -> None:
    """A lack of memory or a dead device while a model computes or loads is raised, for the backoff above to know."""
    error = RuntimeError(text)

    def fails(*_: object, **__: object) -> object:
        raise error

    aligner = create(AlignerConfig(engine="ctc", models={"en": MODEL}))
    assert isinstance(aligner, CtcAligner)
    aligner.check()
    for owner, name in ((acoustic, "load"), (acoustic.AcousticModel, "emissions")):
        with monkeypatch.context() as broken:
            broken.setattr(owner, name, fails)
            with pytest.raises(RuntimeError, match=text):
                aligner.align([item_of(english)])
    transcripts(aligner, [item_of(english)])


def test_too_little_memory_halves_the_items(
    monkeypatch: pytest.MonkeyPatch, aligner: CtcAligner, english: Clip
) -> None:
    """Where memory holds two utterances at a time, the backoff gives each item what it gets with room for all."""
    item = item_of(english)
    items = [
        replace(item, transcript=replace(item.transcript, utterances=(utterance,)))
        for utterance in item.transcript.utterances[:3] * 2
    ]
    expected = transcripts(aligner, items)
    really, sizes = acoustic.AcousticModel.emissions, []

    def narrow(model: acoustic.AcousticModel, audios: Sequence[Audio]) -> object:
        sizes.append(len(audios))
        if len(audios) > 2:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return really(model, audios)

    monkeypatch.setattr(acoustic.AcousticModel, "emissions", narrow)
    monkeypatch.setattr(aligner, "_batch_samples", 10**9)
    backoff = BatchBackoff(aligner.align, max_batch=16)
    for answer, before in zip(backoff(items), expected, strict=True):
        assert isinstance(answer, Transcript)
        assert_same(answer, before)
    assert sizes[0] == 6
    backoff.check()
