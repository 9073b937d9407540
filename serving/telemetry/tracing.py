"""Traces through to vLLM: a span for the request, one for each stage, and the predictor's own beneath them.

Without an endpoint the OpenTelemetry API does nothing and costs microseconds. Spans carry counts and versions, never a
user's id or text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.trace import StatusCode

tracer = trace.get_tracer("conf_profile.serving")


@contextmanager
def span(name: str, context: Context | None = None) -> Iterator[None]:
    """A span under the current one, or under `context`. Of an error it keeps the kind: a message may quote a user."""
    with tracer.start_as_current_span(name, context, record_exception=False, set_status_on_exception=False) as current:
        try:
            yield
        except BaseException as error:
            current.set_status(StatusCode.ERROR, type(error).__name__)
            raise


def configure(endpoint: str | None, service: str) -> None:
    """Sends spans to an OTLP/HTTP endpoint (…/v1/traces); None leaves tracing off."""
    if endpoint is None:
        return
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=Resource({SERVICE_NAME: service}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint)))
    trace.set_tracer_provider(provider)


def parent(headers: Mapping[str, str]) -> Context:
    """The caller's span, as the request's headers tell (W3C trace context)."""
    return propagate.extract(headers)


def trace_headers() -> dict[str, str]:
    """Headers that make the current span the parent of what vLLM records."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return carrier
