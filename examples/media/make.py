"""Makes `clear.flac`, the demo's clip, and its references `clear.stm` and `clear.rttm`. Run it by hand; needs `flite`.

The voices are two of CMU's Arctic set (slt and rms; free for any use, see Flite's COPYING). Emotional lines have a
higher pitch and level. The times are exact, because the clip is assembled from the lines.

    sudo apt-get install flite && python examples/media/make.py
"""

from __future__ import annotations

import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soundfile

if TYPE_CHECKING:
    from numpy.typing import NDArray

HERE = Path(__file__).parent
RATE_HZ = 16_000
PEAK_DBFS = -12.0
"""Peak of a calm line; emotional lines are louder by their gain."""
GAP_S = 0.45
NOISE = 2
"""Standard deviation of the noise in the gaps, in steps of 16 bit: no recording is digitally silent."""
VOICES = {"Ann": "slt", "Bob": "rms"}


@dataclass(frozen=True, kw_only=True)
class Line:
    """One turn of the conversation."""

    speaker: str
    text: str
    pitch: float = 1.0
    gain_db: float = 0.0


LINES = (
    Line(speaker="Ann", text="Good morning. I have wonderful news. We won the contract.", pitch=1.2, gain_db=4),
    Line(speaker="Bob", text="That is great. I am very happy for you and for the whole team.", pitch=1.15, gain_db=4),
    Line(speaker="Ann", text="Thank you. The new office will open in September."),
    Line(speaker="Bob", text="The train to the city was late again this morning."),
    Line(speaker="Bob", text="I am so angry. This is the worst service in the country.", pitch=1.25, gain_db=8),
    Line(speaker="Ann", text="I am sorry to hear that. I hope it will be better tomorrow."),
    Line(speaker="Bob", text="We should meet on Friday and talk about the plan."),
    Line(speaker="Ann", text="All right. The house by the river is open in the afternoon."),
)


def spoken(line: Line) -> NDArray[np.float64]:
    """Return the line as Flite speaks it, at its level, without silence at either end; shape (samples,)."""
    with tempfile.TemporaryDirectory() as folder:
        wav = Path(folder, "line.wav")
        options = ["-voice", VOICES[line.speaker], "--setf", f"f0_shift={line.pitch}"]
        subprocess.run(["flite", *options, "-t", line.text, "-o", wav], check=True)  # noqa: S603, S607  our own words
        samples, rate_hz = soundfile.read(wav)
    if rate_hz != RATE_HZ:
        raise ValueError(f"{line.speaker}'s voice came at {rate_hz} Hz")
    audible = np.flatnonzero(np.abs(samples) > 0.01 * np.abs(samples).max())
    peak = 10 ** ((PEAK_DBFS + line.gain_db) / 20)
    return np.asarray(samples[audible[0] : audible[-1] + 1] / np.abs(samples).max() * peak)


def main() -> None:
    """Write the three files beside this one."""
    noise = np.random.default_rng(0)

    def gap() -> NDArray[np.float64]:
        return noise.normal(scale=NOISE / 32768, size=round(GAP_S * RATE_HZ))

    parts, stm, rttm = [gap()], [], []
    for line in LINES:
        samples = spoken(line)
        start_s = sum(map(len, parts)) / RATE_HZ
        end_s = start_s + len(samples) / RATE_HZ
        stm.append(f"clear 1 {line.speaker} {start_s:.3f} {end_s:.3f} {line.text}\n")
        rttm.append(f"SPEAKER clear 1 {start_s:.3f} {end_s - start_s:.3f} <NA> <NA> {line.speaker} <NA> <NA>\n")
        parts += [samples, gap()]
    soundfile.write(HERE / "clear.flac", np.concatenate(parts), RATE_HZ, subtype="PCM_16")
    (HERE / "clear.stm").write_text("".join(stm))
    (HERE / "clear.rttm").write_text("".join(rttm))


if __name__ == "__main__":
    main()
