"""How good the production path is on the small models: words, word times and speakers of tests/data/held_out.

    python tests/benchmarks/bench_quality.py [--chunk 10] [--asr DIRECTORY] [--show]

Prints markdown. Detection, recognition, alignment and diarization follow each other as in a job, language and number of
speakers are not told. WER by jiwer, lower case, without full stops. Starts and ends are those of the words that were
heard right, against the synthesizer's own times. DER with collar 0, overlap included, over the whole file. "unheard"
are voices that recogniser and aligner were not trained on; the sentences are new to all of them.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

os.environ["PYANNOTE_METRICS_ENABLED"] = "0"
ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from tests.benchmarks import bench_diarization  # noqa: E402
from tests.benchmarks.report import say, table  # noqa: E402
from tests.support.alignment_clips import MODELS, Clip, clips  # noqa: E402
from tests.support.held_out import MAX_CHUNK_S, RECORDINGS, Score, graph, score  # noqa: E402
from tests.support.real_graph import words_of  # noqa: E402
from tests.support.small_diarizer import build_pipeline  # noqa: E402

if TYPE_CHECKING:
    from deployments.types import Turn
    from tests.support.real_graph import Analysis

HEAD = ("recording", "language", "words", "WER %", "starts ms (median, p90)", "ends ms (median, p90)")
HEAD += ("voices → found", "words to the right one %", "DER %")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunk", type=float, default=MAX_CHUNK_S, help="seconds that the recogniser gets at most")
    parser.add_argument("--asr", type=Path, default=MODELS / "asr")
    parser.add_argument("--show", action="store_true", help="print what was said and heard, too")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        stages = graph(build_pipeline(Path(folder) / "diarizer"), options.asr, options.chunk)
        found = [(each, stages.hear(each.audio), stages.turns) for each in clips(RECORDINGS)]
    scored = [(each, heard, score(each, words_of(heard))) for each, heard, _ in found]
    say(table(HEAD, [_cells(*each, turns) for each, (_, _, turns) in zip(scored, found, strict=True)]))
    say()
    for group in ("unheard", "heard", "korean", "two"):
        say(_summary(group, [(each, result) for each, _, result in scored if each.name.startswith(group)]))
    for each, heard, _ in scored if options.show else ():
        say(f"\n{each.name}\n  said:  {' '.join(said.text for said in each.truth)}")
        say(f"  heard: {' '.join(word.text for word, _ in words_of(heard))}\n  warnings: {heard.warnings}")


def _cells(recording: Clip, heard: Analysis, result: Score, turns: list[Turn]) -> list[object]:
    spoken = [(each.start_s, each.end_s, voice) for each, voice in zip(recording.truth, recording.voices, strict=True)]
    truth = bench_diarization.Recording(name=recording.name, audio=recording.audio, reference=spoken)
    errors = bench_diarization.diarization_errors(truth, turns)
    return [
        recording.name,
        heard.language,
        result.words,
        f"{100 * result.error_rate:.1f}",
        _milliseconds(result.starts_s),
        _milliseconds(result.ends_s),
        f"{len(set(recording.voices))} → {len({turn.speaker for turn in turns})}",
        f"{100 * result.right_speaker:.1f}",
        f"{100 * errors[0]:.1f}",
    ]


def _summary(group: str, scored: list[tuple[Clip, Score]]) -> str:
    words, errors = (sum(getattr(result, part) for _, result in scored) for part in ("words", "errors"))
    starts, ends = (np.concatenate([getattr(r, part) for _, r in scored]) for part in ("starts_s", "ends_s"))
    wer = f"{group}: {words} words, WER {100 * errors / words:.1f} %"
    return f"{wer}, starts {_milliseconds(starts)}, ends {_milliseconds(ends)}"


def _milliseconds(errors_s: np.ndarray) -> str:
    apart_ms = np.abs(errors_s) * 1000
    return f"{np.median(apart_ms):.0f}, {np.quantile(apart_ms, 0.9):.0f}"


if __name__ == "__main__":
    main()
