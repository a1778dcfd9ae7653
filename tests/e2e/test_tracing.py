"""Traces, sent to a real receiver of OTLP over HTTP: from the POST to the outcome they are one, across the bell."""

import gzip
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.conftest import open_loopback
from tests.origin import Origin, Served
from tests.running import running_registry, until

Artifact = Callable[..., tuple[dict[str, str], Served]]
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@contextmanager
def receiver() -> Iterator[tuple[str, list[tuple[str, Any]]]]:
    """Yield where to send spans, and those that came: the service, and the span."""
    spans: list[tuple[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            for of_service in ExportTraceServiceRequest.FromString(body).resource_spans:
                named = {each.key: each.value.string_value for each in of_service.resource.attributes}
                spans.extend(
                    (named["service.name"], span) for scope in of_service.scope_spans for span in scope.spans
                )
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", spans
    server.shutdown()
    server.server_close()


def test_a_registration_is_one_trace_from_the_post_to_the_outcome(
    tmp_path: Path, origin: Origin, artifact: Artifact
) -> None:
    with receiver() as (endpoint, spans):
        env = open_loopback(origin.port) | {
            "REGISTRY_TRACES": "true",
            "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
            "OTEL_BSP_SCHEDULE_DELAY": "100",
        }
        with running_registry(tmp_path / "state", env=env) as registry:
            good, _served = artifact()
            assert registry.register(good, headers={"traceparent": PARENT}).status_code == 200
            bad, _served = artifact(status=404)
            assert registry.register(bad | {"artifactUrl": bad["artifactUrl"] + "?key=secret"}).status_code == 422
            until(lambda: len(spans) >= 6, what="the spans")
    by_name = {span.name: (service, span) for service, span in spans if span.trace_id.hex() in PARENT}
    assert {name: service for name, (service, _span) in by_name.items()} == {
        "RegisterPlugin": "plugin-registry-api",
        "verify": "plugin-registry-worker",
        "fetch": "plugin-registry-worker",
        "settle": "plugin-registry-worker",
    }
    above = {"RegisterPlugin": bytes.fromhex(PARENT[36:52])}
    above |= {"verify": by_name["RegisterPlugin"][1].span_id}
    above |= dict.fromkeys(("fetch", "settle"), by_name["verify"][1].span_id)
    assert {name: span.parent_span_id for name, (_service, span) in by_name.items()} == above
    told = str([span for _service, span in spans])
    assert "status-404" in told
    assert "secret" not in told
    assert "127.0.0.1" not in told
