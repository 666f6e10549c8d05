"""The recordings of tests/data/held_out, and what the production engines on the small models get wrong of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import jiwer
import numpy as np
from scipy.optimize import linear_sum_assignment

from deployments.aligner.config import AlignerConfig
from deployments.diarizer.config import DiarizerConfig
from tests.support.alignment_clips import MODELS, Clip, load
from tests.support.real_graph import RealGraph

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deployments.types import Word

RECORDINGS = Path(__file__).parents[1] / "data" / "held_out"
MAX_CHUNK_S = 8.0
"""The small recogniser has learned little of longer chunks, as tests/models/README.md says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """How it differs from the truth.

    `starts_s`, `ends_s`: shape (words heard right,), how much later each begins and ends than the synthesizer says.
    `right_speaker`: of those words, the share given to their voice, voices and speakers matched as is best.
    """

    words: int
    errors: int
    starts_s: np.ndarray
    ends_s: np.ndarray
    right_speaker: float

    @property
    def error_rate(self) -> float:
        return self.errors / self.words


def graph(diarizer_model: Path, recognizer_model: Path = MODELS / "asr", max_chunk_s: float = MAX_CHUNK_S) -> RealGraph:
    """The stages on the small models, loaded. `diarizer_model` is a pipeline's folder."""
    aligner = AlignerConfig(engine="ctc", models=dict.fromkeys(("en", "ko"), str(MODELS / "aligner")))
    diarizer = DiarizerConfig(engine="pyannote", model=str(diarizer_model))
    return RealGraph(recognizer_model, max_chunk_s=max_chunk_s, aligner=aligner, diarizer=diarizer)


def recording(name: str) -> Clip:
    return load(RECORDINGS / f"{name}.json")


def score(clip: Clip, heard: Sequence[tuple[Word, int]]) -> Score:
    """Word errors without case and full stops; times and speakers of the words that are right."""
    said = [(word, voice) for each, voice in zip(clip.truth, clip.voices, strict=True) for word in each.words]
    reference, hypothesis = [word.text for word, _ in said], [plain(word.text) for word, _ in heard]
    found = jiwer.process_words(" ".join(reference), " ".join(hypothesis))
    pairs = [
        (*said[part.ref_start_idx + i], *heard[part.hyp_start_idx + i])
        for part in found.alignments[0]
        if part.type == "equal"
        for i in range(part.ref_end_idx - part.ref_start_idx)
    ]
    return Score(
        words=len(said),
        errors=found.substitutions + found.deletions + found.insertions,
        starts_s=np.array([word.start_s - true.start_s for true, _, word, _ in pairs]),
        ends_s=np.array([word.end_s - true.end_s for true, _, word, _ in pairs]),
        right_speaker=_right_speaker([(voice, speaker) for _, voice, _, speaker in pairs]),
    )


def plain(text: str) -> str:
    """Lower case, without full stops."""
    return text.lower().strip(".")


def _right_speaker(pairs: Sequence[tuple[str, int]]) -> float:
    voices, speakers = (sorted(set(side)) for side in zip(*pairs, strict=True))
    counts = np.array([[pairs.count((voice, speaker)) for speaker in speakers] for voice in voices])
    rows, columns = linear_sum_assignment(counts, maximize=True)
    return float(counts[rows, columns].sum() / len(pairs))
