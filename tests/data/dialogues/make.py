"""Make the dialogues beside this file: synthesized voices taking turns, with the RTTM that says who spoke when.

Needs espeak-ng, flite, festival (with its voice cmu_us_slt_arctic_hts) and sox, which the tests do not. The committed
files are what the tests use; run this only to make others: `python tests/data/dialogues/make.py`.

`tune_*` were there to choose the diarizer's settings, `held_*` (other voices, other sentences) only to be reported.
A name says the number of voices: `held_3b` is the second one of three. Each turn is cut to its first and last sound
and joined with pauses of 0.2-1 s; a pause of 0.3 s or more inside a turn splits the reference, too.
"""

from __future__ import annotations

import random
import subprocess
import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import soundfile

HERE = Path(__file__).parent
RATE_HZ = 16_000
QUIET_DB = -38
"""Below this, relative to the turn's loudest 10 ms, a voice is silent."""
INNER_PAUSE_S = 0.3
NOISE_DBFS = -62

# A voice is (engine, engine's voice, tempo and pitch together): a changed speed moves pitch and formants, as another
# vocal tract would.
VOICES = {
    "rms": ("flite", "rms", 1.0),
    "slt": ("flite", "slt", 1.0),
    "awb": ("flite", "awb", 1.0),
    "kal": ("flite", "kal16", 1.0),
    "gran": ("espeak", "en-us+f4", 1.0),
    "low": ("espeak", "en-gb+m2", 1.0),
    "hts": ("festival", "cmu_us_slt_arctic_hts", 1.0),
    "hts_young": ("festival", "cmu_us_slt_arctic_hts", 1.16),
    "rms_deep": ("flite", "rms", 0.86),
    "awb_light": ("flite", "awb", 1.17),
    "kal_light": ("flite", "kal16", 1.2),
    "anna": ("espeak", "en-us+f2", 1.0),
    "steph": ("espeak", "en-gb-scotland+steph", 1.0),
    "mike": ("espeak", "en-us+m7", 1.0),
}
DIALOGUES = {
    "tune_1a": ["rms"],
    "tune_1b": ["slt"],
    "tune_2a": ["rms", "slt"],
    "tune_2b": ["awb", "gran"],
    "tune_3a": ["slt", "awb", "low"],
    "tune_3b": ["kal", "rms", "slt"],
    "tune_4a": ["rms", "slt", "awb", "gran"],
    "tune_4b": ["low", "slt", "kal", "awb"],
    "held_1a": ["hts"],
    "held_1b": ["rms_deep"],
    "held_2a": ["hts", "rms_deep"],
    "held_2b": ["mike", "anna"],
    "held_3a": ["hts", "awb_light", "mike"],
    "held_3b": ["rms_deep", "steph", "kal_light"],
    "held_4a": ["rms_deep", "hts", "awb_light", "anna"],
    "held_4b": ["mike", "hts_young", "rms_deep", "steph"],
}
SENTENCES = {
    "tune": [
        "Good morning everyone, thank you for coming in so early today.",
        "The first thing on the list is the move to the new building.",
        "I walked through the rooms yesterday and they are almost ready.",
        "There is still some paint missing near the back stairs.",
        "How long will it take until we can bring the furniture over?",
        "About nine days, if the weather stays as dry as it is now.",
        "Then we should tell the drivers before the end of this week.",
        "My brother has a large truck that we could borrow for a day.",
        "That would help, because the last company was very expensive.",
        "Please remember that the kitchen tables are heavier than they look.",
        "We also need somebody who can carry the old piano downstairs.",
        "I would rather sell it than drag it across the whole town.",
        "Nobody has played a single note on it for more than ten years.",
        "My daughter would be sad, she learned her first song there.",
        "Let us keep it, then, and find a warm corner where it can stay.",
        "Who is going to write down what we have decided so far?",
    ],
    "held": [
        "Did you hear that the river rose above the bridge last night?",
        "Yes, my neighbour called me around four and I went outside to look.",
        "All the boats were tied to the trees behind the church.",
        "People brought soup and blankets for the families from the valley.",
        "In the afternoon the rain stopped and the water went slowly down.",
        "They will have to clean the cellars with pumps and buckets.",
        "Our school is closed until Thursday, so the children are happy.",
        "I am more worried about the farm with the forty cows.",
        "The fire brigade moved them up the hill before midnight.",
        "Someone should thank those volunteers in the local paper.",
        "I could take photographs if you are willing to write the story.",
        "Gladly, but give me one evening to talk with everybody first.",
        "The mayor said that a higher wall would cost two million.",
        "It would be cheaper to give the river back its old meadow.",
        "Well, that meadow is a parking place for the supermarket now.",
        "Perhaps this flood will make them think about it once more.",
    ],
}


