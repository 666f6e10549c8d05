"""Our aligner against `whisperx.align`, in turn, on the same audio with the same small model, a process each.

    python tests/benchmarks/bench_alignment.py [--minutes 10] [--chunk 30] [--threads 1] [--wall] [--model NAME]

Prints markdown. The audio is the sentences of tests/data/alignment in random order, in chunks of `--chunk` seconds at
most, each the text of one utterance, as the recogniser gives it. Seconds are processor time (`--wall`: the clock's),
without loading and a first call. `acoustic model` is the time inside the network; `the rest` is all other work. Starts
and ends are compared with the synthesizers' own times. NLTK, which whisperx needs, finds its data in tests/models, so
that no network is needed; `--model` may name another folder for both.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ["HF_HUB_OFFLINE"] = "1"
ROOT = Path(__file__).parents[2]
os.environ["NLTK_DATA"] = str(ROOT / "tests" / "models" / "nltk_data")
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from deployments import replica  # noqa: E402
from deployments.aligner.config import AlignerConfig  # noqa: E402
from deployments.aligner.engine import AlignItem, create  # noqa: E402
from deployments.types import SAMPLE_RATE_HZ, Audio, Transcript, Utterance, Word  # noqa: E402
from tests.benchmarks.report import row, say, table  # noqa: E402
from tests.support.alignment_clips import MODEL, clips  # noqa: E402

if TYPE_CHECKING:
    from numpy.typing import NDArray

PAUSE_S = 0.3
ITEMS = 8
"""Chunks of one call, as a replica gets them from several jobs."""
SAME_START_S = 0.020
"""Word starts of the two ways are the same up to here."""

Way = Callable[[Audio, list[Utterance]], list[Word]]


@dataclass(slots=True)
class Stopwatch:
    """Seconds inside a function that is called through it, by `now_s`."""

    now_s: Callable[[], float]
    spent_s: float = 0.0

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, timed."""

        def timed(*args: Any, **options: Any) -> Any:
            began_s = self.now_s()
            try:
                return function(*args, **options)
            finally:
                self.spent_s += self.now_s() - began_s

        return timed


def main() -> None:
    """Measure what was asked for: one way here, or both in processes of their own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--chunk", type=float, default=30, help="seconds")
    parser.add_argument("--threads", type=int, default=1, help="of torch, in both")
    parser.add_argument("--wall", action="store_true")
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way is None:
        compare(options)
    else:
        import torch

        torch.set_num_threads(options.threads)
        watch = Stopwatch(time.perf_counter if options.wall else time.process_time)
        print(
            json.dumps(
                measure(WAYS[options.way](watch, options.model), watch, talk(options.minutes * 60, options.chunk))
            )
        )


def compare(options: argparse.Namespace) -> None:
    """Both ways, and what lies between them."""
    told = {}
    for way in WAYS:
        command = [sys.executable, __file__, *sys.argv[1:], "--way", way]
        done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
        told[way] = json.loads(done.stdout.splitlines()[-1])
    audio, chunks, truth = talk(options.minutes * 60, options.chunk)
    say(
        f"{len(audio) / SAMPLE_RATE_HZ:.0f} s in {len(chunks)} chunks, {len(truth)} words; "
        f"torch threads: {options.threads}; seconds of {'the clock' if options.wall else 'the processor'}.\n"
    )
    head = ("", "total s", "acoustic model s", "the rest s", "starts ms (median, p90)", "ends ms (median, p90)")
    say(table(head, [_cells(way, told[way], truth) for way in WAYS]))
    ours, theirs = told["ours"], told["whisperx.align"]
    ratios = [theirs[part] / ours[part] for part in ("total_s", "acoustic_s", "rest_s")]
    say(row("ratio", *(f"{ratio:.1f}" for ratio in ratios), "", ""))
    apart_s = np.abs(_edges(ours, 0) - _edges(theirs, 0))
    say(f"\nWord starts of the two within {SAME_START_S * 1000:.0f} ms: {np.mean(apart_s <= SAME_START_S):.1%}")


def measure(align: Way, watch: Stopwatch, said: tuple[Audio, list[Utterance], list[Word]]) -> dict[str, Any]:
    """Seconds, and the words' times."""
    warnings.simplefilter("ignore")
    audio, chunks, _ = said
    align(audio, chunks[:ITEMS])  # what is done once is not what is measured here
    watch.spent_s, began_s = 0.0, watch.now_s()
    words = align(audio, chunks)
    total_s = watch.now_s() - began_s
    return {
        "total_s": total_s,
        "acoustic_s": watch.spent_s,
        "rest_s": total_s - watch.spent_s,
        "edges": [(word.start_s, word.end_s) for word in words],
    }


