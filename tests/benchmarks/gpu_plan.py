"""What a run of the GPU benchmark is to measure, how it measures, and the rows that it tells.

Knows nothing of engines. The settings are those of configs/gpu.yaml, but for models and devices.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tests.benchmarks import random_models
from tests.benchmarks.random_models import SIZES, Sizes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

GPU_CONFIG: Final = Path(__file__).parents[2] / "configs" / "gpu.yaml"
LOOK_S: Final = 0.01
"""Between two looks at the GPU's memory."""
LONGEST_REASON: Final = 160
WITHOUT: Final = ", without "
"""In a note, before the stages that are missing."""
HEAD: Final = ("stage", "precision", "batch", "seconds", "times realtime", "peak GPU memory, MB", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to measure."""

    sizes_name: str
    minutes: float
    jobs: int
    device: str
    """`cuda` or `cpu`."""
    folder: Path
    """Where models are made, and kept from one stage to the next."""
    prosody_processes: int
    """As many as production has replicas; 0: a thread of the same process."""
    changes: tuple[str, ...] = ()
    """Settings that differ, such as `aligner.batch_s=240`."""
    without: tuple[str, ...] = ()
    """Stages that the whole graph does not even try to load: one may bring its process down."""

    @property
    def sizes(self) -> Sizes:
        return SIZES[self.sizes_name]

    def settings(self, stage: str) -> dict[str, Any]:
        """The stage's part of configs/gpu.yaml, for this device and with the changes."""
        import yaml

        content = yaml.safe_load(GPU_CONFIG.read_text(encoding="utf-8"))
        settings = dict(content["applications"][0]["args"].get(stage, {}))
        if "device" in settings:
            settings["device"] = self.device
        for change in self.changes:
            name, _, value = change.partition("=")
            if name.startswith(f"{stage}."):
                settings[name.removeprefix(f"{stage}.")] = yaml.safe_load(value)
        return settings

    def model(self, kind: str) -> str:
        """The folder of a model of this kind, made when first asked for."""
        make: Callable[[Path, Sizes], None] = getattr(random_models, kind)
        return random_models.once(self.folder / kind, lambda folder: make(folder, self.sizes))


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    stage: str
    precision: str = ""
    batch: str = ""
    seconds: float | None = None
    """None where it could not be measured: then `note` says why."""
    audio_s: float = 0.0
    peak_mb: float | None = None
    note: str = ""

    @property
    def speed(self) -> float:
        return self.audio_s / self.seconds if self.seconds else 0.0

    @property
    def cells(self) -> tuple[str, ...]:
        """As `HEAD` names them."""
        if self.seconds is None:
            return (self.stage, "", "", "-", "-", "-", self.note)
        peak = "-" if self.peak_mb is None else f"{self.peak_mb:.0f}"
        speed = f"{self.speed:.0f}" if self.speed >= 100 else f"{self.speed:.1f}"
        return (self.stage, self.precision, self.batch, f"{self.seconds:.2f}", speed, peak, self.note)


def not_available(stage: str, reason: BaseException | str) -> Row:
    """The row of what cannot be measured here."""
    words = reason if isinstance(reason, str) else f"{type(reason).__name__}: {reason}"
    line = " ".join(words.replace("|", "/").split())[:LONGEST_REASON]
    return Row(stage=stage, note=f"not available: {line}")


@dataclass(slots=True)
class Watched:
    """What one stretch of work took."""

    seconds: float = 0.0
    peak_mb: float | None = None


@dataclass(slots=True)
class Meter:
    """A clock, and an eye on the GPU's memory: what is in use beyond what was when this was made.

    The whole device is looked at, since torch knows nothing of what CTranslate2 holds. The driver's own part of a
    process is not counted.
    """

    device: str
    _before: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        if self.device == "cuda":
            self._before = self._used_mb()

    @contextmanager
    def watch(self) -> Iterator[Watched]:
        """Around the work; the answer is complete at the end of it."""
        watched = Watched()
        done = threading.Event()
        eye = threading.Thread(target=self._look, args=(watched, done), daemon=True)
        if self.device == "cuda":
            eye.start()
        began_s = time.perf_counter()
        try:
            yield watched
        finally:
            watched.seconds = time.perf_counter() - began_s
            done.set()
            if eye.is_alive():
                eye.join()

    def _look(self, watched: Watched, done: threading.Event) -> None:
        while True:
            watched.peak_mb = max(watched.peak_mb or 0.0, self._used_mb() - self._before)
            if done.wait(LOOK_S):
                return

    @staticmethod
    def _used_mb() -> float:
        import torch

        free, total = torch.cuda.mem_get_info()
        return (total - free) / 1e6
