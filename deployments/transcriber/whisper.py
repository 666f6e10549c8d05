"""The engine `whisperx`: Whisper over batches of chunks, with hallucinations filtered.

Chunks of one batch may be of different jobs and languages: each has its own prompt and does not influence the others.
Knows nothing of Ray or jobs.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np

from deployments.audio_checks import amplified, is_quiet, is_steady, is_tonal
from deployments.hallucinations.hypotheses import Hypothesis, Verdict, best, filtered, judge
from deployments.hallucinations.recitations import is_recited
from deployments.transcriber.batch_word_times import Untimed, with_words
from deployments.transcriber.encodings import Encodings
from deployments.transcriber.protocol import AUTO, BRIEF_S, Chunk
from deployments.transcriber.vocabulary import TextBefore
from deployments.types import SAMPLE_RATE_HZ, Transcript, Utterance
from deployments.warnings import ResultWarning, WarningCode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from deployments.hallucinations.config import HallucinationThresholds
    from deployments.transcriber.whisper_model import Whisper

Answer = TypeVar("Answer")

LIKE_LONG: Final = 0.5
"""Terms that somebody says are heard without the vocabulary, too, if otherwise: in at least so many letters for one."""


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A chunk with its log-mel spectrum, shape (mels, frames), float32."""

    chunk: Chunk
    features: NDArray[np.float32]


