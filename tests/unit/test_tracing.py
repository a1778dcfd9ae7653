"""Where nothing is traced nothing is, and where the extra is missing that is said."""

import sys

import pytest

from shared.tracing import TracingNotInstalled, note, span, start_tracing


def test_without_tracing_a_span_is_nothing() -> None:
    with span("verify", parent="nonsense") as trace:
        note({"code": "truncated"})
    assert trace is None


def test_a_missing_extra_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(TracingNotInstalled, match=r"plugin-registry\[otel\]"):
        start_tracing("tests")
