"""The command line: many seeds over all cores, one seed with its history, or one fault put into the code."""

from __future__ import annotations

import argparse
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.simulation.mutants import MUTANTS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

WORKER = (sys.executable, "-W", "ignore", "-m", "tests.simulation", "worker")
MEMORY = Path("/dev/shm")  # noqa: S108 - where there is one, the databases are in memory
SHOWN = 6
"""Violations of one seed that are printed."""


def runs(
    first: int, count: int, *, cores: int = 1, tells: bool = False, mutant: str = "", kind: str = ""
) -> Iterator[dict[str, Any]]:
    """Run seeds in workers; yield what each has found, as soon as it is known. Closing it ends the workers.

    `kind`: leave out the seeds of other kinds of runs.
    """
    with tempfile.TemporaryDirectory(prefix="simulation-", dir=MEMORY if MEMORY.is_dir() else None) as folder:
        yield from _runs(first, count, max(1, min(cores, count)), ("all" if tells else "", mutant, kind, folder))


def _runs(first: int, count: int, cores: int, how: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    results: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
    workers = [
        subprocess.Popen(
            [*WORKER, *map(str, (first + each, len(range(each, count, cores)), cores)), *how],
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONHASHSEED": "0", "RAY_USAGE_STATS_ENABLED": "0"},
        )
        for each in range(cores)
    ]

    def read(worker: subprocess.Popen[bytes]) -> None:
        for line in worker.stdout or ():
            results.put(json.loads(line))
        results.put(None)

    readers = [threading.Thread(target=read, args=(worker,), daemon=True) for worker in workers]
    for reader in readers:
        reader.start()
    try:
        running = cores
        while running:
            if (result := results.get()) is None:
                running -= 1
            else:
                yield result
        if any(worker.wait() for worker in workers):
            raise RuntimeError("a worker has failed")
    finally:
        for worker, reader in zip(workers, readers, strict=True):
            worker.kill()
            reader.join()
            worker.communicate()


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=300, help="how many")
    parser.add_argument("--first", type=int, default=1, help="the first one")
    parser.add_argument("--replay", type=int, metavar="SEED", help="run this one alone and print its history")
    parser.add_argument("--mutant", choices=sorted(MUTANTS), default="", help="with this fault in the code")
    parser.add_argument(
        "--table", action="store_true", help="for each fault, or that of --mutant, the seeds until it is found"
    )
    parser.add_argument("--kind", default="", help="leave out the seeds of other kinds of runs (`KINDS` in story.py)")
    parser.add_argument("--cores", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args(arguments)
    if options.replay is not None:
        for result in runs(options.replay, 1, tells=True, mutant=options.mutant):
            print("\n".join(result["history"]))
            print(f"seed {options.replay}: digest {result['digest']}, {result['counts']}")
            print("\n".join(result["found"]) or "nothing is wrong")
            return bool(result["found"])
    if options.table:
        return _table(options)
    return _many(options)


def _many(options: argparse.Namespace) -> int:
    failed, total = 0, Counter[str]()
    for result in runs(options.first, options.seeds, cores=options.cores, mutant=options.mutant, kind=options.kind):
        total.update(result["counts"])
        total["seeds"] += 1
        if result["found"]:
            failed += 1
            print(f"seed {result['seed']}:", *result["found"][:SHOWN], sep="\n    ", flush=True)
    print(", ".join(f"{count} {name}" for name, count in sorted(total.items())))
    print(f"{failed} of {total['seeds']} seeds found something; see one with --replay SEED")
    return bool(failed)


def _table(options: argparse.Namespace) -> int:
    """Print a row per fault: the seeds until it was found, and by which rule."""
    missed = 0
    for name in [options.mutant] if options.mutant else MUTANTS:
        seed, rule = options.seeds, "not found"
        for result in runs(options.first, options.seeds, cores=options.cores, mutant=name, kind=options.kind):
            if result["found"]:
                seed, rule = result["seed"], result["found"][0]
                break
        missed += rule == "not found"
        print(f"| {name} | {seed} | {rule.partition(':')[0]} |", flush=True)
    return bool(missed)
