"""What Prometheus would see of the real server: Ray's exporter, scraped before and after a story."""

from __future__ import annotations

import json
import time

import httpx
import pytest
import yaml
from sqlalchemy import func, select

from deployments.metrics import PREFIX, Gauge
from serve_app.cli.child_process import ChildProcess, free_port
from serve_app.jobs.stages import TimedStage
from serve_app.observability import metrics
from serve_app.storage.database import Database
from serve_app.storage.tables import jobs
from tests.support import servers
from tests.support.backend import Backend
from tests.support.counted import Scrape
from tests.support.leaks import exporters
from tests.support.process import ROOT
from tests.support.promtool import require

RAYS_LABELS = {"Component", "NodeAddress", "SessionName", "Version", "WorkerId", "le"}
WITHIN_S = 60
MARGIN_S = 1
PROMETHEUS = ROOT / "configs" / "prometheus"
BOARD = json.loads((ROOT / "configs" / "grafana" / "ml-server.json").read_text(encoding="utf-8"))
QUERIES = [target["expr"] for panel in BOARD["panels"] for target in panel.get("targets", [])]


EXPECTED = (
    ("jobs_ended_total", {"state": "completed", "code": "none"}, 1),
    ("jobs_ended_total", {"state": "failed", "code": "DOWNLOAD_ERROR"}, 1),
    ("callback_tries_total", {"outcome": "to_be_retried", "fault": "http_5xx"}, 1),
    ("callback_tries_total", {"outcome": "delivered", "fault": "none"}, 1),
    ("queue_wait_seconds_count", {}, 2),
    *(("stage_seconds_count", {"stage": stage}, 1) for stage in TimedStage),
    ("real_time_factor_count", {}, 1),
    ("answers_total", {"route": "process-video", "status": "200"}, 2),
    ("answers_total", {"route": "process-video", "status": "400"}, 1),
    ("answer_seconds_count", {"route": "process-video"}, 3),
    ("answer_seconds_bucket", {"route": "process-video", "le": "5.0"}, 3),
)
"""What the story adds, and to which series."""


def rise(before, after, name, **labels):
    return after.sum(f"ray_ml_server_{name}", **labels) - before.sum(f"ray_ml_server_{name}", **labels)


def late(before, after):
    """What is not told yet: each process reports at a time of its own, and a scrape clears Ray's gauges until then."""
    rises = {
        "download_bytes_total": {},
        "batch_fill_count": {"stage": "transcriber"},
        "progress_tries_total": {"outcome": "delivered", "fault": "none"},
    }
    told = [name for name, labels in rises.items() if rise(before, after, name, **labels)]
    expected = [(name, labels) for name, labels, by in EXPECTED if rise(before, after, name, **labels) < by]
    shown = after.labels("ray_" + PREFIX)
    gauges = {name for metric in metrics.ALL if isinstance(metric, Gauge) for name in metric.exported} - set(shown)
    standing = set(rises) - set(told), gauges, after.sum("ray_ml_server_jobs", state="running") != 0
    return [*expected, *filter(None, standing)]


def all_are_counted(server, scrape):
    """Whether the jobs of the earlier tests have ended, and the manager has looked since."""
    database = Database(f"sqlite:///{server.state_dir / 'ml-server.db'}")
    try:
        with database.read() as db:
            last, unfinished = db.execute(
                select(func.max(jobs.c.finished_at), func.count().filter(jobs.c.finished_at.is_(None)))
            ).one()
            return (
                not unfinished and scrape.sum("ray_ml_server_manager_seen_timestamp_seconds") > (last or 0) + MARGIN_S
            )
    finally:
        database.close()


@pytest.fixture(scope="module")
def story(server, sources, short):
    """A job that completes, whose end is taken at the second try, one whose video is gone, and a bad request."""
    deadline = time.monotonic() + WITHIN_S
    while not all_are_counted(server, before := Scrape(server.state_dir)):
        assert time.monotonic() < deadline
        time.sleep(0.5)
    with Backend(lambda new, seen: 503 if new.ended and not any(got.ended for got in seen) else 200) as backend:
        job_id = server.start(sources.file(short), fastapi_base_url=backend.url)
        backend.wait_end(job_id)
        failed = server.start(sources.serve(servers.status(404)))
        server.wait(failed)
    assert server.http.post("/api/upload-video/process-video", json={"job_id": "a"}).status_code == 400
    deadline = time.monotonic() + WITHIN_S
    while missing := late(before, after := Scrape(server.state_dir)):
        assert time.monotonic() < deadline, missing
        time.sleep(0.5)
    return server, short, before, after


