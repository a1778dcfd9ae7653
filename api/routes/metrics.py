"""`GET /metrics`: the sight in Prometheus's words. Nothing is kept here, so every api process tells the same."""

from collections.abc import Iterable, Iterator
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from starlette.responses import Response

from api.http import counts as answers
from api.http.auth import authenticate
from api.http.problems import documented
from api.live.monitor import Sighting
from api.services import Services, services
from shared.errors import StoreUnavailable
from shared.registration import Status
from shared.store.counters import BUCKETS_S
from shared.store.snapshot import Overview

router = APIRouter(tags=["operations"])

_PREFIX = "plugin_registry"
_OUTCOME = ("status", "code", "cause", "fault")


async def may_look(request: Request, it: Annotated[Services, Depends(services)]) -> bool:
    """Let in who shows a token of scope read or operate, or anybody where the settings say so.

    While the store is away no token can be looked up: False then, and all that may be told is that it is away.
    """
    if it.settings.metrics_open:
        return True
    try:
        await authenticate(request, it, "read", "operate")
    except StoreUnavailable:
        return False
    return True


@router.get(
    "/metrics",
    operation_id="GetMetrics",
    summary="Metrics for Prometheus",
    response_class=Response,
    responses={
        200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "The metrics"},
        **documented("malformed-request", "unauthorized", "forbidden", "too-many-requests", "internal-error"),
    },
)
async def get_metrics(
    request: Request, it: Annotated[Services, Depends(services)], known: Annotated[bool, Depends(may_look)]
) -> Response:
    """Read from the store and the broker, at most once a second, and the same from every api process."""
    try:
        metrics = _metrics(await it.sight.now()) if known else _without_store(await it.sight.bells())
    except StoreUnavailable:
        metrics = _without_store(await it.sight.bells())
    try:
        encoder, media_type = choose_encoder(request.headers.get("Accept", ""))
    except (TypeError, ValueError):  # it stumbles over versions that are none
        encoder, media_type = choose_encoder("")
    registry = CollectorRegistry()
    registry.register(_Given(list(metrics)))
    return Response(encoder(registry), headers={"Content-Type": media_type})


class _Given(Collector):
    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def _without_store(bells: int | None) -> Iterator[Metric]:
    yield _gauge("store_up", "Whether the store answers.", 0)
    yield from _broker(bells)


def _broker(bells: int | None) -> Iterator[Metric]:
    yield _gauge("broker_up", "Whether the broker answers.", int(bells is not None))
    if bells is not None:
        yield _gauge("bells_waiting", "Messages that wait in the broker.", bells)


def _metrics(seen: Sighting) -> Iterator[Metric]:
    overview = seen.overview
    tallies = overview.tallies
    yield _gauge("store_up", "Whether the store answers.", 1)
    yield from _broker(seen.bells)
    by_status = GaugeMetricFamily(
        f"{_PREFIX}_registrations", "Registrations in the store, final ones until they are pruned.", labels=["status"]
    )
    for status, number in seen.registrations.items():
        by_status.add_metric([status], number)
    yield by_status
    yield _gauge(
        "oldest_due_seconds",
        "How long the registration waits that could be claimed for the longest.",
        overview.oldest_due_s or 0,
    )
    retrying = GaugeMetricFamily(
        f"{_PREFIX}_retrying", "Queued registrations whose last attempt failed, by cause.", labels=["cause"]
    )
    for cause, number in overview.retrying.items():
        retrying.add_metric([cause], number)
    yield retrying
    outcomes = _counter("outcomes", "Registrations that became final.", _OUTCOME)
    none_yet = {(Status.REGISTERED.value, "", "", ""): 0}  # so that a rate has something to begin at
    for labels, value in (none_yet | _labelled(overview, "outcomes")).items():
        outcomes.add_metric(labels, value)
    yield outcomes
    for tally, name, sentence in (
        ("claims", "attempts", "Attempts begun: claims, those that were put back too."),
        ("leases_lost", "leases_lost", "Claims whose lease ran out because their worker was lost."),
        ("workers_lost", "workers_lost", "Worker processes that went without a word: killed, held up, or cut off."),
        ("bytes", "verified_bytes", "Bytes of registered artifacts."),
    ):
        counter = _counter(name, sentence)
        counter.add_metric([], tallies.get((tally, ()), 0))
        yield counter
    for duration, name, sentence in (
        ("queued", "queued_seconds", "From the submission to the claim of the last attempt."),
        ("verifying", "verifying_seconds", "From the claim of the last attempt to the outcome."),
        ("total", "registration_seconds", "From the submission to the outcome."),
    ):
        yield _histogram(seen, duration, name, sentence)
    yield _gauge("downloads_in_flight", "Artifacts that are being verified.", overview.verifying)
    yield _gauge(
        "downloads_stalled", "Of these, those of which nothing has arrived for some seconds.", overview.all_stalled
    )
    alive = [each for each in overview.workers if each.alive]
    yield _gauge("workers_alive", "Worker processes that were heard of in the last seconds.", len(alive))
    yield _gauge("worker_threads", "Downloads that these may hold at once.", sum(each.threads for each in alive))
    yield _gauge(
        "sweep_last_run_timestamp_seconds",
        "When the sweep ran last, by the store's clock; 0 for never.",
        overview.swept_at.timestamp() if overview.swept_at else 0,
    )
    yield _gauge(
        "store_timestamp_seconds", "The store's clock, when it was looked at.", overview.taken_at.timestamp()
    )
    answered = _counter("http_answers", "Requests answered by an api process.", ("method", "route", "status"))
    for labels, value in _labelled(overview, answers.NAME).items():
        answered.add_metric(labels, value)
    yield answered


def _labelled(overview: Overview, name: str) -> dict[tuple[str, ...], int]:
    return {labels: value for (tally, labels), value in overview.tallies.items() if tally == name}


def _gauge(name: str, sentence: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"{_PREFIX}_{name}", sentence, value)


def _counter(name: str, sentence: str, labels: Iterable[str] = ()) -> CounterMetricFamily:
    return CounterMetricFamily(f"{_PREFIX}_{name}", sentence, labels=list(labels))


def _histogram(seen: Sighting, duration: str, name: str, sentence: str) -> HistogramMetricFamily:
    tallies = seen.overview.tallies
    bounds = [*(f"{bound:g}" for bound in BUCKETS_S), "+Inf"]
    buckets, up_to_here = [], 0
    for place, bound in enumerate(bounds):
        up_to_here += tallies.get((f"{duration}_bucket", (str(place),)), 0)
        buckets.append((bound, up_to_here))
    total_s = tallies.get((f"{duration}_ms", ()), 0) / 1000
    return HistogramMetricFamily(f"{_PREFIX}_{name}", sentence, buckets=buckets, sum_value=total_s)
