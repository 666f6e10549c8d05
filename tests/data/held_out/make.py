"""Make the recordings beside this file: sentences that no small model was trained on, and the truth about them.

Needs espeak-ng, flite and festival (Debian: espeak-ng, flite, festival, festvox-kallpc16k,
festvox-kdlpc16k, festvox-us-slt-hts), which the tests do not. The committed
files are what the tests use; run this only to make others: `python -m tests.data.held_out.make`.

A recording is one voice, or two that take turns; beside the sound a JSON says who said which words, and when by the
synthesizer's own account. The words are those of tests/data/sentences.py, about half of the sentences in an
order that no language model helps with. `unheard_*` are voices that recogniser and aligner were never trained on.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soundfile

from tests.data.sentences import english, korean
from tests.data.synthesizers import RATE_HZ, Espeak, Flite, Line, Speech, Spoken, festival

if TYPE_CHECKING:
    from tests.data.sentences import Sentence

HERE = Path(__file__).parent
SEED = 20261125
LENGTHS = range(5, 13)
KOREAN_LENGTHS = range(3, 8)
PAUSES_S = (0.3, 0.9)
LEVELS_DBFS = (-27.0, -19.0)
NOISE_DBFS = -62.0
RECORDINGS = {
    "unheard_rms": (("flite rms",), 20),
    "unheard_annie": (("espeak en-us+Annie",), 20),
    "unheard_max": (("espeak en-gb-x-rp+max",), 20),
    "heard_slt": (("flite slt",), 8),
    "heard_awb": (("flite awb",), 8),
    "heard_kal16": (("flite kal16",), 8),
    "heard_kal_diphone": (("festival kal_diphone",), 8),
    "heard_slt_hts": (("festival cmu_us_slt_arctic_hts",), 8),
    "heard_f3": (("espeak en-us+f3",), 8),
    "korean": (("espeak ko", "espeak ko+f3"), 10),
    "two_rms_slt": (("flite rms", "flite slt"), 10),
    "two_annie_rms": (("espeak en-us+Annie", "flite rms"), 10),
    "two_awb_slt_hts": (("flite awb", "festival cmu_us_slt_arctic_hts"), 10),
    "two_max_f3": (("espeak en-gb-x-rp+max", "espeak en-us+f3"), 10),
    "two_slt_kal16": (("flite slt", "flite kal16"), 10),
}
"""Voices, which take turns, and the number of sentences."""


def main() -> None:
    """Make them all."""
    draw = np.random.default_rng(SEED)
    espeak, flite = Espeak(), Flite()
    for name, (voices, count) in RECORDINGS.items():
        language = "ko" if name == "korean" else "en"
        said: list[tuple[str, Speech]] = []
        while len(said) < count:
            voice = voices[len(said) % len(voices)]
            speech = speak(espeak, flite, sentence(draw, language), voice)
            if speech.words:
                said.append((voice, speech))
        make(name, language, said, draw)


def sentence(draw: np.random.Generator, language: str) -> Sentence:
    """Long enough to be nobody else's."""
    lengths = LENGTHS if language == "en" else KOREAN_LENGTHS
    while len(words := english(draw) if language == "en" else korean(draw)) not in lengths:
        pass
    return words


def speak(espeak: Espeak, flite: Flite, words: Sentence, voice: str) -> Speech:
    """`words` in a voice such as `flite rms`."""
    engine, name = voice.split()
    if engine == "festival":
        return festival([Line(words=words, voice=name)])[0]
    return espeak.speak(words, name) if engine == "espeak" else flite.speak(words, name)


def make(name: str, language: str, said: list[tuple[str, Speech]], draw: np.random.Generator) -> None:
    """Write `name`.ogg and `name`.json."""
    levels_dbfs = {voice: draw.uniform(*LEVELS_DBFS) for voice in sorted({voice for voice, _ in said})}
    parts, utterances = [silence(draw)], []
    for voice, speech in said:
        first, last = (round(edge * RATE_HZ) for edge in (speech.words[0].start_s, speech.words[-1].end_s))
        shift_s = (sum(map(len, parts)) - first) / RATE_HZ
        words = [moved(word, shift_s) for word in speech.words]
        utterances.append({"speaker": voice, "words": [asdict(word) for word in words]})
        parts += [at_level(speech.samples[first:last], levels_dbfs[voice]), silence(draw)]
    audio = np.concatenate(parts)
    audio += draw.normal(size=len(audio)) * 10 ** (NOISE_DBFS / 20)
    sound = {"format": "OGG", "subtype": "OPUS", "compression_level": 0.97}
    soundfile.write(HERE / f"{name}.ogg", audio.clip(-1, 1), RATE_HZ, **sound)
    lines = ",\n".join(json.dumps(utterance, ensure_ascii=False) for utterance in utterances)
    truth = f'{{"language": "{language}", "utterances": [\n{lines}\n]}}\n'
    (HERE / f"{name}.json").write_text(truth, encoding="utf-8")


def moved(word: Spoken, shift_s: float) -> Spoken:
    """`word`, later."""
    return Spoken(text=word.text, start_s=round(word.start_s + shift_s, 4), end_s=round(word.end_s + shift_s, 4))


def at_level(samples: np.ndarray, level_dbfs: float) -> np.ndarray:
    """`samples`, -1 to 1, with that RMS level."""
    return np.asarray(samples * 10 ** (level_dbfs / 20) / np.sqrt(np.mean(samples**2)))


def silence(draw: np.random.Generator) -> np.ndarray:
    """Zeros for a pause."""
    return np.zeros(round(draw.uniform(*PAUSES_S) * RATE_HZ))


if __name__ == "__main__":
    main()
