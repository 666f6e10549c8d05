"""Lets the product's extraction loose on the hostile corpus, and judges what came of it.

python -m tests.support.media_campaign [seed]
"""

from __future__ import annotations

import contextlib
import socket
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from deployments.errors import JobError
from deployments.extraction import media_decoder as media
from deployments.extraction.config import MediaLimits
from deployments.types import SAMPLE_RATE_HZ
from tests.support import hostile_media
from tests.support.clips import GOOD, make, run_ffmpeg
from tests.support.hostile_media import BAIT_HZ

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from deployments.types import Audio

LIMITS = MediaLimits(max_duration_s=60, probe_s=20, decode_s=20)
HANG_S = 60.0
"""Longer than both limits together: the limits did not hold."""
BAIT_SHARE = 0.02
"""Of the power, near the bait's pitch: that much is no noise."""
AT_ONCE = 2


@dataclass
class Canary:
    """A TCP and a UDP listener on one port that nobody may call."""

    port: int
    hits: int = 0
    _sockets: list[socket.socket] = field(default_factory=list)

    @classmethod
    @contextmanager
    def listening(cls) -> Iterator[Canary]:
        """Until the context ends; `count` is up to date afterwards, too."""
        with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            canary = cls(tcp.getsockname()[1], _sockets=[tcp, udp])
            udp.bind(("127.0.0.1", canary.port))
            for each in canary._sockets:
                each.setblocking(False)
            yield canary
            canary.count()

    def count(self) -> int:
        """How many called so far. A caller is hung up on."""
        tcp, udp = self._sockets
        with contextlib.suppress(BlockingIOError):
            while True:
                tcp.accept()[0].close()
                self.hits += 1
        with contextlib.suppress(BlockingIOError):
            while True:
                udp.recv(1)
                self.hits += 1
        return self.hits


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What became of one file: `end` is a public code with its reason, "audio", or what should not have been."""

    name: str
    end: str
    seconds: float
    heard: bool = False
    """The bait's sound is in what came out."""

    @property
    def contained(self) -> bool:
        return not self.heard and self.seconds < HANG_S and not self.end.startswith(("crash", "unbounded"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Bait:
    """A sound that is somebody else's, in the folder in which the hostile files lie."""

    folder: Path
    path: Path


def lay_bait(folder: Path) -> Bait:
    """`secret.wav`, `secret.ts` and a link to the latter."""
    path = folder / "secret.wav"
    sound = ("-f", "lavfi", "-i", f"sine={BAIT_HZ}:r=16000:d=2")
    run_ffmpeg(*sound, path)
    run_ffmpeg(*sound, "-c:a", "mp2", path.with_suffix(".ts"))
    (folder / "link.ts").symlink_to(path.with_suffix(".ts"))
    return Bait(folder=folder, path=path)


def good_files(folder: Path) -> dict[str, bytes]:
    """The clips of all the formats that are let in."""
    return {name: make(folder / f"good-{name}", options).read_bytes() for name, options in GOOD.items()}


def judge(path: Path) -> Verdict:
    """Extract as the product does."""
    began = time.monotonic()
    heard = False
    try:
        audio = media.extract(path, limits=LIMITS).audio
        heard = hears_bait(audio)
        end = "audio" if len(audio) <= (LIMITS.max_duration_s + media.GRACE_S) * SAMPLE_RATE_HZ else "unbounded"
    except JobError as error:
        error.sentence("ko"), error.sentence("en")
        end = f"{error.code} {error.values.get('reason', '')}".strip()
    except Exception as error:  # noqa: BLE001 - that is what is looked for
        end = f"crash {error!r}"
    return Verdict(name=path.name, end=end, seconds=time.monotonic() - began, heard=heard)


def hears_bait(audio: Audio) -> bool:
    """Whether the bait's pitch stands out."""
    power = np.abs(np.fft.rfft(audio.astype(np.float64))) ** 2
    if power[1:].sum() == 0:
        return False
    hz = np.fft.rfftfreq(len(audio), 1 / SAMPLE_RATE_HZ)
    return bool(power[np.abs(hz - BAIT_HZ) < 3].sum() > BAIT_SHARE * power[1:].sum())


def judge_all(folder: Path, files: Iterable[tuple[str, bytes]]) -> list[Verdict]:
    """Some at a time, each in a file of its own that is gone afterwards."""

    def one(named: tuple[str, bytes]) -> Verdict:
        path = folder / f"{named[0]}.mp4"
        path.write_bytes(named[1])
        try:
            return judge(path)
        finally:
            path.unlink()

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(one, files))


def table(title: str, verdicts: list[Verdict], canary: Canary) -> str:
    """A line for each way in which files ended, and those that were not contained by name."""
    counts = {
        "contained": sum(each.contained for each in verdicts),
        "heard": sum(each.heard for each in verdicts),
        "crashes": sum(each.end.startswith("crash") for each in verdicts),
        "hangs": sum(each.seconds >= HANG_S for each in verdicts),
        "canary hits": canary.count(),
    }
    slowest_s = max(each.seconds for each in verdicts)
    told = ", ".join(f"{count} {what}" for what, count in counts.items())
    lines = [f"{title}: {len(verdicts)} files, {told}, slowest {slowest_s:.1f} s"]
    lines += [f"    {count:4} {end}" for end, count in Counter(each.end for each in verdicts).most_common()]
    lines += [f"    NOT CONTAINED {each}" for each in verdicts if not each.contained]
    return "\n".join(lines)


def campaign(folder: Path, seed: int) -> tuple[list[Verdict], int]:
    """The whole corpus through the product."""
    bait = lay_bait(folder)
    with Canary.listening() as canary:
        named = hostile_media.references(bait.path, canary.port)
        verdicts = judge_all(folder, named.items())
        print(table("naming others", verdicts, canary))
        bombs = judge_all(folder, hostile_media.bombs().items())
        print(table("bombs", bombs, canary))
        damaged = judge_all(folder, hostile_media.mutations(good_files(folder), seed))
        print(table(f"damaged, seed {seed}", damaged, canary))
        return verdicts + bombs + damaged, canary.count()


def main() -> None:
    """Print the tables; an exit status of 1 where something was not contained."""
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    print(f"seed {seed}")
    with tempfile.TemporaryDirectory() as folder:
        verdicts, hits = campaign(Path(folder), seed)
    sys.exit(hits > 0 or not all(each.contained for each in verdicts))


if __name__ == "__main__":
    main()