def test_every_promised_metric_is_there(story):
    """The exporter shows each metric of the list under the names that queries use, with what it means; no other."""
    *_, after = story
    shown = after.labels("ray_" + PREFIX)
    promised = {name for metric in metrics.ALL for name in metric.exported}
    assert promised <= set(shown)
    assert {name.removesuffix("_sum") + "_count" for name in set(shown) - promised} <= promised
    for metric in metrics.ALL:
        assert metric.meaning in after.text


def test_labels_are_ours_and_rays(story):
    """No label that is not declared, no value that is not on its list: nothing of a job or a request is in them."""
    *_, after = story
    for metric in metrics.ALL:
        for name in metric.exported:
            for labels in after.labels(name)[name]:
                rays = {label for label in labels if label in RAYS_LABELS or label.startswith("otel_")}
                assert set(labels) - rays == set(metric.labels)
                assert all(labels[label] in values for label, values in metric.labels.items())


def test_the_figures_are_right(story):
    """What happened is what is told: ends, tries, wait, stages, bytes, answers. A driver that has ended loses none."""
    server, short, before, after = story

    for name, labels, by in EXPECTED:
        risen = rise(before, after, name, **labels)
        assert risen == by or (name == "callback_tries_total" and risen > by), (name, labels)  # others' are retried
    assert 3.9 < rise(before, after, "video_seconds_total") < 4.2
    assert 0 < rise(before, after, "processing_seconds_total") < 60
    assert rise(before, after, "download_bytes_total") >= short.stat().st_size  # earlier ones may be reported late
    limits = server.http.get("/health").json()["jobs"]
    assert after.sum("ray_ml_server_jobs_limit", state="running") == limits["limit"]
    assert after.sum("ray_ml_server_jobs_limit", state="queued") == limits["queue_limit"]
    assert after.sum("ray_ml_server_jobs", state="completed") >= 1
    assert after.sum("ray_ml_server_jobs", state="running") == 0
    assert time.time() - after.sum("ray_ml_server_manager_seen_timestamp_seconds") < WITHIN_S


def test_drivers_make_no_series(story):
    """A job is a process, and Ray labels each series with its process: only those that stay count anything."""
    *_, after = story
    series = after.labels("ray_" + PREFIX)
    by = {
        labels["WorkerId"]
        for name in ("jobs_ended_total", "stage_seconds_count")
        for labels in series["ray_ml_server_" + name]
    }
    assert len(by) == 1
    assert len({labels["WorkerId"] for found in series.values() for labels in found}) < 15


@pytest.mark.full
def test_the_board_has_something_to_show(story, tmp_path):
    """A real Prometheus with our config on the real server: every query of the board has an answer, no alert fires."""
    require("prometheus")
    server, *_ = story
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text(encoding="utf-8"))
    config["global"] |= {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(PROMETHEUS / "alerts.yml")]
    [node, *_] = exporters(server.state_dir)
    config["scrape_configs"][0]["static_configs"] = [{"targets": [node]}]
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
    url = f"http://127.0.0.1:{free_port()}"
    command = ["prometheus", f"--config.file={tmp_path / 'prometheus.yml'}", f"--storage.tsdb.path={tmp_path}"]
    with (
        ChildProcess([*command, f"--web.listen-address={url[7:]}"], log_path=tmp_path / "log"),
        httpx.Client(base_url=url, trust_env=False, timeout=5) as http,
    ):
        deadline = time.monotonic() + 60
        while empty := [expr for expr in QUERIES if not asked(http, expr)]:
            assert time.monotonic() < deadline, empty
            time.sleep(1)
        assert asked(http, 'ALERTS{alertstate="firing"}') == []


def asked(http, expr):
    """The series that a query gives; none while Prometheus is on its way."""
    try:
        answer = http.get("/api/v1/query", params={"query": expr.replace("$__rate_interval", "1m")})
    except httpx.HTTPError:
        return []
    return answer.json()["data"]["result"] if answer.is_success else []
