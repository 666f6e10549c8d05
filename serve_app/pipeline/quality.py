"""How far a result can be trusted: figures about the sound and the text, and a verdict with its reasons.

Plain functions over what each attempt at a job has, resumed or not: the detected speech, the level track, the
speakers' activity, the words and the warnings. docs/api.md has the rules, docs/benchmarks.md on what they were checked.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from deployments.transcriber.passages import AMONG_ALL
from deployments.types import FRAMES_PER_S
from deployments.warnings import WarningCode
from serve_app.pipeline.assemble import check_finite
from serve_app.verdicts import Reason, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from deployments.diarizer.protocol import Segmentation
    from deployments.types import Segment, Span, Tracks
    from deployments.warnings import ResultWarning
    from serve_app.pipeline.channels import Channels

EDGE_S = 0.2
"""Around detected speech: frames there are neither speech nor background."""
LEAST_BACKGROUND_S = 0.5
"""With less sound beside the speech there is no `snr_db`."""
SILENT_DBFS = -100.0
"""Frames below it are digital silence, which says nothing of the noise under the speech: gates, gaps and damage."""
SNR_DB = (-10.0, 60.0)
"""Least and most: beyond, the difference is one of measurement."""
ACTIVE = 0.5
"""Score above which a local speaker of the diarizer's windows speaks."""
BESIDE_S = 0.3
"""Around a word: speech there counts as written, since words' times and the detector's edges differ."""
SHORT_S = 0.01
"""What a word counts at least in the mean confidence."""
DIGITS = 3
"""Of a figure in the result; the verdict is of the figures that are shown."""
DAMAGE = {WarningCode.AUDIO_DAMAGED, WarningCode.AUDIO_GAPS, WarningCode.AUDIO_INCOMPLETE}
DROPPED = {
    WarningCode.SILENT_TEXT_DROPPED,
    WarningCode.PHANTOM_DROPPED,
    WarningCode.REPEATED_TEXT_DROPPED,
    WarningCode.UNHEARD_DROPPED,
    WarningCode.LOOP_CUT,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """From which value on a figure speaks against a result; downwards where `is_least`.

    `poor` is None where the figure alone never makes a result poor.
    """

    reason: Reason
    doubtful: float
    poor: float | None = None
    is_least: bool = False

    def passed(self, value: float, limit: float) -> bool:
        """Return whether `value` lies at or beyond `limit`."""
        return value <= limit if self.is_least else value >= limit


LIMITS = (
    Limit(reason=Reason.NO_SPEECH, doubtful=0.0),
    Limit(reason=Reason.LOW_CONFIDENCE, doubtful=0.85, poor=0.65, is_least=True),
    Limit(reason=Reason.SPEECH_UNCERTAIN, doubtful=0.1, poor=0.5),
    Limit(reason=Reason.SPEECH_UNWRITTEN, doubtful=0.1, poor=0.5),
    Limit(reason=Reason.TEXT_DROPPED, doubtful=2.0),
    Limit(reason=Reason.LANGUAGE_UNCERTAIN, doubtful=round(1 - AMONG_ALL.confirmed, DIGITS)),
    Limit(reason=Reason.LOW_SNR, doubtful=6.0, is_least=True),
    Limit(reason=Reason.AUDIO_CLIPPED, doubtful=0.2),
    Limit(reason=Reason.AUDIO_DAMAGED, doubtful=0.05, poor=0.3),
    Limit(reason=Reason.OVERLAPPED, doubtful=0.2),
)
"""What each is a limit of, and why it is this value: docs/api.md."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """The share of the speakers' time in which more than one of them speaks, 0-1; None where nobody speaks."""

    share: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """The figures; None where one is not known."""

    damaged_s: float
    clipped_share: float
    snr_db: float | None
    speech_share: float | None
    wordless_share: float | None
    overlap_share: float | None
    mean_confidence: float | None
    language_doubt: float | None
    dropped_texts: int


def report(
    *,
    audio_s: float,
    channels: Channels | None = None,
    speech: Sequence[Span],
    tracks: Tracks | None,
    overlap: Overlap | None,
    segments: Sequence[Segment],
    language_probability: float | None,
    warnings: Sequence[ResultWarning],
) -> dict[str, Any]:
    """Return the contract's `quality` object: the verdict, its reasons, and the figures that are known.

    `channels` are those that are kept apart. `tracks`, `overlap` and `language_probability` are None where they are not
    known. Of each code there is one warning in `warnings` at most, but for those with a language.

    Raises ValueError where a figure is not finite.
    """
    sound_s = channels.sound_s if channels else audio_s
    figures = Quality(
        damaged_s=sum((each.seconds or 0.0 for each in warnings if each.code in DAMAGE), 0.0),
        clipped_share=sum((each.share or 0.0 for each in warnings if each.code is WarningCode.AUDIO_CLIPPED), 0.0),
        snr_db=snr_db(tracks, speech) if tracks else None,
        speech_share=min(1.0, sum(each.duration_s for each in speech) / sound_s) if sound_s else None,
        wordless_share=wordless_share(speech, segments, audio_s),
        overlap_share=overlap.share if overlap else None,
        mean_confidence=mean_confidence(segments),
        language_doubt=None if language_probability is None else 1.0 - language_probability,
        dropped_texts=sum(each.count or 0 for each in warnings if each.code in DROPPED),
    )
    check_finite(figures)
    shown: dict[str, Any] = {
        name: None if value is None else round(value, DIGITS) for name, value in asdict(figures).items()
    }
    verdict, reasons = judged(
        Quality(**shown),
        sound_s=sound_s,
        part_s=sound_s / channels.count if channels else audio_s,
        uncertain_s=uncertain_s(warnings),
        has_words=bool(segments),
    )
    known = {name: value for name, value in shown.items() if value is not None}
    return {"verdict": verdict.value, "reasons": [reason.value for reason in reasons], **known}


def snr_db(tracks: Tracks, speech: Sequence[Span]) -> float | None:
    """Return by how many dB the speech is louder than the background, within `SNR_DB`.

    The speech's level is its mean power without the background's, which is the median of the frames beside it. None
    without speech, and where less than `LEAST_BACKGROUND_S` beside it is more than digital silence.
    """
    levels = tracks.level_dbfs
    spoken = levels[_covered(speech, levels.size, start_s=tracks.start_s)]
    background = levels[~_covered(speech, levels.size, start_s=tracks.start_s, edge_s=EDGE_S)]
    spoken, background = spoken[spoken > SILENT_DBFS], background[background > SILENT_DBFS]
    if not spoken.size or background.size < LEAST_BACKGROUND_S * FRAMES_PER_S:
        return None
    noise = 10 ** (float(np.median(background)) / 10)
    power = float(np.mean(10 ** (spoken.astype(np.float64) / 10)))
    ratio = max(power / noise - 1.0, 10 ** (SNR_DB[0] / 10))
    return min(10 * float(np.log10(ratio)), SNR_DB[1])


def wordless_share(speech: Sequence[Span], segments: Sequence[Segment], audio_s: float) -> float | None:
    """Return the share of the detected speech in which no word is written, 0-1; None without speech."""
    frames = math.ceil(audio_s * FRAMES_PER_S)
    spoken = _covered(speech, frames)
    written = _covered([word for segment in segments for word in segment.words], frames, edge_s=BESIDE_S)
    total = int(np.count_nonzero(spoken))
    return int(np.count_nonzero(spoken & ~written)) / total if total else None


def _covered(spans: Sequence[Span], frames: int, *, start_s: float = 0.0, edge_s: float = 0.0) -> NDArray[np.bool_]:
    """Return which of the frames from `start_s` on lie inside `spans` or within `edge_s` of one: shape (frames,)."""
    steps = np.zeros(frames + 1, np.int32)
    edges_s = np.array([(each.start_s - edge_s, each.end_s + edge_s) for each in spans]).reshape(-1, 2)
    first, last = np.clip(np.round((edges_s - start_s) * FRAMES_PER_S).astype(int), 0, frames).T
    np.add.at(steps, first, 1)
    np.add.at(steps, last, -1)
    covered: NDArray[np.bool_] = np.cumsum(steps[:-1]) > 0
    return covered


def overlap_of(segmentations: Sequence[Segmentation]) -> Overlap:
    """Return how much of the speakers' time several of them share.

    By the windows of the diarizer, since its turns may be those of one speaker at each moment.
    """
    spoken = overlapped = 0
    for each in segmentations:
        speakers = np.count_nonzero(each.scores > ACTIVE, axis=-1)
        spoken += int(np.count_nonzero(speakers))
        overlapped += int(np.count_nonzero(speakers > 1))
    return Overlap(share=overlapped / spoken if spoken else None)


def mean_confidence(segments: Sequence[Segment]) -> float | None:
    """Return the words' mean confidence, each weighted by its time; None where no word has one."""
    known = [
        (word.confidence, max(word.duration_s, SHORT_S))
        for segment in segments
        for word in segment.words
        if word.confidence is not None and math.isfinite(word.confidence)
    ]
    if not known:
        return None
    values, weights = np.array(known).T
    return float(np.average(values, weights=weights))


def uncertain_s(warnings: Sequence[ResultWarning]) -> float:
    """Return the seconds of speech that were hard to understand."""
    return sum((each.seconds or 0.0 for each in warnings if each.code is WarningCode.SPEECH_UNCERTAIN), 0.0)


def judged(
    quality: Quality, *, sound_s: float, part_s: float, uncertain_s: float, has_words: bool
) -> tuple[Verdict, list[Reason]]:
    """Return the verdict and what speaks against the result, what makes it poor before what makes it doubtful.

    `part_s`: of the video that was listened to; `sound_s`: of all its channels that are kept apart, else the same. A
    figure that is not known speaks for nothing.
    """
    evidence = _evidence(quality, sound_s, part_s, uncertain_s, has_words=has_words)
    known = [(limit, value) for limit in LIMITS if (value := evidence[limit.reason]) is not None]
    poor = [limit.reason for limit, value in known if limit.poor is not None and limit.passed(value, limit.poor)]
    doubtful = [limit.reason for limit, value in known if limit.passed(value, limit.doubtful)]
    verdict = Verdict.POOR if poor else Verdict.DOUBTFUL if doubtful else Verdict.GOOD
    return verdict, list(dict.fromkeys((*poor, *doubtful)))


def _evidence(
    quality: Quality, sound_s: float, part_s: float, uncertain_s: float, *, has_words: bool
) -> dict[Reason, float | None]:
    """Return the value that each reason is judged by; None where it is not known."""
    speech_s = (quality.speech_share or 0.0) * sound_s
    return {
        Reason.NO_SPEECH: None if has_words else 1.0,
        Reason.SPEECH_UNCERTAIN: min(1.0, uncertain_s / speech_s) if speech_s else None,
        Reason.SPEECH_UNWRITTEN: quality.wordless_share if has_words else None,
        Reason.LOW_CONFIDENCE: quality.mean_confidence,
        Reason.LANGUAGE_UNCERTAIN: quality.language_doubt,
        Reason.TEXT_DROPPED: 60 * quality.dropped_texts / speech_s if speech_s else None,
        Reason.LOW_SNR: quality.snr_db,
        Reason.AUDIO_CLIPPED: quality.clipped_share,
        Reason.AUDIO_DAMAGED: min(1.0, quality.damaged_s / part_s) if part_s else None,
        Reason.OVERLAPPED: quality.overlap_share,
    }