def ours(watch: Stopwatch, model: str) -> Way:
    """The engine, a few chunks a call."""
    from deployments.aligner.acoustic import AcousticModel

    replica.keep_memory()  # as the deployment's process does
    AcousticModel.emissions = watch.around(AcousticModel.emissions)  # type: ignore[method-assign]
    engine = create(AlignerConfig(engine="ctc", models={"en": model}, preload=("en",)))

    def align(audio: Audio, chunks: list[Utterance]) -> list[Word]:
        items = [AlignItem(audio=audio, transcript=Transcript(language="en", utterances=(chunk,))) for chunk in chunks]
        words: list[Word] = []
        for first in range(0, len(items), ITEMS):
            for answer in engine.align(items[first : first + ITEMS]):
                if isinstance(answer, Exception):
                    raise answer
                words += [word for utterance in answer.utterances for word in utterance.words]
        return words

    return align


def whisperx_align(watch: Stopwatch, model: str) -> Way:
    """`whisperx.align` as its own command line calls it: all segments in one call."""
    import whisperx

    network, metadata = whisperx.load_align_model("en", "cpu", model_name=model)
    network.forward = watch.around(network.forward)

    def align(audio: Audio, chunks: list[Utterance]) -> list[Word]:
        segments = [{"text": chunk.text, "start": chunk.start_s, "end": chunk.end_s} for chunk in chunks]
        samples = audio.astype(np.float32) / 32768
        found = whisperx.align(segments, network, metadata, samples, "cpu")["word_segments"]
        return [Word(start_s=word["start"], end_s=word["end"], text=word["word"]) for word in found]

    return align


WAYS: dict[str, Callable[[Stopwatch, str], Way]] = {"ours": ours, "whisperx.align": whisperx_align}


def talk(duration_s: float, chunk_s: float) -> tuple[Audio, list[Utterance], list[Word]]:
    """English sentences in random order with short pauses: the audio, its chunks, and all words as they were said."""
    sentences = [(each, clip) for clip in clips() if clip.language == "en" for each in clip.truth]
    draw = np.random.default_rng(0)
    parts: list[Audio] = []
    chunks: list[Utterance] = []
    words: list[Word] = []
    at_s = 0.0
    while at_s < duration_s:
        sentence, clip = sentences[draw.integers(len(sentences))]
        shift_s = at_s - sentence.start_s
        words += [
            Word(start_s=word.start_s + shift_s, end_s=word.end_s + shift_s, text=word.text) for word in sentence.words
        ]
        text = sentence.text.capitalize() + "."
        end_s = at_s + sentence.duration_s
        if chunks and end_s - chunks[-1].start_s <= chunk_s:
            chunks[-1] = Utterance(start_s=chunks[-1].start_s, end_s=end_s, text=f"{chunks[-1].text} {text}")
        else:
            chunks.append(Utterance(start_s=at_s, end_s=end_s, text=text))
        parts += [sentence.of(clip.audio), np.zeros(round(PAUSE_S * SAMPLE_RATE_HZ), np.int16)]
        at_s = sum(map(len, parts)) / SAMPLE_RATE_HZ
    return np.concatenate(parts), chunks, words


def _cells(way: str, told: dict[str, Any], truth: list[Word]) -> list[str]:
    """A row of the table."""
    true_edges = np.array([(word.start_s, word.end_s) for word in truth])
    errors_ms = [np.abs(_edges(told, column) - true_edges[:, column]) * 1000 for column in (0, 1)]
    seconds = [f"{told[part]:.2f}" for part in ("total_s", "acoustic_s", "rest_s")]
    return [way, *seconds, *(f"{np.median(each):.0f}, {np.quantile(each, 0.9):.0f}" for each in errors_ms)]


def _edges(told: dict[str, Any], column: int) -> NDArray[np.float64]:
    return np.array(told["edges"])[:, column]


if __name__ == "__main__":
    main()
