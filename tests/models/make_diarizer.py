"""Make what is trained of the small pipeline in tests/models/diarizer: the voice encoder's last layer, and a PLDA.

Run by hand, a few minutes: `python -m tests.models.make_diarizer`. Needs espeak-ng and flite, which the tests do not.
A linear discriminant analysis of what tests/support/small_diarizer.py pools (mean and deviation of the MFCC), fitted on
snippets of synthesized voices; seeded. The PLDA changes nothing: pyannote's pipeline insists on one.
"""

from __future__ import annotations

import math
import subprocess
import tempfile
import warnings

import numpy as np
import soundfile
import torch
from scipy.signal import resample_poly
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from deployments.types import SAMPLE_RATE_HZ
from tests.support.small_diarizer import COMMITTED, LEVEL_SHARE, MFCC

DIMENSION = 24
SNIPPETS = 16
SHRINKAGE = 0.1
FLITE = ("awb", "kal16", "slt")
ESPEAK = (
    "adam Alex Alicia Andrea Andy Annie antonio aunty belinda benjamin boris caleb david Denis ed edward Gene gustave"
    " Hugo iven Jacky john Lee linda Marco max michel miguel Nguyen pablo paul quincy rob shelby travis victor"
    " f1 f3 f4 f5 m1 m2 m3 m4 m5 m6 m8 croak grandma grandpa"
)
"""Not among them, to be heard for the first time by the tests: flite's rms, espeak's m7, f2 and steph."""
SENTENCES = (
    "Nobody has played a single note on it for more than ten years, so we would rather sell it.",
    "The fire brigade moved forty cows up the hill before midnight, and the farmer thanked every one of them.",
    "If the weather stays as dry as it is now, we can bring the furniture over in about nine days.",
    "Please write down which words you heard, and give the sheet to the lady at the front door.",
)


def main() -> None:
    """Synthesize, fit, save."""
    draw = np.random.default_rng(0)
    speech = {f"flite {name}": [flite(name, line) for line in SENTENCES] for name in FLITE}
    speech |= {f"espeak {name}": [espeak(name, line) for line in SENTENCES] for name in ESPEAK.split()}
    snippets = [(voice, snippet(draw, speech[voice][i % len(SENTENCES)])) for voice in speech for i in range(SNIPPETS)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        coefficients = [mfcc(sound) for _, sound in snippets]
    every = np.concatenate(coefficients, axis=1)
    mu, sd = every.mean(axis=1), every.std(axis=1)
    pooled = np.stack([pool((each - mu[:, None]) / sd[:, None]) for each in coefficients])
    voices = [voice for voice, _ in snippets]
    analysis = LinearDiscriminantAnalysis(solver="eigen", shrinkage=SHRINKAGE, n_components=DIMENSION)
    analysis.fit(pooled, voices)
    print(f"{len(speech)} voices, {len(snippets)} snippets, {100 * analysis.score(pooled, voices):.0f} % told apart")
    weights = analysis.scalings_[:, :DIMENSION]
    fitted = {"mu": mu, "sd": sd, "W": weights, "b": -pooled.mean(axis=0) @ weights}
    np.savez(COMMITTED / "embedding_lda.npz", **{name: np.asarray(array, np.float32) for name, array in fitted.items()})
    zeros, same = np.zeros(DIMENSION), np.eye(DIMENSION)
    np.savez(COMMITTED / "plda" / "xvec_transform.npz", mean1=zeros, mean2=zeros, lda=same)
    np.savez(COMMITTED / "plda" / "plda.npz", mu=zeros, tr=same, psi=np.linspace(4, 0.5, DIMENSION))


def mfcc(sound: np.ndarray) -> np.ndarray:
    """The coefficients that the encoder hears: shape (40, frames)."""
    import deployments.diarizer.piecewise  # noqa: F401, I001 - imports pyannote without telemetry and warnings
    from pyannote.audio.models.embedding.xvector import XVectorMFCC

    with torch.inference_mode():
        every = XVectorMFCC(dimension=DIMENSION).mfcc(torch.from_numpy(sound)[None])[0]
    return np.asarray(every[:, 2:-2])


def pool(coefficients: np.ndarray) -> np.ndarray:
    """Mean and deviation of each: shape (80,). Those of the first are loudness, which tells no voice."""
    pooled = np.concatenate([coefficients.mean(axis=1), coefficients.std(axis=1, ddof=1)])
    pooled[0] = 0.0
    pooled[MFCC] *= LEVEL_SHARE
    return pooled


def snippet(draw: np.random.Generator, speech: np.ndarray) -> np.ndarray:
    """One to two and a half seconds of `speech`, at some level, over some noise: float32, -1 to 1."""
    count = round(draw.uniform(1, 2.5) * SAMPLE_RATE_HZ)
    first = draw.integers(max(1, len(speech) - count))
    cut = speech[first : first + count] * 10 ** (draw.uniform(-10, 0) / 20)
    return np.asarray(cut + draw.normal(size=len(cut)) * 10 ** (draw.uniform(-75, -55) / 20), np.float32)


def flite(name: str, line: str) -> np.ndarray:
    """`line` in a voice of flite."""
    return synthesized("flite", "-voice", name, "-t", line, "-o")


def espeak(variant: str, line: str) -> np.ndarray:
    """`line` in a variant of espeak-ng's American voice."""
    return synthesized("espeak-ng", "-v", f"en-us+{variant}", "-s", "155", line, "-w")


def synthesized(*command: str) -> np.ndarray:
    """What `command` writes to the WAV file that is its last argument, without its silent ends: 16 kHz."""
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        subprocess.run([*command, file.name], check=True, capture_output=True)
        samples, rate_hz = soundfile.read(file.name)
    divisor = math.gcd(rate_hz, SAMPLE_RATE_HZ)
    sound = resample_poly(samples, SAMPLE_RATE_HZ // divisor, rate_hz // divisor)
    loud = np.flatnonzero(np.abs(sound) > 0.02 * np.abs(sound).max())
    return np.asarray(sound[loud[0] : loud[-1] + 1])


if __name__ == "__main__":
    main()
