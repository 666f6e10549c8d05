"""The clips of tests/data/alignment and held_out, and the small aligner that knows the words of the first."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import soundfile

from deployments.types import SAMPLE_RATE_HZ, Transcript, Utterance, Word

if TYPE_CHECKING:
    from deployments.types import Audio

CLIPS = Path(__file__).parents[1] / "data" / "alignment"
MODELS = Path(__file__).parents[1] / "models"
MODEL = str(MODELS / "aligner")


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """A voice's audio, read-only as Ray hands it out, and the truth: utterances with the synthesizer's words."""

    name: str
    language: str
    audio: Audio
    truth: tuple[Utterance, ...]
    voices: tuple[str, ...] = ()
    """Of the utterances, in held_out."""

    @property
    def transcript(self) -> Transcript:
        """What a recogniser without word times would make of it: sentences with a capital and a full stop."""
        heard = (
            Utterance(start_s=each.start_s, end_s=each.end_s, text=each.text.capitalize() + ".") for each in self.truth
        )
        return Transcript(language=self.language, utterances=tuple(heard))


def clips(folder: Path = CLIPS) -> list[Clip]:
    return [load(path) for path in sorted(folder.glob("*.json"))]


def load(path: Path) -> Clip:
    """One of them, by its JSON."""
    told = json.loads(path.read_text(encoding="utf-8"))
    audio, rate_hz = soundfile.read(path.with_suffix(".ogg"), dtype="int16")
    assert rate_hz == SAMPLE_RATE_HZ
    audio.flags.writeable = False
    truth = tuple(
        Utterance(
            start_s=each.get("start_s", each["words"][0]["start_s"]),
            end_s=each.get("end_s", each["words"][-1]["end_s"]),
            text=" ".join(word["text"] for word in each["words"]),
            words=tuple(Word(**word) for word in each["words"]),
        )
        for each in told["utterances"]
    )
    voices = tuple(each["speaker"] for each in told["utterances"] if "speaker" in each)
    return Clip(name=path.stem, language=told["language"], audio=audio, truth=truth, voices=voices)
