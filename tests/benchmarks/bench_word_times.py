"""Word times from Whisper's attention, with Whisper base: against synthesizers, and at the pauses of real speech.

    python -m tests.benchmarks word_times

Prints markdown. Whisper base lies where ML_SERVER_REAL_MODELS says. Settings were chosen on tests/data/alignment and
other synthesized voices; tests/data/held_out is what they are scored on. `known text`: the true words are put into the
recogniser's mouth, chunk by chunk; `own text`: it writes itself, and words that it got right are scored. A word is over
a pause where it has more than 0.1 s of one that is 0.3 s long or longer. Of real voices nobody has written down words
or times: pauses are those of the level and the detector, and the first word behind one should start where it ends.
`cost` is the processor's time with word times over that without, same chunks, in turn.
"""

from __future__ import annotations

import difflib
import json
import sys
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import soundfile

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from deployments.speech_detector import engine as speech_detector  # noqa: E402
from deployments.speech_detector.chunks import cut_chunks  # noqa: E402
from deployments.speech_detector.config import SpeechDetectorConfig  # noqa: E402
from deployments.transcriber.config import Guard, TranscriberConfig  # noqa: E402
from deployments.transcriber.engine import Chunk  # noqa: E402
from deployments.transcriber.timing import Untimed, with_words  # noqa: E402
from deployments.transcriber.whisper import WhisperRecognizer  # noqa: E402
from deployments.transcriber.whisper_model import Whisper  # noqa: E402
from deployments.transcriber.word_times import silences  # noqa: E402
from deployments.types import SAMPLE_RATE_HZ, Span, Transcript, Utterance, Word  # noqa: E402
from tests.benchmarks.report import say, table  # noqa: E402
from tests.support import real_models  # noqa: E402
from tests.support.sounds import in_a_row  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deployments.types import Audio

PAUSE_S = 0.3
OVER_S = 0.1
CHUNK_S = 30.0
DATA = ROOT / "tests" / "data"


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """Sound, what the detector hears in it, and its words, none where nobody wrote them down."""

    folder: str
    language: str
    audio: Audio
    speech: tuple[Span, ...]
    said: tuple[tuple[Word, ...], ...] = ()

    @property
    def chunks(self) -> list[Chunk]:
        """As a job cuts them."""
        return [
            Chunk(audio=span.of(self.audio), start_s=span.start_s, language=self.language, speech=self.speech)
            for span in cut_chunks(self.speech, CHUNK_S)
        ]


def main() -> None:
    """Everything, as tables."""
    folder = real_models.part("whisper-base")
    if folder is None:
        say(real_models.MISSING)
        return
    model = Whisper(TranscriberConfig(engine="whisperx", model=str(folder), device="cpu", threads=1))
    recognizer = WhisperRecognizer(model, Guard())
    clips = synthesized()
    rows = []
    for name in ("alignment", "alignment, Korean", "held_out", "held_out, Korean"):
        chosen = [c for c in clips if (c.folder, c.language == "ko") == (name.split(",")[0], "Korean" in name)]
        rows.append(_row(f"{name}, known text", [(clip, forced(model, clip)) for clip in chosen]))
        if "Korean" not in name:
            rows.append(_row(f"{name}, own text", [(clip, heard(recognizer, clip)) for clip in chosen]))
    head = ("", "words", "starts ms (median, p90)", "ends ms (median, p90)", "pauses with a word over them")
    say(table(head, rows))
    say()
    found = [(clip, heard(recognizer, clip)) for clip in real()]
    folders = ("voices", "ami", "korean", "korean, one file")
    rows = [_real_row(name, [each for each in found if each[0].folder == name]) for name in folders]
    say(
        table(
            ("real speech", "words", "pauses", "with a word over them", "starts behind a pause ms (median, p90)"), rows
        )
    )
    say(f"\ncost: {cost(model, clips):.2f}")


def synthesized() -> list[Clip]:
    """The clips of both folders."""
    found = []
    for path in sorted((*DATA.glob("alignment/*.json"), *DATA.glob("held_out/*.json"))):
        told = json.loads(path.read_text(encoding="utf-8"))
        said = tuple(
            tuple(Word(start_s=w["start_s"], end_s=w["end_s"], text=w["text"]) for w in each["words"])
            for each in told["utterances"]
        )
        found.append(_clip(path.parent.name, told["language"], _read(path.with_suffix(".ogg")), said))
    return found


def real() -> list[Clip]:
    """The voices, the meetings and the Korean sentences that are there, these in one file, too, 2 s apart."""
    found, sounds = [], []
    for name in ("voices", "ami", "korean"):
        folder = real_models.part(name)
        sounds = [_read(path) for path in sorted(folder.glob("*.wav") if folder else ())]
        found += [_clip(name, "ko" if name == "korean" else "en", audio, ()) for audio in sounds]
    return [*found, _clip("korean, one file", "ko", in_a_row(*sounds, pause_s=2.0), ())] if sounds else found