class WhisperRecognizer:
    """A loaded Whisper. Between calls it keeps nothing but what its encoder has computed already."""

    def __init__(
        self, model: Whisper, thresholds: HallucinationThresholds, timed_elsewhere: frozenset[str] = frozenset()
    ) -> None:
        """`timed_elsewhere`: languages whose words the Aligner times."""
        self._model = model
        self._encodings = Encodings(model.encode, keeps=model.device == "cpu")
        self._thresholds = thresholds
        self._timed_elsewhere = timed_elsewhere

    def transcribe(self, chunks: Sequence[Chunk]) -> list[Transcript | Exception]:
        """See `Recognizer`. A chunk has one utterance or none."""
        return self._each(chunks, self._transcribe, silent=self._silent_transcript)

    def detect(self, chunks: Sequence[Chunk], *, brief: bool = False) -> list[dict[str, float] | Exception]:
        """See `Recognizer`. Silence has no probabilities."""
        encode = self._model.encode if brief else self._encodings.keep

        def languages(prepared: Sequence[_Prepared]) -> list[dict[str, float]]:
            return self._model.languages(encode([each.features for each in prepared]))

        return self._each(chunks, languages, silent=lambda _: {}, window_s=BRIEF_S if brief else None)

    def _each(
        self,
        chunks: Sequence[Chunk],
        compute: Callable[[Sequence[_Prepared]], Sequence[Answer]],
        silent: Callable[[Chunk], Answer],
        window_s: float | None = None,
    ) -> list[Answer | Exception]:
        """Return `compute`'s answers for chunks that may hold speech, `silent`'s for silence, errors for bad chunks.

        Chunks of one window are computed together: of `window_s`, or of the model's own for each chunk's length.
        """
        prepared = [self._prepare(chunk, window_s) for chunk in chunks]
        answers: list[Any] = [
            silent(chunk) if each is None else each for chunk, each in zip(chunks, prepared, strict=True)
        ]
        alike: defaultdict[int, list[int]] = defaultdict(list)
        for number, each in enumerate(answers):
            if isinstance(each, _Prepared):
                alike[each.features.shape[1]].append(number)
        for numbers in alike.values():
            computed = compute([answers[number] for number in numbers])
            for number, answer in zip(numbers, computed, strict=True):
                answers[number] = answer
        return answers

    def _prepare(self, chunk: Chunk, window_s: float | None) -> _Prepared | Exception | None:
        """Return the chunk with its spectrum, None where it cannot hold speech, or its error.

        The spectrum is that of `window_s`, or of the model's own window for the chunk's length.
        """
        try:
            window_s = window_s or self._model.window_s(len(chunk.audio))
            check(chunk, window_s)
            if chunk.language != AUTO:
                self._model.prompt(chunk.language)
            if is_quiet(chunk.audio) or is_steady(chunk.audio) or is_tonal(chunk.audio):
                return None
            return _Prepared(chunk, self._model.features(amplified(chunk.audio), window_s))
        except Exception as error:  # noqa: BLE001  the error is this chunk's answer; the others are computed
            return error

    def _silent_transcript(self, chunk: Chunk) -> Transcript:
        """Return a transcript without words; with a warning where the detector took the chunk for speech."""
        reason = WarningCode.SPEECH_TOO_QUIET if is_quiet(chunk.audio) else WarningCode.NOT_SPEECH
        has_speech = chunk.speech_share >= self._thresholds.little_speech
        warnings = (ResultWarning(code=reason, seconds=_speech_s(chunk)),) if has_speech else ()
        return Transcript(language=chunk.language, device=self._model.device, warnings=warnings)

    def _transcribe(self, prepared: Sequence[_Prepared]) -> list[Transcript]:
        encoded = self._encodings.take([each.features for each in prepared])
        languages = [each.chunk.language for each in prepared]
        if AUTO in languages:
            found = self._model.languages(encoded)
            languages = [
                max(probabilities, key=probabilities.__getitem__) if language == AUTO else language
                for language, probabilities in zip(languages, found, strict=True)
            ]
        before = [self._text_before(each.chunk) for each in prepared]
        written = self._write(prepared, encoded, [self._model.prompt(language) for language in languages], before)
        transcripts = [
            self._transcript(each.chunk, language, hypothesis, cut=told.cut)
            for each, language, hypothesis, told in zip(prepared, languages, written, before, strict=True)
        ]
        return self._with_words(prepared, encoded, transcripts)

    def _with_words(
        self, prepared: Sequence[_Prepared], encoded: object, transcripts: list[Transcript]
    ) -> list[Transcript]:
        """Return the transcripts with their words timed, except those of languages that the Aligner times."""
        untimed = [
            Untimed(item=item, chunk=each.chunk, language=transcript.language, utterance=transcript.utterances[0])
            for item, (each, transcript) in enumerate(zip(prepared, transcripts, strict=True))
            if transcript.utterances and transcript.language not in self._timed_elsewhere
        ]
        answers = list(transcripts)
        for each, (utterance, attended) in zip(untimed, with_words(self._model, encoded, untimed), strict=True):
            failed = ResultWarning(code=WarningCode.ALIGNMENT_FAILED, seconds=utterance.duration_s)
            warnings = (*answers[each.item].warnings, *(() if attended else (failed,)))
            answers[each.item] = replace(answers[each.item], utterances=(utterance,), warnings=warnings)
        return answers

    def _text_before(self, chunk: Chunk) -> TextBefore:
        return self._model.text_before(chunk.vocabulary) if chunk.vocabulary else TextBefore()

    def _write(
        self, prepared: Sequence[_Prepared], encoded: object, prompts: list[list[int]], before: Sequence[TextBefore]
    ) -> Iterable[Hypothesis]:
        """Return a hypothesis per chunk. Doubtful ones, and no others, are decoded again at rising temperatures.

        That is done without the vocabulary, as Whisper does: what it copied from there is not copied again.
        """
        full = [[*told.ids, *prompt] if told.ids else prompt for told, prompt in zip(before, prompts, strict=True)]
        tries = [[first] for first in self._model.write(encoded, full)]
        self._doubt_recitals(prepared, encoded, prompts, tries)
        doubtful = self._doubtful(prepared, tries, range(len(prepared)))
        for temperature in self._thresholds.temperatures:
            if not doubtful:
                break
            chosen = self._model.chosen(encoded, doubtful)
            again = self._model.write(chosen, [prompts[i] for i in doubtful], temperature=temperature)
            for i, hypothesis in zip(doubtful, again, strict=True):
                tries[i].append(hypothesis)
            doubtful = self._doubtful(prepared, tries, doubtful)
        return [best(tried, self._thresholds) if i in doubtful else tried[-1] for i, tried in enumerate(tries)]

    def _doubt_recitals(
        self,
        prepared: Sequence[_Prepared],
        encoded: object,
        prompts: Sequence[list[int]],
        tries: Sequence[list[Hypothesis]],
    ) -> None:
        """Take what is written without the vocabulary in place of mere terms of it that are far longer: copied ones."""
        recited = [i for i, each in enumerate(prepared) if is_recited(tries[i][0].text, each.chunk.vocabulary)]
        if not recited:
            return
        again = self._model.write(self._model.chosen(encoded, recited), [prompts[i] for i in recited])
        for i, hypothesis in zip(recited, again, strict=True):
            if len(hypothesis.text) < LIKE_LONG * len(tries[i][0].text):
                tries[i][:] = [hypothesis]

    def _doubtful(
        self, prepared: Sequence[_Prepared], tries: Sequence[Sequence[Hypothesis]], among: Iterable[int]
    ) -> list[int]:
        return [
            i
            for i in among
            if judge(tries[i][-1], prepared[i].chunk.speech_share, self._thresholds) is Verdict.DOUBTFUL
        ]

    def _transcript(self, chunk: Chunk, language: str, hypothesis: Hypothesis, *, cut: int) -> Transcript:
        left = filtered(
            hypothesis,
            chunk.speech_share,
            self._thresholds,
            speech_s=_speech_s(chunk),
            vocabulary=chunk.vocabulary,
        )
        utterance = Utterance(
            start_s=chunk.start_s,
            end_s=chunk.start_s + len(chunk.audio) / SAMPLE_RATE_HZ,
            text=left.text,
            confidence=hypothesis.confidence,
        )
        return Transcript(
            language=language,
            device=self._model.device,
            utterances=(utterance,) if left.text else (),
            warnings=(*(_warning(code, chunk) for code in left.warnings), *((_cut(cut),) if cut else ())),
        )


def _cut(terms: int) -> ResultWarning:
    return ResultWarning(code=WarningCode.VOCABULARY_CUT, count=terms)


def _warning(code: WarningCode, chunk: Chunk) -> ResultWarning:
    """Return the warning of one chunk with its amount."""
    if code is WarningCode.SPEECH_UNCERTAIN:
        return ResultWarning(code=code, seconds=_speech_s(chunk))
    return ResultWarning(code=code, count=1)


def _speech_s(chunk: Chunk) -> float:
    return len(chunk.audio) / SAMPLE_RATE_HZ * chunk.speech_share


def check(chunk: Chunk, window_s: float) -> None:
    """Raise ValueError where `chunk` is not int16 mono or is longer than `window_s`."""
    if chunk.audio.dtype != np.int16 or chunk.audio.ndim != 1:
        raise ValueError(f"audio is {chunk.audio.dtype} of shape {chunk.audio.shape}, not int16 and mono")
    if len(chunk.audio) > window_s * SAMPLE_RATE_HZ + 1:  # its edges were rounded
        raise ValueError(f"a chunk of {len(chunk.audio) / SAMPLE_RATE_HZ:.1f} s is longer than {window_s:.0f} s")
