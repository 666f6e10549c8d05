"""Who said what: words at their speakers, and whether segments are whole sentences of one speaker.

    python tests/benchmarks/bench_segments.py [--show] [--write] [--whisper FOLDER] [--community FOLDER]

Prints markdown: the telephone sample that pyannote.audio ships (its STM) and the conversations of
tests/data/turn_taking, heard by Whisper base, with the turns of the embedded diarizer and, where it is there, of
community-1. FOLDERs are `whisper-base` and `community-1` of ML_SERVER_REAL_MODELS where nothing else is said. `--write`
keeps words and embedded turns in tests/data/turn_taking/heard.json, which the unit tests score.

Scoring (tests/support/attribution.py): words in lower case without punctuation, aligned by Levenshtein distance; equal
words that are left over are one where they lie within a second of each other. Of the words that were recognised
rightly and that nobody speaks over (half of them or more): the share at their speaker, speakers matched as is best,
and the share wholly inside their reference line, 0.25 s left and right. Words that somebody speaks over stand apart.
A sentence is torn where its words have several speakers, a segment mixed where it has words of several.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from deployments.diarizer import registry as diarizer  # noqa: E402
from deployments.diarizer.config import DiarizerConfig  # noqa: E402
from deployments.speech_detector import registry as speech_detector  # noqa: E402
from deployments.speech_detector.config import SpeechDetectorConfig  # noqa: E402
from deployments.transcriber import registry as transcriber  # noqa: E402
from deployments.transcriber.config import TranscriberConfig  # noqa: E402
from serve_app.pipeline.segments import segments_of  # noqa: E402
from tests.benchmarks.report import say, table  # noqa: E402
from tests.support import real_models  # noqa: E402
from tests.support.attribution import Attribution, score  # noqa: E402
from tests.support.turn_taking import HEARD, as_json, conversations, turns, utterances  # noqa: E402

HEAD = ("diarizer", "recording", "words", "WER %", "cpWER %", "at their speaker %", "inside their line %")
HEAD += ("overlapped at theirs", "sentences torn", "segments", "mixed")
MAX_CHUNK_S = 30.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--show", action="store_true", help="print the segments, too")
    parser.add_argument("--write", action="store_true", help="keep what was heard for the unit tests")
    parser.add_argument("--whisper", type=Path, default=real_models.part("whisper-base"))
    parser.add_argument("--community", type=Path, default=real_models.part("community-1"))
    options = parser.parse_args()
    if options.whisper is None:
        say(f"Not measured: {real_models.MISSING}.")
        return
    warnings.simplefilter("ignore")
    known = conversations()
    detector = speech_detector.create(SpeechDetectorConfig())
    config = TranscriberConfig(engine="whisperx", model=str(options.whisper), device="cpu", threads=1)
    recognizer = transcriber.create(config)
    heard = {each.name: utterances(each.audio, detector, recognizer, MAX_CHUNK_S) for each in known}
    configs = {"embedded": DiarizerConfig()}
    if options.community:
        configs["community-1"] = DiarizerConfig(engine="pyannote", model=str(options.community))
    rows = []
    for name, config_of_it in configs.items():
        engine = diarizer.create(config_of_it)
        found = {each.name: turns(each.audio, engine) for each in known}
        groups: dict[str, Attribution] = {}
        for each in known:
            segments = segments_of(heard[each.name], found[each.name])
            result = score(each.lines, segments)
            groups[each.group] = groups.get(each.group, Attribution()) + result
            rows.append(cells(name, each.name, result))
            for segment in segments if options.show else ():
                say(f"{name} {each.name} {segment.start_s:6.2f}-{segment.end_s:6.2f} {segment.speaker} {segment.text}")
        rows += [cells(name, f"**{group}**", result) for group, result in groups.items()]
        if options.write and name == "embedded":
            kept = {key: as_json(heard[key], found[key]) for key in heard}
            HEARD.write_text(json.dumps(kept, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")
    say(table(HEAD, rows))


def cells(diarizer_name: str, name: str, result: Attribution) -> list[object]:
    return [
        diarizer_name,
        name,
        result.said,
        *(f"{100 * errors / result.said:.1f}" for errors in (result.errors, result.errors_by_speaker)),
        *(f"{100 * right / result.alone:.1f}" for right in (result.at_speaker, result.inside_line)),
        f"{result.overlapped_at_speaker}/{result.overlapped}",
        f"{result.torn}/{result.sentences}",
        result.segments,
        result.mixed,
    ]


if __name__ == "__main__":
    main()
