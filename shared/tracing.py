"""Traces, where REGISTRY_TRACES is set: one from the POST to the outcome, through OpenTelemetry (the extra ``otel``).

A bell carries ids only (invariant 9), so the store carries the W3C traceparent across. A span holds ids,
numbers and our own codes: never a URL, and no message of an exception. Where it goes is for
OpenTelemetry's own ``OTEL_*`` variables.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

Role = Literal["server", "consumer", "internal"]

_tracer: "Tracer | None" = None


class TracingNotInstalled(Exception):
    """Traces are asked for, and OpenTelemetry is not there; the message says what to do."""


def start_tracing(service: str) -> None:
    """Send the spans of this process, as *service*, to where the ``OTEL_*`` variables say.

    Raises:
        TracingNotInstalled: the extra is missing.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ImportError as error:
        raise TracingNotInstalled("REGISTRY_TRACES is set: install plugin-registry[otel], or unset it.") from error

    global _tracer  # noqa: PLW0603  # as with logs: one for the process, begun once
    provider = TracerProvider(resource=Resource.create({"service.name": f"plugin-registry-{service}"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    _tracer = provider.get_tracer("plugin-registry")


@contextmanager
def span(
    name: str, *, parent: str | None = None, role: Role = "internal", **attributes: str | int
) -> Iterator[str | None]:
    """Trace the block as *name*, below the traceparent *parent* or else the span around it; yield its traceparent.

    Where nothing is traced, neither is this, and None is yielded.
    """
    if _tracer is None:
        yield None
        return
    from opentelemetry.trace import SpanKind  # noqa: PLC0415
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

    propagator = TraceContextTextMapPropagator()
    with _tracer.start_as_current_span(
        name,
        context=propagator.extract({"traceparent": parent}) if parent else None,
        kind={"server": SpanKind.SERVER, "consumer": SpanKind.CONSUMER, "internal": SpanKind.INTERNAL}[role],
        attributes={f"registry.{key}": value for key, value in attributes.items()},
        record_exception=False,
        set_status_on_exception=False,
    ):
        carrier: dict[str, str] = {}
        propagator.inject(carrier)
        yield carrier.get("traceparent")


def note(attributes: Mapping[str, str | int]) -> None:
    """Add *attributes* to the span around us, if there is one."""
    if _tracer is None:
        return
    from opentelemetry.trace import get_current_span  # noqa: PLC0415

    for key, value in attributes.items():
        get_current_span().set_attribute(f"registry.{key}", value)
