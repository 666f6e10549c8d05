from __future__ import annotations

import ast
import re
import time
from pathlib import Path

import pytest
import ray.util.metrics
from ray.serve.metrics import Counter as ServesCounter

import deployments.metrics
from deployments.metrics import OTHER, PREFIX, Counter, Gauge, Histogram
from serve_app.api import errors
from serve_app.jobs.stages import Step, TimedStage
from serve_app.observability import metrics

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
MOST_SERIES = 150
"""Of one metric in one process."""


def declared(module):
    return {value for value in vars(module).values() if isinstance(value, deployments.metrics.Metric)}


def test_all_is_all():
    """Whatever is counted stands in one list, which the document, the board and the rules are held against."""
    assert set(metrics.ALL) == declared(metrics) | declared(deployments.metrics)
    assert len({metric.name for metric in metrics.ALL}) == len(metrics.ALL)


def test_nobody_else_counts():
    """Ray's own metrics are made in one module: no label without a bound comes in by another way."""
    others = set()
    for path in (*ROOT.glob("serve_app/**/*.py"), *ROOT.glob("deployments/**/*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            named = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            named += [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            if any(name in {"ray.util.metrics", "ray.serve.metrics", "prometheus_client"} for name in named) or (
                isinstance(node, ast.ImportFrom) and node.module in {"ray.util", "ray.serve"} and "metrics" in named
            ):
                others.add(str(path.relative_to(ROOT)))
    assert others == {"deployments/metrics.py"}


@pytest.mark.parametrize("metric", metrics.ALL, ids=lambda metric: metric.name)
def test_labels_are_bounded(metric, counted):
    """A value that is not on its label's list is recorded as `other`, so that nobody outside makes series."""
    series = len(metric.upto) + 3 if isinstance(metric, Histogram) else 1
    for values in metric.labels.values():
        assert all(re.fullmatch(r"[A-Za-z0-9_-]+", value) for value in values)
        series *= len(values)
    assert series <= MOST_SERIES
    record = {Counter: "inc", Gauge: "set", Histogram: "observe"}[type(metric)]
    getattr(metric, record)(1.0, **dict.fromkeys(metric.labels, "https://v/1.mp4?X-Amz-Signature=1"))
    assert counted.values(metric.name.removeprefix(PREFIX), **dict.fromkeys(metric.labels, OTHER)) == [1.0]


def test_the_bounds_are_those_of_the_server():
    """The closed lists have what the server really says: codes of jobs, statuses of answers, stages of results."""
    assert {
        "DOWNLOAD_ERROR",
        "FILE_TOO_LARGE",
        "VIDEO_TOO_LONG",
        "AUDIO_EXTRACTION_ERROR",
        "TRANSCRIPTION_ERROR",
        "PROCESSING_TIMEOUT",
        "INSUFFICIENT_RESOURCES",
        "CANCELLED",
        "INTERNAL_ERROR",
    } == metrics.CODES
    refused = {str(error.status) for error in errors.ApiError.__subclasses__()}
    assert set(metrics.STATUSES) == {"200", "202", "304", "307", *refused}
    assert {step.timed_as for step in Step} == set(TimedStage)


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/api/upload-video/process-video", "process-video"),
        ("/api/upload-video/status/a-job", "status"),
        ("/api/upload-video/jobs", "jobs"),
        ("/api/upload-video/jobs/a-job", "job"),
        ("/api/upload-video/jobs/a-job/timeline", "of-a-job"),
        ("/health", "health"),
        ("/console/", "pages"),
        ("/", "pages"),
        ("/docs/swagger-ui.css", "pages"),
        ("/healthy", "other"),
        ("/api/upload-video/status/a/b", "other"),
        ("//", "other"),
    ],
)
def test_a_path_is_known_by_its_route(path, route):
    """Of a request's path nothing is kept but which route it asks for."""
    assert metrics.route_of(path) == route


@pytest.mark.parametrize(
    ("error", "fault"),
    [(None, "none"), ("", "none"), ("http_503", "http_5xx"), ("http_404", "http_4xx"), ("cut_off", "cut_off")],
)
def test_a_callbacks_error_is_known_by_its_class(error, fault):
    """As many faults as there are kinds of them."""
    assert metrics.fault_class(error) == fault
    assert fault in metrics.CALLBACK_TRIES.labels["fault"]


def test_counting_never_fails(monkeypatch, caplog):
    """Where Ray refuses, or is not there, the one who counts does not notice."""
    metrics.ANSWERS.inc(route="health", status="200")  # no Ray

    def refuse(_metric):
        raise RuntimeError("/secret/path")

    monkeypatch.setattr(deployments.metrics, "recorder", refuse)
    metrics.ANSWERS.inc(route="health", status="200")
    metrics.ANSWER_S.observe(1.0, route="health")
    metrics.ANSWERS.begin()
    assert "not counted" in caplog.text
    assert "secret" not in caplog.text


def test_counting_costs_nothing(monkeypatch):
    """A request is slowed by less than a ten-thousandth of a second (2 µs measured for Ray's part)."""
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    began = time.process_time()
    for _ in range(1000):
        metrics.ANSWERS.inc(route="health", status="200")
        metrics.ANSWER_S.observe(0.001, route="health")
    assert (time.process_time() - began) / 1000 < 1e-4


def test_rays_metrics_are_as_declared():
    """Kind, labels and buckets reach Ray; a counter may begin with 0, which Ray's own `inc` refuses."""
    made = metrics.ANSWER_S.of_ray()
    assert isinstance(made, ray.util.metrics.Histogram)
    assert made.info["boundaries"] == list(metrics.ANSWER_S.upto)
    assert made.info["tag_keys"] == ("route",)
    made = metrics.JOBS.of_ray()
    assert isinstance(made, ray.util.metrics.Gauge)
    made = metrics.ANSWERS.of_ray()
    assert isinstance(made, ray.util.metrics.Counter)
    assert not isinstance(made, ServesCounter)  # which adds a label per replica
    with pytest.raises(ValueError, match="value must be >0"):
        made.inc(0, {"route": "health", "status": "200"})
    made._record(0.0, {"route": "health", "status": "200"})


@pytest.mark.parametrize("metric", metrics.ALL, ids=lambda metric: metric.name)
def test_the_document_tells_of_each(metric):
    """Name, kind, labels with all their values, and meaning, in one line of the table."""
    name = metric.exported[0].removesuffix("_bucket")
    [line] = [line for line in DOCUMENT.splitlines() if line.startswith(f"| `{name}` |")]
    _, _, kind, labels, meaning, _ = (cell.strip() for cell in line.split("|"))
    assert (kind, meaning) == (metric.kind, metric.meaning)
    told = dict(re.findall(r"`(\w+)`: ([^<]+)", labels))
    assert {label: {*values.split(", "), OTHER} for label, values in told.items()} == metric.labels