def main() -> None:
    """Make them all."""
    for name, voices in DIALOGUES.items():
        make(name, voices)


def make(name: str, voices: list[str]) -> None:
    """Write `name`.ogg and `name`.rttm."""
    draw = random.Random(name)  # noqa: S311
    lines = draw.sample(SENTENCES[name.split("_", maxsplit=1)[0]], 6 if len(voices) == 1 else 10)
    level_db = {voice: draw.uniform(-27, -19) for voice in voices}
    parts, turns, at = [silence(draw.uniform(0.3, 1.0))], [], 0.0
    for line, voice in zip(lines, order(voices, len(lines), draw), strict=True):
        at = sum(map(len, parts)) / RATE_HZ
        speech = at_level(trimmed(speak(VOICES[voice], line)), level_db[voice])
        turns += [(voice, at + start, at + end) for start, end in sounding(speech)]
        parts += [speech, silence(draw.uniform(0.2, 1.0))]
    audio = np.concatenate(parts)
    audio += np.random.default_rng(len(audio)).normal(size=len(audio)) * 10 ** (NOISE_DBFS / 20)
    soundfile.write(HERE / f"{name}.ogg", audio.astype(np.float32), RATE_HZ, format="OGG", subtype="OPUS")
    rttm = (
        f"SPEAKER {name} 1 {start:.3f} {end - start:.3f} <NA> <NA> {voice} <NA> <NA>\n" for voice, start, end in turns
    )
    (HERE / f"{name}.rttm").write_text("".join(rttm))


def order(voices: list[str], count: int, draw: random.Random) -> list[str]:
    """Who speaks in which turn: everybody at least twice, seldom the same one twice in a row."""
    said = voices * 2
    said += draw.choices(voices, k=count - len(said))
    for _ in range(20):
        draw.shuffle(said)
        if sum(a == b for a, b in pairwise(said)) <= 1:
            break
    return said


def speak(voice: tuple[str, str, float], line: str) -> np.ndarray:
    """`line` in a voice: float64, 16 kHz."""
    engine, name, speed = voice
    with tempfile.TemporaryDirectory() as folder:
        wav, out = f"{folder}/a.wav", f"{folder}/b.wav"
        if engine == "flite":
            run("flite", "-voice", name, "-t", line, "-o", wav)
        elif engine == "espeak":
            run("espeak-ng", "-v", name, "-s", "155", "-w", wav, line)
        else:
            run("text2wave", "-eval", f"(voice_{name})", "-o", wav, text=line)
        run("sox", wav, out, "speed", str(speed), "rate", "-v", str(RATE_HZ))
        samples, _ = soundfile.read(out)
    return np.asarray(samples)


def run(*command: str, text: str | None = None) -> None:
    """Run a program."""
    subprocess.run(command, input=text, text=True, check=True, capture_output=True)


def quiet(samples: np.ndarray) -> np.ndarray:
    """For every 10 ms whether it is silent."""
    frames = samples[: len(samples) // 160 * 160].reshape(-1, 160)
    level_db = 10 * np.log10(np.mean(frames**2, axis=1) + 1e-12)
    return np.asarray(level_db < level_db.max() + QUIET_DB)


def trimmed(samples: np.ndarray) -> np.ndarray:
    """From the first sound to the last one."""
    loud = np.flatnonzero(~quiet(samples))
    return samples[loud[0] * 160 : (loud[-1] + 1) * 160]


def sounding(samples: np.ndarray) -> list[tuple[float, float]]:
    """Seconds of the parts between inner pauses."""
    loud = np.flatnonzero(~quiet(samples))
    splits = np.flatnonzero(np.diff(loud) > INNER_PAUSE_S * 100) + 1
    return [(part[0] / 100, (part[-1] + 1) / 100) for part in np.split(loud, splits)]


def at_level(samples: np.ndarray, level_db: float) -> np.ndarray:
    """`samples` with that RMS level in dBFS."""
    return np.asarray(samples * 10 ** (level_db / 20) / np.sqrt(np.mean(samples**2)))


def silence(duration_s: float) -> np.ndarray:
    """Zeros."""
    return np.zeros(round(duration_s * RATE_HZ))


if __name__ == "__main__":
    main()