def _read(path: Path) -> Audio:
    import librosa

    samples, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
    mono = librosa.resample(samples.mean(axis=1), orig_sr=rate_hz, target_sr=SAMPLE_RATE_HZ)
    return np.clip(np.round(mono * 32768), -32768, 32767).astype(np.int16)


def _clip(folder: str, language: str, audio: Audio, said: tuple[tuple[Word, ...], ...]) -> Clip:
    detector = speech_detector.create(SpeechDetectorConfig())
    speech = detector.detect(audio, Span(start_s=0.0, end_s=len(audio) / SAMPLE_RATE_HZ))
    return Clip(folder=folder, language=language, audio=audio, speech=tuple(speech), said=said)


def forced(model: Whisper, clip: Clip) -> list[Word]:
    """When the clip's own words are said: capitals and stops as Whisper writes them."""
    words: list[Word] = []
    for chunk in clip.chunks:
        end_s = chunk.start_s + len(chunk.audio) / SAMPLE_RATE_HZ
        inside = [[w for w in said if chunk.start_s <= (w.start_s + w.end_s) / 2 < end_s] for said in clip.said]
        text = " ".join(" ".join(w.text for w in said).capitalize() + "." for said in inside if said)
        utterance = Utterance(start_s=chunk.start_s, end_s=end_s, text=text)
        untimed = Untimed(item=0, chunk=chunk, language=clip.language, utterance=utterance)
        [(timed, had)] = with_words(model, model.encode([model.features(chunk.audio)]), [untimed])
        assert had
        words += timed.words
    return words


def heard(recognizer: WhisperRecognizer, clip: Clip) -> list[Word]:
    """What it writes of itself."""
    answers = [recognizer.transcribe([chunk])[0] for chunk in clip.chunks]
    return [w for each in answers if isinstance(each, Transcript) for u in each.utterances for w in u.words]


def _row(name: str, found: Sequence[tuple[Clip, list[Word]]]) -> list[Any]:
    pairs: list[tuple[Word, Word]] = []
    over, pauses = 0, 0
    for clip, words in found:
        said = [word for each in clip.said for word in each]
        matcher = difflib.SequenceMatcher(None, [_plain(w) for w in said], [_plain(w) for w in words], autojunk=False)
        for a, b, size in matcher.get_matching_blocks():
            pairs += zip(said[a : a + size], words[b : b + size], strict=True)
        gaps = [Span(start_s=a.end_s, end_s=b.start_s) for a, b in pairwise(said) if b.start_s - a.end_s >= PAUSE_S]
        pauses += len(gaps)
        over += sum(any(word.overlap_s(gap) > OVER_S for word in words) for gap in gaps)
    total = sum(len(each) for clip, _ in found for each in clip.said)
    starts = [abs(b.start_s - a.start_s) for a, b in pairs]
    ends = [abs(b.end_s - a.end_s) for a, b in pairs]
    return [name, f"{len(pairs)} of {total}", _ms(starts), _ms(ends), f"{over} of {pauses}"]


def _real_row(name: str, found: Sequence[tuple[Clip, list[Word]]]) -> list[Any]:
    late: list[float] = []
    over, pauses = 0, 0
    for clip, words in found:
        silent = silences(clip.audio, clip.speech)
        edges = np.flatnonzero(np.diff(silent, prepend=False, append=False)).reshape(-1, 2) / 100
        gaps = [Span(start_s=float(a), end_s=float(b)) for a, b in edges if b - a >= PAUSE_S]
        pauses += len(gaps)
        over += sum(any(word.overlap_s(gap) > OVER_S for word in words) for gap in gaps)
        for gap in gaps:
            behind = [word.start_s - gap.end_s for word in words if word.start_s >= gap.start_s]
            late += [abs(behind[0])] if behind and abs(behind[0]) < PAUSE_S else []
    return [name, sum(len(words) for _, words in found), pauses, f"{over} of {pauses}", _ms(late)]


def cost(model: Whisper, clips: Sequence[Clip]) -> float:
    """The processor's time with word times over that without."""
    chunks = [c for clip in clips if clip.language == "en" for c in clip.chunks if len(c.audio) > 20 * SAMPLE_RATE_HZ][
        :8
    ]
    spent_s = []
    for elsewhere in (frozenset[str](), frozenset({"en"})) * 2:
        recognizer = WhisperRecognizer(model, Guard(), elsewhere)
        began_s = time.process_time()
        recognizer.transcribe(chunks)
        spent_s.append(time.process_time() - began_s)
    return (spent_s[0] + spent_s[2]) / (spent_s[1] + spent_s[3])


def _plain(word: Word) -> str:
    return "".join(filter(str.isalnum, word.text)).casefold()


def _ms(errors_s: Sequence[float]) -> str:
    if not errors_s:
        return ""
    return f"{np.median(errors_s) * 1000:.0f}, {np.quantile(errors_s, 0.9) * 1000:.0f}"


if __name__ == "__main__":
    main()
