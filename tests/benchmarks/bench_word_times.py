"""Word times from Whisper's attention, with Whisper base: against synthesizers, and at the pauses of real speech.

    python -m tests.benchmarks words

Prints markdown. Whisper base lies where ML_SERVER_REAL_MODELS says. Settings were chosen on tests/data/alignment and
other synthesized voices; tests/data/held_out is what they are scored on. `known text`: the true words are forced, chunk
by chunk; `own text`: as a job hears it, and words that are right are scored. A word is over a pause where it has more
than 0.1 s of one that is 0.3 s long or longer. Of real voices nobody has written down times: pauses are those of the
level and the detector, and the first word behind one should start where it ends. `cost` is the processor's time with
word times over that without, same chunks, in turn.
"""

from __future__ import annotations

import difflib
import sys
import time
import warnings
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from deployments.speech_detector import registry as speech_detector  # noqa: E402
from deployments.speech_detector.chunks import cut_chunks  # noqa: E402
from deployments.speech_detector.config import SpeechDetectorConfig  # noqa: E402
from deployments.transcriber.batch_word_times import Untimed, with_words  # noqa: E402
from deployments.transcriber.config import TranscriberConfig  # noqa: E402
from deployments.transcriber.protocol import Chunk  # noqa: E402
from deployments.transcriber.whisper import WhisperRecognizer  # noqa: E402
from deployments.transcriber.whisper_model import Whisper  # noqa: E402
from deployments.transcriber.word_times import silences  # noqa: E402
from deployments.types import SAMPLE_RATE_HZ, Span, Utterance  # noqa: E402
from tests.benchmarks.report import say, table  # noqa: E402
from tests.support import real_models  # noqa: E402
from tests.support.alignment_clips import CLIPS, Clip, clips  # noqa: E402
from tests.support.real_graph import RealGraph, words_of  # noqa: E402
from tests.support.sounds import in_a_row  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deployments.types import Audio, Word

PAUSE_S, OVER_S, CHUNK_S = 0.3, 0.1, 30.0
SYNTHESIZED = ("", "words", "starts ms (median, p90)", "ends ms (median, p90)", "pauses with a word over them")
REAL = ("real speech", "words", "pauses", "with a word over them", "starts behind a pause ms (median, p90)")


def main() -> None:
    folder = real_models.part("whisper-base")
    if folder is None:
        say(real_models.MISSING)
        return
    warnings.simplefilter("ignore")
    model, graph = Whisper(TranscriberConfig(model=str(folder), device="cpu", threads=1)), RealGraph(folder)
    rows = []
    for name in ("alignment", "held_out"):
        for korean in (False, True):
            chosen = [clip for clip in clips(CLIPS.parent / name) if (clip.language == "ko") == korean]
            group = f"{name}, Korean" if korean else name
            rows.append(_row(f"{group}, known text", [(clip, forced(model, clip)) for clip in chosen]))
            if not korean:
                rows.append(_row(f"{group}, own text", [(c, heard(graph, c.audio, c.language)) for c in chosen]))
    say(table(SYNTHESIZED, rows))
    say()
    rows = [_real_row(graph, name, audios) for name, audios in real().items() if audios]
    say(f"{table(REAL, rows)}\n\ncost: {cost(model):.2f}")


def real() -> dict[str, list[Audio]]:
    """The voices, the meetings and the Korean sentences that are there, these in one file, too, 2 s apart."""
    folders = {name: real_models.part(name) for name in ("voices", "ami", "korean")}
    found = {n: [real_models.sound(p) for p in sorted(f.glob("*.wav"))] for n, f in folders.items() if f}
    return found | {"korean, one file": [in_a_row(*found["korean"], pause_s=2.0)] if "korean" in found else []}


def speech_in(audio: Audio) -> tuple[Span, ...]:
    detector = speech_detector.create(SpeechDetectorConfig())
    return tuple(detector.detect(audio, Span(start_s=0.0, end_s=len(audio) / SAMPLE_RATE_HZ)))


def chunks_of(clip: Clip) -> list[Chunk]:
    """At most 30 s each."""
    speech = speech_in(clip.audio)
    return [
        Chunk(audio=span.of(clip.audio), start_s=span.start_s, language=clip.language, speech=speech)
        for span in cut_chunks(speech, CHUNK_S)
    ]


