"""Prometheus metrics: the three kinds, each with a closed list of labels and values, and the metrics of the stages.

Ray's exporter publishes a metric as `ray_ml_server_<name>` (docs/metrics.md). Recording never raises and never waits:
it adds to a number of this process, which Ray collects every ten seconds. Record in long-lived processes only, that is
replicas and the manager: each process is a series of its own, and what it recorded last is lost when it is killed. The
metrics of the server are in `serve_app/observability/metrics.py`.
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
"""Replaces every value that is not on its label's list."""

log = logs.get_logger("metrics")


class Metric:
    """A metric: its name, which ends in the unit if it has one, its meaning, and the values of each label."""

    kind: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]] = ("",)
    """What Prometheus appends to the name."""

    def __init__(self, name: str, meaning: str, **labels: Iterable[str]) -> None:
        self.name = PREFIX + name
        self.meaning = meaning
        self.labels = {label: frozenset((*values, OTHER)) for label, values in labels.items()}

    @property
    def exported(self) -> tuple[str, ...]:
        """The names that a Prometheus query can use."""
        return tuple(f"ray_{self.name}{suffix}" for suffix in self.suffixes)

    def of_ray(self) -> Any:
        """Create Ray's metric object."""
        from ray.util import metrics

        return getattr(metrics, self.kind.capitalize())(self.name, self.meaning, tag_keys=tuple(self.labels))

    def _record(self, value: float, labels: Mapping[str, str]) -> None:
        try:
            record = recorder(self)
            if record is not None:
                record(value, {label: self._bounded(label, labels) for label in self.labels})
        except Exception as error:  # noqa: BLE001 - counting must not fail the caller
            log.warning("not counted", extra={"metric": self.name, "error": type(error).__name__})

    def _bounded(self, label: str, labels: Mapping[str, str]) -> str:
        value = labels.get(label)
        return value if value in self.labels[label] else OTHER


class Counter(Metric):
    """A number that only rises."""

    kind = "counter"
    suffixes = ("_total",)

    def inc(self, by: float = 1.0, /, **labels: str) -> None:
        """Add `by` to the series with `labels`."""
        self._record(by, labels)

    def begin(self, **known: str) -> None:
        """Record 0 for every series with the labels `known`: Prometheus sees no rise if a series begins at 1."""
        values = ([known[label]] if label in known else sorted(may - {OTHER}) for label, may in self.labels.items())
        for each in product(*values):
            self._record(0.0, dict(zip(self.labels, each, strict=True)))


class Gauge(Metric):
    """A number that rises and falls."""

    kind = "gauge"

    def set(self, value: float, /, **labels: str) -> None:
        """Set the present value."""
        self._record(value, labels)


class Histogram(Metric):
    """A distribution. Ray passes on the buckets, not the values: quantiles are right, `_sum` is an estimate."""

    kind = "histogram"
    suffixes = ("_bucket", "_count")

    def __init__(self, name: str, meaning: str, *, upto: Iterable[float], **labels: Iterable[str]) -> None:
        super().__init__(name, meaning, **labels)
        self.upto = tuple(upto)
        """Upper bounds of the buckets."""

    def of_ray(self) -> Any:
        """Create Ray's metric object."""
        from ray.util import metrics

        return metrics.Histogram(self.name, self.meaning, list(self.upto), tag_keys=tuple(self.labels))

    def observe(self, value: float, /, **labels: str) -> None:
        """Record one value."""
        self._record(value, labels)


def recorder(metric: Metric) -> Record | None:
    """Return the function that records `metric` in this process; None outside Ray, where nothing is collected."""
    import ray

    return _record_of(metric) if ray.is_initialized() else None


@cache
def _record_of(metric: Metric) -> Record:
    record: Record = metric.of_ray()._record  # noqa: SLF001 - Ray's `inc` refuses 0, with which a series has to begin
    return record


BATCHED = ("transcriber", "aligner", "emotion")
WITH_MODELS = (*BATCHED, "diarizer")

BATCH_FILL = Histogram(
    "batch_fill",
    "How full a batch was that an engine was given: 1 is as much as the settings allow.",
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
