"""The engine `ctc`: word times by a wav2vec2 model per language, for utterances of many chunks and jobs at once.

Knows nothing of Ray or jobs. Words get proportional times where no model can align them: text that does not fit into
its audio, audio shorter than a frame, text of punctuation only, a language without a model.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING

from deployments.aligner import acoustic
from deployments.aligner.paths import fill_gaps, has_path, place
from deployments.aligner.proportional import interpolated, timed
from deployments.aligner.vocabulary import Spelling, spell, words_of
from deployments.audio_checks import amplified
from deployments.batch_backoff import hits_all, in_halves
from deployments.device import check_device, require_device
from deployments.errors import ModelMissingError
from deployments.types import SAMPLE_RATE_HZ, Word
from deployments.warnings import ResultWarning, WarningCode

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch

    from deployments.aligner.acoustic import AcousticModel
    from deployments.aligner.config import AlignerConfig
    from deployments.aligner.protocol import AlignItem
    from deployments.types import Audio, Transcript, Utterance


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """An utterance that a model can align: its samples, its words and their spelling."""

    utterance: Utterance
    audio: Audio
    words: list[str]
    spelling: Spelling


class CtcAligner:
    """Aligns each transcript with the model of its language. Loads models when first needed; `models_kept` stay."""

    def __init__(self, config: AlignerConfig, locate: Callable[[str], str] = str) -> None:
        require_device("aligner.device", config.device)
        self._device = config.device
        self._batch_samples = round(config.batch_s * SAMPLE_RATE_HZ)
        self._names = dict(config.models)
        self._loading = threading.Lock()
        self._load = lru_cache(config.models_kept)(lambda name: acoustic.load(locate(name), device=config.device))
        for language in config.preload:
            self._model(language)

    def align(self, items: Sequence[AlignItem]) -> list[Transcript | Exception]:
        """See `WordAligner`."""
        indices: dict[str, list[int]] = defaultdict(list)
        for index, item in enumerate(items):
            indices[item.transcript.language].append(index)
        answers: dict[int, Transcript | Exception] = {}
        for language, chosen in indices.items():
            answers.update(zip(chosen, self._align(language, [items[index] for index in chosen]), strict=True))
        return [answers[index] for index in range(len(items))]

    def check(self) -> None:
        """Raise DeviceError where the device does not compute any more."""
        check_device(self._device)

    def _align(self, language: str, items: list[AlignItem]) -> list[Transcript | Exception]:
        """Align items of one language."""
        if language not in self._names:  # the recogniser has timed its words
            return _unaligned(items, language)
        try:
            model = self._model(language)
        except ModelMissingError:
            return _unaligned(items, language)
        except Exception as error:
            if hits_all(error):
                raise
            return [error] * len(items)  # the answer to this language's items; other languages are aligned
        spoken = [(utterance, item.audio) for item in items for utterance in item.transcript.utterances]
        answers = iter(align_utterances(model, spoken, language, batch_samples=self._batch_samples))
        return [_joined(item.transcript, list(islice(answers, len(item.transcript.utterances)))) for item in items]

    def _model(self, language: str) -> AcousticModel:
        """Return the language's model. Raises what `acoustic.load` raises, and ValueError where none is configured."""
        if language not in self._names:
            raise ValueError(f"no aligner is known for language {language!r}")
        with self._loading:  # else two threads would load the same one
            return self._load(self._names[language])


def _unaligned(items: Sequence[AlignItem], language: str) -> list[Transcript | Exception]:
    warning = ResultWarning(code=WarningCode.ALIGNER_MISSING, language=language)
    return [interpolated(item.transcript, warning) for item in items]


def align_utterances(
    model: AcousticModel, spoken: Sequence[tuple[Utterance, Audio]], language: str, *, batch_samples: int
) -> list[Utterance | Exception]:
    """Return each utterance with its words timed, or its error. Each comes with the whole audio that it lies in."""
    answers: dict[int, Utterance | Exception] = {}
    tasks: dict[int, Task] = {}
    for index, (utterance, audio) in enumerate(spoken):
        task = task_of(model, utterance, audio, language)
        if task is None:
            answers[index] = timed(utterance, language)
        else:
            tasks[index] = task
    lengths = {index: len(task.audio) for index, task in tasks.items()}
    for batch in batches(lengths, batch_samples):
        emissions = in_halves(model.emissions, [tasks[index].audio for index in batch])
        for index, log_probs in zip(batch, emissions, strict=True):
            answers[index] = _answer(model, tasks[index], log_probs, language)
    return [answers[index] for index in range(len(spoken))]


def task_of(model: AcousticModel, utterance: Utterance, audio: Audio, language: str) -> Task | None:
    """Return what to align; None where there is nothing, or nothing that the model can spell."""
    words = words_of(utterance.text, language)
    samples = amplified(utterance.of(audio))  # not every model scales its input
    if utterance.words or len(samples) < model.min_samples:
        return None
    spelling = spell(words, model.vocabulary)
    return Task(utterance=utterance, audio=samples, words=words, spelling=spelling) if spelling.tokens else None


def batches(lengths: dict[int, int], most: int) -> list[list[int]]:
    """Group the keys of `lengths` by similar length, longest first; a padded group of several is at most `most`."""
    groups: list[list[int]] = []
    for key in sorted(lengths, key=lambda key: -lengths[key]):
        if groups and lengths[groups[-1][0]] * (len(groups[-1]) + 1) <= most:
            groups[-1].append(key)
        else:
            groups.append([key])
    return groups


def _answer(
    model: AcousticModel, task: Task, log_probs: torch.Tensor | Exception, language: str
) -> Utterance | Exception:
    if isinstance(log_probs, Exception):
        return log_probs
    if not has_path(task.spelling, len(log_probs)):
        return timed(task.utterance, language)
    try:
        return with_words(task, log_probs, model)
    except Exception as error:  # noqa: BLE001  this utterance's answer; the others are aligned
        return error


def with_words(task: Task, log_probs: torch.Tensor, model: AcousticModel) -> Utterance:
    """Return the utterance with its words placed by `log_probs`, shape (frames, labels).

    A frame lasts the audio's length over the number of frames, as in whisperX: a little more than the model's step.
    """
    utterance, frames = task.utterance, len(log_probs)
    frame_s = len(task.audio) / SAMPLE_RATE_HZ / frames
    places = fill_gaps(place(log_probs, task.spelling, model.vocabulary), frames)
    words = tuple(
        Word(
            start_s=min(utterance.start_s + placed.start * frame_s, utterance.end_s),
            end_s=min(utterance.start_s + placed.end * frame_s, utterance.end_s),
            text=text,
            alignment_score=placed.score,
        )
        for text, placed in zip(task.words, places, strict=True)
    )
    return replace(utterance, words=words)


def _joined(transcript: Transcript, utterances: list[Utterance | Exception]) -> Transcript | Exception:
    """Return `transcript` with the aligned utterances, or the first error among them."""
    done: list[Utterance] = []
    for utterance in utterances:
        if isinstance(utterance, Exception):
            return utterance
        done.append(utterance)
    return replace(transcript, utterances=tuple(done))
