"""Make the clips beside this file: synthesized sentences, and when each word is said by the synthesizer's own account.

Needs libespeak-ng and libflite (Debian: espeak-ng, flite), which the tests do not. The committed files are what the
tests use; run this only to make others: `python -m tests.data.alignment.make`.

A file is one voice: its sentences one after the other, each with `MARGIN_S` of near-silence around it, and beside it a
JSON with the utterances (their spans include the margins) and the words. The words are those that the small aligner in
tests/models/aligner was trained on; the sentences were not in its training, nor were the voices rms, Annie and max.
espeak-ng tells where words begin: one ends where the next begins, and the last where the sound does. flite tells both.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import soundfile

from tests.data.synthesizers import RATE_HZ, Espeak, Flite, Speech, Spoken

HERE = Path(__file__).parent
MARGIN_S = 0.25
NOISE_RMS = 12.0
"""Of the margins, in int16 steps: -69 dBFS, as no recording is quite silent."""

SENTENCES = (
    "the old doctor sees my small garden from your window",
    "please six quiet students wait behind the house",
    "hello the teacher wants seven red birds and a yellow table",
    "my happy student writes ten letters after the meeting tomorrow",
    "no train brings coffee before eight today but music again",
    "the big river opens slowly with three blue windows in your house",
)
KOREAN = ("우리 바다 오늘 음악 회의", "세시 커피 감사합니다 바다 회의")
"""espeak-ng tells the beginnings of all words of only some Korean sentences, and not where the last one ends."""
VOICES = {
    "flite_rms": ("flite", "rms", SENTENCES[:3]),
    "flite_slt": ("flite", "slt", SENTENCES[3:]),
    "flite_awb": ("flite", "awb", SENTENCES[1:5:2]),
    "espeak_annie": ("espeak", "en-us+Annie", SENTENCES[:3]),
    "espeak_max": ("espeak", "en-gb-x-rp+max", SENTENCES[3:]),
    "espeak_ko": ("espeak", "ko", KOREAN),
}


def main() -> None:
    """Make them all."""
    espeak, flite = Espeak(), Flite()
    for name, (engine, voice, sentences) in VOICES.items():
        speaker = espeak if engine == "espeak" else flite
        make(name, "ko" if voice == "ko" else "en", [speaker.speak(line.split(), voice) for line in sentences])


def make(name: str, language: str, spoken: list[Speech]) -> None:
    """Write `name`.ogg and `name`.json."""
    parts: list[np.ndarray] = []
    utterances = []
    for speech in spoken:
        samples, words = speech.samples, speech.words
        at_s = sum(map(len, parts)) / RATE_HZ
        first, last = round(words[0].start_s * RATE_HZ), round(words[-1].end_s * RATE_HZ)
        margin = np.zeros(round(MARGIN_S * RATE_HZ))
        parts += [margin, samples[first:last], margin]
        shift_s = at_s + MARGIN_S - first / RATE_HZ
        moved = [
            Spoken(text=w.text, start_s=round(w.start_s + shift_s, 4), end_s=round(w.end_s + shift_s, 4)) for w in words
        ]
        end_s = sum(map(len, parts)) / RATE_HZ
        utterances.append({"start_s": at_s, "end_s": end_s, "words": [asdict(word) for word in moved]})
    audio = np.concatenate(parts)
    audio += np.random.default_rng(len(audio)).normal(size=len(audio)) * NOISE_RMS
    soundfile.write(
        HERE / f"{name}.ogg",
        audio.clip(-32000, 32000) / 32768,
        RATE_HZ,
        format="OGG",
        subtype="OPUS",
        compression_level=0.97,
    )
    lines = ",\n".join(json.dumps(utterance, ensure_ascii=False) for utterance in utterances)
    truth = f'{{"language": "{language}", "utterances": [\n{lines}\n]}}\n'
    (HERE / f"{name}.json").write_text(truth, encoding="utf-8")


if __name__ == "__main__":
    main()
