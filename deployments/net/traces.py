"""Sends spans to the one collector that the settings name, by OTLP over HTTP.

Redirects are not followed, and proxies of the environment are not used. Spans are buffered in memory and sent by a
thread; if the collector is away or slow they are dropped. Knows OpenTelemetry and nothing of jobs. Imported only if a
collector is configured.
"""

from __future__ import annotations

import logging
import platform
import threading
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import requests
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, Decision, TraceIdRatioBased
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    StatusCode,
    TraceFlags,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from deployments import logs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from opentelemetry.sdk.trace import ReadableSpan

SEND_EVERY_S = 0.5
"""Interval of sending; a killed process loses the spans of this time."""
ONE_TRY_S = 5.0
"""Longest time to send a batch, retries included."""
WAITING_SPANS = 4096
NOISY = ("opentelemetry.exporter.otlp", "opentelemetry.sdk._shared_internal")
"""Loggers that log each failed batch; `_Exporter` logs only when failures begin and end."""

log = logs.get_logger("traces")


class Collector:
    """Sends the spans of this process."""

    def __init__(self, url: str, *, service: Mapping[str, str], ratio: float) -> None:
        """`service`: the resource attributes of the sender. `ratio`: the share of traces that are sent, 0-1."""
        for name in NOISY:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        self._ids = _Ids()
        self._lock = threading.Lock()
        self._ratio = TraceIdRatioBased(ratio)
        self._waiting = BatchSpanProcessor(
            _Exporter(url), max_queue_size=WAITING_SPANS, schedule_delay_millis=1000 * SEND_EVERY_S
        )
        who = Resource.create({**service, "host.name": platform.node()})
        provider = TracerProvider(ALWAYS_ON, who, shutdown_on_exit=False, id_generator=self._ids)
        provider.add_span_processor(self._waiting)
        self._tracer = provider.get_tracer(service["service.name"])

    def wants(self, trace_id: int) -> bool:
        """Return whether a trace is sent: the same answer in every process."""
        return self._ratio.should_sample(None, trace_id, "").decision is Decision.RECORD_AND_SAMPLE

    def send(
        self,
        name: str,
        *,
        trace_id: int,
        span_id: int,
        parent_id: int | None,
        start_s: float,
        end_s: float,
        attributes: Mapping[str, str | int | float | bool],
        error: str | None,
    ) -> None:
        """Queue a finished span for sending. Times are epoch seconds; `error` is a word for the failure, if any."""
        parent = Context()
        if parent_id is not None:
            place = SpanContext(trace_id, parent_id, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))
            parent = set_span_in_context(NonRecordingSpan(place), parent)
        with self._lock:
            self._ids.trace_id, self._ids.span_id = trace_id, span_id
            span = self._tracer.start_span(name, parent, attributes=attributes, start_time=_ns(start_s))
        if error is not None:
            span.set_status(StatusCode.ERROR, error)
        span.end(_ns(end_s))

    def flush(self, within_s: float) -> None:
        """Send the buffered spans now. Blocks for at most `within_s` seconds."""
        sending = threading.Thread(target=self._waiting.force_flush, daemon=True)
        sending.start()
        sending.join(within_s)


def parse(traceparent: str) -> tuple[int, int, bool] | None:
    """Return trace id, span id and the sampled flag of a W3C `traceparent`; None if it is invalid."""
    place = get_current_span(TraceContextTextMapPropagator().extract({"traceparent": traceparent})).get_span_context()
    return (place.trace_id, place.span_id, place.trace_flags.sampled) if place.is_valid else None


class _Ids(IdGenerator):
    """Returns the ids that are set for the next span."""

    trace_id = span_id = 0

    def generate_trace_id(self) -> int:
        return self.trace_id

    def generate_span_id(self) -> int:
        return self.span_id


class _Exporter(OTLPSpanExporter):
    """OpenTelemetry's exporter, which logs once when its collector begins to refuse spans, and once when that ends."""

    def __init__(self, url: str) -> None:
        session = requests.Session()
        session.trust_env = False
        super().__init__(endpoint=url, session=session, timeout=ONE_TRY_S)
        self._about = {"collector": urlsplit(url).netloc.rpartition("@")[2]}
        self._fails = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = super().export(spans)
        fails = result is not SpanExportResult.SUCCESS
        if fails and not self._fails:
            log.warning("the collector of traces does not take them: spans are dropped", extra=self._about)
        elif self._fails and not fails:
            log.info("the collector of traces takes them again", extra=self._about)
        self._fails = fails
        return result


def _ns(epoch_s: float) -> int:
    return int(epoch_s * 1e9)
