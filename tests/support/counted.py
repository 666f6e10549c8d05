"""What was counted in this process, in the place of Ray, and what Ray's exporter shows of a server."""

from __future__ import annotations

from collections import defaultdict
from contextlib import suppress
from typing import TYPE_CHECKING

import httpx
from prometheus_client.parser import text_string_to_metric_families

from deployments import metrics
from tests.support.leaks import exporters

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import pytest


class Counted:
    """Every value that was recorded, by the metric's name without its prefix and by its labels."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.recorded: dict[str, dict[frozenset[tuple[str, str]], list[float]]] = defaultdict(lambda: defaultdict(list))
        monkeypatch.setattr(metrics, "recorder", self._recorder)

    def _recorder(self, metric: metrics.Metric) -> metrics.Record:
        def record(value: float, labels: Mapping[str, str]) -> None:
            assert set(labels) == set(metric.labels)
            self.recorded[metric.name.removeprefix(metrics.PREFIX)][frozenset(labels.items())].append(value)

        return record

    def values(self, name: str, **labels: str) -> list[float]:
        """What was recorded under these labels, in order."""
        found = [values for having, values in self.recorded[name].items() if labels.items() <= set(having)]
        return [value for values in found for value in values]

    def total(self, name: str, **labels: str) -> float:
        return sum(self.values(name, **labels))

    def last(self, name: str, **labels: str) -> float:
        return self.values(name, **labels)[-1]


class Scrape:
    """What a server's exporters show at one time."""

    def __init__(self, state_dir: Path) -> None:
        self._samples = []
        self.text = ""
        for target in exporters(state_dir):
            with suppress(httpx.HTTPError):
                self.text += httpx.get(f"http://{target}/metrics", timeout=5, trust_env=False).text
        for family in text_string_to_metric_families(self.text):
            self._samples += family.samples

    def labels(self, prefix: str) -> dict[str, list[dict[str, str]]]:
        """The labels of each series, by the names that begin with `prefix`."""
        found = defaultdict(list)
        for sample in self._samples:
            if sample.name.startswith(prefix):
                found[sample.name].append(sample.labels)
        return found

    def sum(self, name: str, **labels: str) -> float:
        """`sum(name{labels})`; 0 where there is no such series."""
        return sum(s.value for s in self._samples if s.name == name and labels.items() <= s.labels.items())
