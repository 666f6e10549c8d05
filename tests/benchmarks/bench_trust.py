"""How often `metadata.quality` is right: its figures and its verdict beside the error rate, on sound spoilt on purpose.

    ML_SERVER_REAL_MODELS=… python tests/benchmarks/bench_trust.py [--quick]

Prints markdown. From a file to the result as in a job: extraction, detection, Whisper base, diarization, prosody, as in
configs/local.yaml. Recordings: real ones of known text (known_texts.py), real meetings (AMI) and speakers (VCTK), whose
text is what the same engines hear of them unspoilt. The thresholds were chosen on those of `TUNED_ON` and on no other.
Wrong is a verdict `good` for an error rate above `USABLE`, and `poor` for one up to it; `doubtful` is never wrong.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

os.environ["PYANNOTE_METRICS_ENABLED"] = "0"
ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))


from deployments.diarizer.config import DiarizerConfig  # noqa: E402
from deployments.prosody.config import ProsodyConfig  # noqa: E402
from tests.benchmarks.known_texts import Recording, count, recordings  # noqa: E402
from tests.benchmarks.report import row, say  # noqa: E402
from tests.support import real_models  # noqa: E402
from tests.support.real_graph import RealGraph, text_of  # noqa: E402
from tests.support.sounds import in_a_row  # noqa: E402
from tests.support.spoilt_sound import SPOILT, babble, heard_through, nobody, overlapped  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deployments.types import Audio
    from tests.support.real_graph import Analysis

USABLE, USELESS = 0.2, 0.6
"""Error rates."""
TUNED_ON = ("sample", "voices A")
HALVES = {
    "voices A": ("american_female", "english_male", "irish_male", "indian_female"),
    "voices B": ("australian_male", "canadian_female", "english_female", "south_african_female"),
}
BABBLERS = ("northern_irish_female", *HALVES["voices A"], *HALVES["voices B"])
OVERLAPS = (("voices A", 0.0), ("voices A", 0.2), ("voices A", 0.6), ("voices B", 0.2), ("voices B", 0.6))
FIGURES = (
    "damaged_s",
    "clipped_share",
    "snr_db",
    "speech_share",
    "wordless_share",
    "overlap_share",
    "mean_confidence",
    "language_doubt",
)
HEAD = ("recording", "condition", "WER %", *FIGURES, "dropped_texts", "verdict", "reasons")


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What became of a recording under a condition. `error_rate` is None where nothing is said."""

    recording: str
    condition: str
    error_rate: float | None
    quality: dict[str, object]

    @property
    def wrong(self) -> str | None:
        """In which way the verdict is wrong; None where it is right, or in between."""
        verdict = self.quality["verdict"]
        if self.error_rate is None:
            return "nobody speaks, and it is good" if verdict == "good" else None
        if verdict == "good" and self.error_rate >= USELESS:
            return "useless, and it is good"
        if verdict == "good" and self.error_rate > USABLE:
            return "hardly usable, and it is good"
        if verdict == "poor" and self.error_rate <= USABLE:
            return "usable, and it is poor"
        return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one recording of each group")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    say(row(*HEAD))
    say(row(*["---"] * len(HEAD)))
    found = []
    for each in measured(graph(), quick=options.quick):
        found.append(each)
        say(row(*_cells(each)))
    for group, of_group in (("tuned on", True), ("held out", False)):
        say(_summary(group, [each for each in found if (each.recording in TUNED_ON) is of_group]))


def graph() -> RealGraph:
    """The engines of configs/local.yaml, loaded."""
    return RealGraph(real_models.part("whisper-base"), diarizer=DiarizerConfig(), prosody=ProsodyConfig())


def measured(stages: RealGraph, *, quick: bool = False) -> Iterator[Heard]:
    """Hear everything under every condition."""
    noise = babble([_voice(name) for name in BABBLERS])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        for recording in _recordings(stages, quick=quick):
            for condition, spoil in SPOILT.items():
                audio = heard_through(spoil, recording.audio, noise, path)
                yield _heard(recording, condition, stages.hear(audio.audio, warnings=audio.warnings))
            other = "en" if recording.language == "ko" else "de"
            audio = heard_through(SPOILT["clean"], recording.audio, noise, path)
            yield _heard(recording, f"as {other}", stages.hear(audio.audio, warnings=audio.warnings, language=other))
        for name, share in OVERLAPS:
            said = [_voice(each) for each in HALVES[name]]
            whole = _unspoilt(stages, name, in_a_row(*said))
            audio = heard_through(SPOILT["clean"], overlapped(said, share), noise, path)
            yield _heard(whole, f"overlap {share:.0%}", stages.hear(audio.audio, warnings=audio.warnings))
        for condition, sound in nobody().items():
            audio = heard_through(SPOILT["clean"], sound, noise, path)
            nothing = Recording(kind="", name="nobody", language="en", text="", audio=sound)
            yield _heard(nothing, condition, stages.hear(audio.audio, warnings=audio.warnings))


def _recordings(stages: RealGraph, *, quick: bool) -> Iterator[Recording]:
    for recording in recordings():
        if recording.kind.startswith(("real, tele", "real, read", "real, Kor")):
            yield recording
    for path in sorted((real_models.part("ami") or Path()).glob("*.wav")):
        yield _unspoilt(stages, path.stem, real_models.sound(path))
        if quick:
            break
    for name, voices in HALVES.items():
        yield _unspoilt(stages, name, in_a_row(*map(_voice, voices)))


def _voice(name: str) -> Audio:
    return real_models.sound((real_models.part("voices") or Path()) / f"{name}.wav")


def _unspoilt(stages: RealGraph, name: str, audio: Audio) -> Recording:
    """A recording whose text is what is heard of it."""
    return Recording(kind="real", name=name, language="en", text=text_of(stages.hear(audio)), audio=audio)


def _heard(recording: Recording, condition: str, heard: Analysis) -> Heard:
    rate = count(recording, text_of(heard)).rate if recording.text else None
    return Heard(recording=recording.name, condition=condition, error_rate=rate, quality=heard.quality)


def _cells(each: Heard) -> list[object]:
    figures = [each.quality.get(name) for name in (*FIGURES, "dropped_texts")]
    told = ["-" if value is None else f"{value:.2f}" if isinstance(value, float) else value for value in figures]
    rate = "-" if each.error_rate is None else f"{100 * each.error_rate:.0f}"
    reasons = ", ".join(each.quality["reasons"])  # type: ignore[arg-type]
    return [each.recording, each.condition, rate, *told, each.quality["verdict"], reasons]


def _summary(group: str, found: list[Heard]) -> str:
    verdicts = Counter(str(each.quality["verdict"]) for each in found)
    wrong = Counter(each.wrong for each in found if each.wrong)
    told = ", ".join(f"{verdict} {number}" for verdict, number in verdicts.most_common())
    return f"\n{group}: {len(found)} ({told}); " + (
        "; ".join(f"{why}: {n}" for why, n in wrong.items()) or "none wrong"
    )


if __name__ == "__main__":
    main()
