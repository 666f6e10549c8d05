"""What is counted for Prometheus, and how: each metric with its labels and all the values that these may have.

Ray's exporter shows a metric as `ray_ml_server_<name>` (docs/metrics.md). To record never raises and never waits: it
adds to a number of this process, which Ray collects every ten seconds. Record in processes that stay, replicas and the
manager: each process is a series of its own, and what it counted last is lost when it is killed. Here are the metrics
of the stages; those of the server are in `serve_app/observability/metrics.py`.
"""

from __future__ import annotations

from functools import cache
from itertools import product
from typing import TYPE_CHECKING, Any, ClassVar

from deployments import logs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    Record = Callable[[float, Mapping[str, str]], None]

PREFIX = "ml_server_"
OTHER = "other"
"""Stands for every value that is not on its label's list."""

log = logs.get_logger("metrics")


class Metric:
    """Its name, whose last word is the unit where it has one, its meaning, and the values that each label may have."""

    kind: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]] = ("",)
    """What Prometheus sees behind the name."""

    def __init__(self, name: str, meaning: str, **labels: Iterable[str]) -> None:
        self.name = PREFIX + name
        self.meaning = meaning
        self.labels = {label: frozenset((*values, OTHER)) for label, values in labels.items()}

    @property
    def exported(self) -> tuple[str, ...]:
        """The names that a query may use."""
        return tuple(f"ray_{self.name}{suffix}" for suffix in self.suffixes)

    def of_ray(self) -> Any:
        """Ray's own object."""
        from ray.util import metrics

        return getattr(metrics, self.kind.capitalize())(self.name, self.meaning, tag_keys=tuple(self.labels))

    def _record(self, value: float, labels: Mapping[str, str]) -> None:
        try:
            record = recorder(self)
            if record is not None:
                record(value, {label: self._bounded(label, labels) for label in self.labels})
        except Exception as error:  # noqa: BLE001 - whoever counts must not fail of it
            log.warning("not counted", extra={"metric": self.name, "error": type(error).__name__})

    def _bounded(self, label: str, labels: Mapping[str, str]) -> str:
        value = labels.get(label)
        return value if value in self.labels[label] else OTHER


class Counter(Metric):
    """What only rises."""

    kind = "counter"
    suffixes = ("_total",)

    def inc(self, by: float = 1.0, /, **labels: str) -> None:
        """Add."""
        self._record(by, labels)

    def begin(self, **known: str) -> None:
        """Show 0 for all that may come, with the labels of `known`: Prometheus sees no rise in a first number of 1."""
        values = ([known[label]] if label in known else sorted(may - {OTHER}) for label, may in self.labels.items())
        for each in product(*values):
            self._record(0.0, dict(zip(self.labels, each, strict=True)))


class Gauge(Metric):
    """What goes up and down."""

    kind = "gauge"

    def set(self, value: float, /, **labels: str) -> None:
        """How it stands now."""
        self._record(value, labels)


class Histogram(Metric):
    """How often which value. Ray passes on the buckets, not the values: quantiles are right, `_sum` is a guess."""

    kind = "histogram"
    suffixes = ("_bucket", "_count")

    def __init__(self, name: str, meaning: str, *, upto: Iterable[float], **labels: Iterable[str]) -> None:
        super().__init__(name, meaning, **labels)
        self.upto = tuple(upto)
        """The upper ends of the buckets."""

    def of_ray(self) -> Any:
        """Ray's own object."""
        from ray.util import metrics

        return metrics.Histogram(self.name, self.meaning, list(self.upto), tag_keys=tuple(self.labels))

    def observe(self, value: float, /, **labels: str) -> None:
        """Count one value."""
        self._record(value, labels)


def recorder(metric: Metric) -> Record | None:
    """What takes the values of `metric` in this process; None outside Ray, where nobody collects them."""
    import ray

    return _record_of(metric) if ray.is_initialized() else None


@cache
def _record_of(metric: Metric) -> Record:
    record: Record = metric.of_ray()._record  # noqa: SLF001 - Ray's `inc` refuses the 0 that a series has to begin with
    return record


BATCHED = ("transcriber", "aligner", "emotion")
WITH_MODELS = (*BATCHED, "diarizer")

BATCH_FILL = Histogram(
    "batch_fill",
    "How full a batch was that an engine computed: 1 is as much as the settings allow.",
    upto=(0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0),
    stage=BATCHED,
)
DEVICE_TROUBLE = Counter(
    "device_trouble",
    "Batches that were halved for lack of memory (halved), and devices that failed, so that the replica is replaced.",
    stage=WITH_MODELS,
    what=("halved", "failed"),
)
DOWNLOAD_BYTES = Counter("download_bytes", "Of videos that arrived whole.")
ALL: tuple[Metric, ...] = (BATCH_FILL, DEVICE_TROUBLE, DOWNLOAD_BYTES)
