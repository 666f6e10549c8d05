"""A collector of traces on a loopback port: takes OTLP over HTTP, and tells what came as plain values."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LATE_S = 0.7
"""A process gathers its spans for half a second."""
POLL_S = 0.05
"""Time in which the server notices that it is to end."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A span as it came; ids are hex, `parent` is empty at the top. Times are epoch seconds."""

    process: str
    trace: str
    id: str
    parent: str
    name: str
    start_s: float
    end_s: float
    attributes: dict[str, Any]
    error: str | None


class Collector:
    """What came so far. `answer` gives the status of each request; 0 hangs until the end."""

    def __init__(self, answer: Callable[[], int] = lambda: 200, location: str = "") -> None:
        self.spans: list[Seen] = []
        self.raw: list[bytes] = []
        self.paths: list[str] = []
        self._came = threading.Condition()
        self._closing = threading.Event()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers["content-length"]))
                status = answer()
                collector._take(self.path, raw if status == 200 else b"")
                if status == 0:
                    collector._closing.wait(60)
                    return
                self.send_response(status)
                if location:
                    self.send_header("location", location)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(POLL_S,), daemon=True).start()

    def close(self) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()

    def _take(self, path: str, raw: bytes) -> None:
        with self._came:
            self.paths.append(path)
            self.raw.append(raw)
            for group in ExportTraceServiceRequest.FromString(raw).resource_spans:
                process = _values(group.resource.attributes)["ecg.process"]
                self.spans += [_seen(process, span) for scope in group.scope_spans for span in scope.spans]
            self._came.notify_all()

    def of(self, job_id: str, *, until: str, within_s: float = 20) -> list[Seen]:
        """The job's trace when a span of that name has come, and all that comes within `LATE_S` more."""

        def traces() -> set[str]:
            return {span.trace for span in self.spans if span.attributes.get("ecg.job_id") == job_id}

        with self._came:
            done = self._came.wait_for(
                lambda: any(span.name == until and span.trace in traces() for span in self.spans), within_s
            )
            assert done, sorted(span.name for span in self.spans)
        time.sleep(LATE_S)
        (trace,) = traces()
        return [span for span in self.spans if span.trace == trace]


@contextmanager
def collecting(answer: Callable[[], int] = lambda: 200, location: str = "") -> Iterator[Collector]:
    """One, until the context ends."""
    collector = Collector(answer, location)
    try:
        yield collector
    finally:
        collector.close()


def tree(spans: list[Seen]) -> list[str]:
    """Each span as the names from the top to it; fails where a parent is missing or an id came twice."""
    by_id = {span.id: span for span in spans}
    assert len(by_id) == len(spans), "an id came twice"

    def path(span: Seen) -> str:
        return f"{path(by_id[span.parent])} > {span.name}" if span.parent else span.name

    return sorted(path(span) for span in spans)


def _seen(process: str, span: Any) -> Seen:
    error = span.status.message if span.status.code == Status.STATUS_CODE_ERROR else None
    ids = (span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex())
    times = (span.start_time_unix_nano / 1e9, span.end_time_unix_nano / 1e9)
    return Seen(process, *ids, span.name, *times, _values(span.attributes), error)


def _values(attributes: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}
