from __future__ import annotations

from collections import Counter, defaultdict
from contextlib import nullcontext, suppress

import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.python import asgi
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from serve_app.api import event_stream, schemas
from serve_app.api.errors import ApiError
from serve_app.api.openapi import EXAMPLE_RESULT
from serve_app.api.schemas import A_VIDEO, ErrorResponse
from serve_app.callbacks.payloads import dump
from serve_app.jobs.job import Attempt, Outcome
from serve_app.settings import Settings
from serve_app.storage.database import Database
from tests.support.edge import edge as edge_over
from tests.support.jobs import begin
from tests.support.stores import stores

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
JOBS = ("ended", "running", "waiting", "last")
FEW, MANY = 60, 340
"""Cases for each of the nine operations; fewer where no request can be wrong."""
PROMISED = 2000
FORMATS = {"srt", "vtt", "txt", "json", "tsv", "rttm"}


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    """The edge over a store with a job in each state; streams end at once."""
    event_stream.STREAM_S, stream_s = 0.0, event_stream.STREAM_S
    database = Database(f"sqlite:///{tmp_path_factory.mktemp('openapi') / 'jobs.db'}")
    database.create()
    server = Settings(profile="local", docs=True)
    store = stores(database, queue_limit=100_000, running_limit=2)
    app = edge_over(server, database, store)
    http = TestClient(app)
    for job_id in JOBS:
        posted = http.post("/api/upload-video/process-video", json={"job_id": job_id, "video_url": A_VIDEO})
        assert posted.status_code == 200
    store.queue.admit_jobs()
    run = begin(store, "ended")
    store.attempts.finish_job(Attempt.of(run), Outcome(result=dump(EXAMPLE_RESULT)))
    yield app
    database.close()
    event_stream.STREAM_S = stream_s


@pytest.fixture(scope="module")
def schema(app):
    return schemathesis.openapi.from_asgi("/openapi.json", app)


def sensible(case):
    """About jobs that exist, every other time, and about videos that may be fetched: chance finds neither."""
    if "job_id" in case.path_parameters and len(case.path_parameters["job_id"]) % 2:
        case.path_parameters["job_id"] = JOBS[len(case.path_parameters["job_id"]) // 2 % len(JOBS)]
    if isinstance(case.body, dict) and len(case.body.get("job_id", "")) % 2:
        case.body |= {"video_url": A_VIDEO, "language": "auto", "fastapi_base_url": None}
    return case


def tried(operation, max_examples, check):
    """Cases by chance for one operation, half of them against the document; `check` gets each."""
    for mode in GenerationMode:
        quick = settings(
            max_examples=max_examples // 2,
            derandomize=True,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=(Phase.generate,),
        )
        with suppress(Unsatisfiable) if mode is GenerationMode.NEGATIVE else nullcontext():  # nothing can be wrong
            cases = operation.as_strategy(generation_mode=mode)
            quick(given(cases.map(sensible) if mode is GenerationMode.POSITIVE else cases)(check))()


def statuses_of(schema, app, max_examples):
    """How often each status came, by operation. Fails at the first answer that the document does not tell of."""
    found = defaultdict(Counter)
    with asgi.get_client(app) as client:

        def check(case):
            answer = case.call_and_validate(session=client, checks=CHECKS)
            found[case.operation.label][answer.status_code] += 1
            if answer.status_code >= 400:
                assert set(answer.json()) == {"error", "message"}
                assert set(answer.json()["error"]) == {"code", "message", "job_id"}

        operations = [operation.ok() for operation in schema.get_all_operations()]
        for operation in sorted(operations, key=lambda operation: operation.method == "delete"):  # else none is left
            tried(operation, max_examples, check)
    print({label: dict(counts) for label, counts in found.items()})
    return found


@pytest.mark.parametrize("max_examples", [FEW, pytest.param(MANY, marks=pytest.mark.full)])
def test_a5_the_document_tells_all(schema, app, max_examples):
    """A5: requests made from the document itself, right and wrong ones: no server error, no undocumented answer."""
    found = statuses_of(schema, app, max_examples)
    assert len(found) == 12
    assert found["GET /api/upload-video/jobs/{job_id}/export"][200]
    for label, counts in found.items():
        assert set(counts) - {400, 401, 405}, label  # it was reached, not only refused
    assert max_examples == FEW or sum(counts.total() for counts in found.values()) >= PROMISED


def test_a5_every_status_has_a_description_and_an_example(app):
    """A5: the document is complete: nothing of FastAPI's 422, an example of each answer and for every code."""
    content = app.openapi()
    kinds = content["components"]["schemas"]
    models = {name: getattr(schemas, name) for name in kinds if hasattr(schemas, name)}
    codes = set()
    for path, operations in content["paths"].items():
        for method, operation in operations.items():
            assert operation["description"], (method, path)
            assert {"405", "408", "413", "500"} <= set(operation["responses"])
            assert "422" not in operation["responses"]
            for status, response in operation["responses"].items():
                assert response["description"], (method, path, status)
                if "text/event-stream" in response["content"]:
                    assert "event: job" in response["content"]["text/event-stream"]["example"]
                    continue
                if (path.endswith("/export"), status) == (True, "200"):
                    assert {name for media in response["content"].values() for name in media["examples"]} == FORMATS
                    continue
                media = response["content"]["application/json"]
                assert "$ref" in media["schema"], (method, path, status)
                codes |= set(media.get("examples", ()))
                name = media["schema"]["$ref"].rpartition("/")[2]
                if "examples" not in media:
                    [example] = kinds[name]["examples"]
                    assert models[name].model_validate(example), (method, path, status)
                for example in media.get("examples", {}).values():
                    assert ErrorResponse.model_validate(example["value"]).message
    assert codes == {refusal.code for refusal in every(ApiError)}
    assert "ValidationError" not in content["components"]["schemas"]


def every(kind):
    return [found for child in kind.__subclasses__() for found in (child, *every(child))]


def test_a5_the_document_says_who_may_ask(tmp_path):
    """A5: with keys, each route but /health names them."""
    database = Database(f"sqlite:///{tmp_path / 'jobs.db'}")
    server = Settings(profile="local", auth={"mode": "keys"})
    store = stores(database, queue_limit=1, running_limit=1)
    app = edge_over(server, database, store)
    for path, operations in app.openapi()["paths"].items():
        for operation in operations.values():
            assert operation["security"] == ([] if path == "/health" else [{"key": []}])
    database.close()
