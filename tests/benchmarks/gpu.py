"""One machine with a GPU and without a network: each stage and the whole graph on random weights of production's sizes.

    python -m tests.benchmarks.gpu [--minutes 60] [--jobs 10] [--set aligner.batch_s=240 …] [--only alignment emotion]

From the root of the repository; the product need not be installed. Prints one markdown table. Settings are those of
configs/gpu.yaml, but for `--set`; a stage runs in a process of its own, so that its memory is its own, and one whose
libraries are missing or broken is a row that says so. Models (6 GB at full size) are made in `--folder` and stay there
where it is given. Needs numpy, scipy, PyYAML and pydantic, and per stage: CTranslate2 and faster-whisper
(transcription), torch, torchaudio and transformers (alignment, emotion), pyannote.audio (diarization), librosa
(prosody); whisperx only for the comparison; never Ray.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import traceback
from dataclasses import asdict, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tests.benchmarks.gpu_plan import HEAD, WITHOUT, Meter, Plan, Row, not_available
from tests.benchmarks.random_models import SIZES
from tests.benchmarks.report import heading, row, say

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ROOT: Final = Path(__file__).parents[2]
STAGES: Final = {
    "detection": "speech detection",
    "transcription": "transcription",
    "alignment": "alignment",
    "whisperx_alignment": "whisperx.align",
    "diarization": "diarization",
    "prosody": "prosody",
    "emotion": "emotion",
    "graph": "whole graph",
}
"""What can be asked for, in the table's order, and what it is called there."""
LIBRARIES: Final = ("torch", "torchaudio", "transformers", "ctranslate2", "pyannote.audio", "whisperx", "librosa")
ONE_JOB_S: Final = 60.0
AGGREGATE: Final = 150.0
ALIGNMENT_RATIO: Final = 10.0


def main() -> None:
    """Measure, in this process what `--stage` says, else everything, stage by stage."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "PYANNOTE_METRICS_ENABLED": "0"}
    options = parsed(sys.argv[1:])
    if options.stage:
        print(json.dumps([asdict(each) for each in measured(options.stage, plan_of(options, options.folder))]))
        return
    folder = options.folder or Path(tempfile.mkdtemp(prefix="gpu-benchmark-"))
    try:
        tell(plan_of(options, folder), options.only or list(STAGES), measured if options.together else apart)
    finally:
        if options.folder is None:
            shutil.rmtree(folder, ignore_errors=True)


def parsed(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--sizes", choices=SIZES, default="large")
    parser.add_argument("--minutes", type=float, default=60.0, help="of each job's audio")
    parser.add_argument("--jobs", type=int, default=10, help="at once, in the whole graph")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda" if gpu_name() else "cpu")
    parser.add_argument("--only", nargs="+", choices=STAGES, metavar="STAGE", help=", ".join(STAGES))
    parser.add_argument("--set", action="append", default=[], metavar="STAGE.FIELD=VALUE", help="another setting")
    parser.add_argument("--folder", type=Path, help="for the models; without it, a temporary one")
    parser.add_argument("--prosody-processes", type=int, default=4, help="in the whole graph; 0: a thread")
    parser.add_argument(
        "--together", action="store_true", help="all stages in one process: starts sooner, memory adds up"
    )
    parser.add_argument("--without", nargs="+", choices=STAGES, default=[], help="of the whole graph", metavar="STAGE")
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    return parser.parse_args(words)


def plan_of(options: argparse.Namespace, folder: Path) -> Plan:
    return Plan(
        sizes_name=options.sizes,
        minutes=options.minutes,
        jobs=options.jobs,
        device=options.device,
        folder=folder,
        prosody_processes=options.prosody_processes,
        changes=tuple(options.set),
        without=tuple(options.without),
    )


def tell(plan: Plan, stages: Sequence[str], measure: Callable[[str, Plan], list[Row]]) -> None:
    """The machine, the table, and what of the aims was reached."""
    say(f"{heading()}; {gpu_name() if plan.device == 'cuda' else 'no GPU is used'}.")
    say(", ".join(f"{library} {installed(library)}" for library in LIBRARIES) + ".")
    say(f"{plan.minutes:g} min of dense talk, models of {plan.sizes_name} size with random weights.\n")
    say(row(*HEAD))
    say(row(*["---"] * len(HEAD)))
    rows: list[Row] = []
    for stage in stages:
        found = measure(stage, plan)
        for each in found:
            say(row(*each.cells))
        if all(each.seconds is None for each in found) and stage not in plan.without:
            plan = replace(plan, without=(*plan.without, stage))
        rows += found
    say()
    for line in aims(rows):
        say(line)


def apart(stage: str, plan: Plan) -> list[Row]:
    """The rows of a stage, measured in a process of its own: it may crash."""
    command = [sys.executable, "-m", "tests.benchmarks.gpu", *sys.argv[1:], "--stage", stage]
    command += ["--folder", str(plan.folder), "--device", plan.device]
    command += ["--without", *plan.without] if plan.without else []
    done = subprocess.run(command, cwd=ROOT, check=False, stdout=subprocess.PIPE, text=True)
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        return [not_available(STAGES[stage], f"its process ended with {done.returncode}")]
    return [Row(**content) for content in json.loads(lines[-1])]


def measured(stage: str, plan: Plan) -> list[Row]:
    """The rows of a stage; one that says why, where it cannot be measured."""
    try:
        from tests.benchmarks import gpu_graph, gpu_stages
        from tests.benchmarks.scripted_talk import scripted_talk

        measure: Any = getattr(gpu_graph if stage == "graph" else gpu_stages, f"measure_{stage}")
        meter = Meter(plan.device)
        rows: list[Row] = measure(plan, scripted_talk(plan.minutes * 60), meter)
    except Exception as error:  # noqa: BLE001  whatever is wrong with it, the others are measured
        traceback.print_exc()
        return [not_available(STAGES[stage], error)]
    return rows


def aims(rows: Sequence[Row]) -> list[str]:
    """A line for each aim that something was measured for."""
    speeds = {each.stage: each.speed for each in rows if each.seconds is not None}
    lines = []
    if "alignment" in speeds and "whisperx.align" in speeds:
        ratio = speeds["alignment"] / speeds["whisperx.align"]
        lines.append(f"- alignment: {ratio:.1f} times as fast as whisperx.align (aim: {ALIGNMENT_RATIO:g})")
    whole = [each for each in rows if each.stage.startswith("whole graph,") and each.seconds]
    if whole:
        part = "".join(whole[-1].note.partition(WITHOUT)[1:])
        jobs = whole[-1].stage.partition(", ")[2]
        lines.append(f"- one job: {3600 / whole[0].speed:.0f} s per 60 min (aim: {ONE_JOB_S:g}){part}")
        lines.append(f"- {jobs}: {whole[-1].speed:.0f} times realtime in aggregate (aim: {AGGREGATE:g}){part}")
    return lines


def installed(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "missing"


def gpu_name() -> str | None:
    """Name, memory and driver of the GPU; None where there is none. Asks no library, for these may be broken."""
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        lines = subprocess.run(query, check=True, capture_output=True, text=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        return None
    return lines[0] if lines else None


if __name__ == "__main__":
    main()