def forced(model: Whisper, clip: Clip) -> list[Word]:
    """When the clip's own words are said: capitals and stops as Whisper writes them."""
    words: list[Word] = []
    for chunk in chunks_of(clip):
        end_s = chunk.start_s + len(chunk.audio) / SAMPLE_RATE_HZ
        inside = [[w for w in u.words if chunk.start_s <= (w.start_s + w.end_s) / 2 < end_s] for u in clip.truth]
        text = " ".join(" ".join(w.text for w in said).capitalize() + "." for said in inside if said)
        utterance = Utterance(start_s=chunk.start_s, end_s=end_s, text=text)
        untimed = Untimed(item=0, chunk=chunk, language=clip.language, utterance=utterance)
        spectrum = model.features(chunk.audio, model.window_s(len(chunk.audio)))
        [(timed, attended)] = with_words(model, model.encode([spectrum]), [untimed])
        assert attended
        words += timed.words
    return words


def heard(graph: RealGraph, audio: Audio, language: str) -> list[Word]:
    """What a job writes."""
    return [word for word, _ in words_of(graph.hear(audio, language=language))]


def _row(name: str, found: Sequence[tuple[Clip, list[Word]]]) -> list[object]:
    pairs: list[tuple[Word, Word]] = []
    over, pauses, total = 0, 0, 0
    for clip, words in found:
        said = [word for each in clip.truth for word in each.words]
        total += len(said)
        matcher = difflib.SequenceMatcher(None, *([_plain(w) for w in side] for side in (said, words)), autojunk=False)
        for a, b, size in matcher.get_matching_blocks():
            pairs += zip(said[a : a + size], words[b : b + size], strict=True)
        gaps = [Span(start_s=a.end_s, end_s=b.start_s) for a, b in pairwise(said) if b.start_s - a.end_s >= PAUSE_S]
        pauses += len(gaps)
        over += _covered(gaps, words)
    starts, ends = ([abs(getattr(b, edge) - getattr(a, edge)) for a, b in pairs] for edge in ("start_s", "end_s"))
    return [name, f"{len(pairs)} of {total}", _ms(starts), _ms(ends), f"{over} of {pauses}"]


def _real_row(graph: RealGraph, name: str, audios: Sequence[Audio]) -> list[object]:
    late: list[float] = []
    over, pauses, total = 0, 0, 0
    for audio in audios:
        words = heard(graph, audio, "ko" if name.startswith("korean") else "en")
        total += len(words)
        silent = silences(audio, speech_in(audio))
        edges = np.flatnonzero(np.diff(silent, prepend=False, append=False)).reshape(-1, 2) / 100
        gaps = [Span(start_s=float(a), end_s=float(b)) for a, b in edges if b - a >= PAUSE_S]
        pauses += len(gaps)
        over += _covered(gaps, words)
        for gap in gaps:
            behind = [abs(word.start_s - gap.end_s) for word in words if word.start_s >= gap.start_s]
            late += [each for each in behind[:1] if each < PAUSE_S]
    return [name, total, pauses, f"{over} of {pauses}", _ms(late)]


def _covered(gaps: Sequence[Span], words: Sequence[Word]) -> int:
    return sum(any(word.overlap_s(gap) > OVER_S for word in words) for gap in gaps)


def cost(model: Whisper) -> float:
    """The processor's time with word times over that without, for eight chunks of more than 20 s."""
    of_all = [c for clip in clips(CLIPS.parent / "held_out") if clip.language == "en" for c in chunks_of(clip)]
    chunks = [chunk for chunk in of_all if len(chunk.audio) > 20 * SAMPLE_RATE_HZ][:8]
    spent_s = {True: 0.0, False: 0.0}
    for timed in (True, False) * 2:
        recognizer = WhisperRecognizer(model, TranscriberConfig().guard, frozenset() if timed else frozenset({"en"}))
        began_s = time.process_time()
        recognizer.transcribe(chunks)
        spent_s[timed] += time.process_time() - began_s
    return spent_s[True] / spent_s[False]


def _plain(word: Word) -> str:
    return "".join(filter(str.isalnum, word.text)).casefold()


def _ms(errors_s: Sequence[float]) -> str:
    return f"{np.median(errors_s) * 1000:.0f}, {np.quantile(errors_s, 0.9) * 1000:.0f}" if errors_s else ""


if __name__ == "__main__":
    main()
