"""`GET /metrics`: the snapshot in Prometheus's words. Nothing is kept here, so every api process tells the same."""

from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from starlette.responses import Response

from api.http.auth import authenticate
from api.http.counts import REQUESTS
from api.http.problems import documented
from api.live.alerts import RULES, Alert
from api.live.monitor import Snapshot
from api.services import Services, services_of
from shared.broker import Reason
from shared.errors import StoreUnavailable
from shared.registration import Status
from shared.store.counters import BUCKETS_S
from shared.store.events import PUBLISHED
from shared.store.snapshot import StoreSnapshot

router = APIRouter(tags=["operations"])

_PREFIX = "plugin_registry"
_OUTCOME = ("status", "code", "cause", "fault")


async def may_look(request: Request, services: Annotated[Services, Depends(services_of)]) -> bool:
    """Let in who shows a token of scope read or operate, or anybody where the settings say so.

    While the store is away no token can be looked up: False then, and all that may be told is that it is away.
    """
    if services.settings.metrics_open:
        return True
    try:
        await authenticate(request, services, "read", "operate")
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
    request: Request, services: Annotated[Services, Depends(services_of)], known: Annotated[bool, Depends(may_look)]
) -> Response:
    """Read from the store and the broker, at most once a second, and the same from every api process."""
    try:
        metrics = _metrics(await services.monitor.now()) if known else None
    except StoreUnavailable:
        metrics = None
    metrics = metrics or _without_store(*await services.monitor.broker())
    try:
        encoder, media_type = choose_encoder(request.headers.get("Accept", ""))
    except (TypeError, ValueError):  # it stumbles over versions that are none
        encoder, media_type = choose_encoder("")
    registry = CollectorRegistry()
    registry.register(_Given([*_always(services.monitor.alerts), *metrics]))
    return Response(encoder(registry), headers={"Content-Type": media_type})


class _Given(Collector):
    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def _always(alerts: Sequence[Alert]) -> Iterator[Metric]:
    build = GaugeMetricFamily(f"{_PREFIX}_build_info", "The version that tells this.", labels=["version"])
    build.add_metric([version("plugin-registry")], 1)
    yield build
    told = GaugeMetricFamily(
        f"{_PREFIX}_alert",
        "Whether somebody is to be told of this, by the table of alerts: of what is acknowledged nobody is.",
        labels=["alert", "severity"],
    )
    known = GaugeMetricFamily(
        f"{_PREFIX}_alert_acknowledged", "Whether this is so, and somebody knows of it.", labels=["alert"]
    )
    by_name = {each.name: each for each in alerts}
    for rule in RULES:
        alert = by_name.get(rule.name)
        told.add_metric([rule.name, rule.severity], int(alert is not None and alert.acknowledged is None))
        known.add_metric([rule.name], int(alert is not None and alert.acknowledged is not None))
    yield from (told, known)


def _without_store(messages: int | None, broker_away: Reason | None) -> Iterator[Metric]:
    yield _gauge("store_up", "Whether the store answers.", 0)
    yield from _broker(messages, broker_away)


def _broker(messages: int | None, away: Reason | None) -> Iterator[Metric]:
    yield _gauge("broker_up", "Whether the broker takes messages.", int(away is None))
    if away is not None:
        why = GaugeMetricFamily(f"{_PREFIX}_broker_away", "Why it does not, while that is so.", labels=["reason"])
        why.add_metric([away.text], 1)
        yield why
    if messages is not None:
        yield _gauge("messages_waiting", "Messages that wait in the broker.", messages)


def _metrics(seen: Snapshot) -> Iterator[Metric]:
    snapshot = seen.store
    counters = snapshot.counters
    yield _gauge("store_up", "Whether the store answers.", 1)
    yield from _broker(seen.messages_waiting, seen.broker_away)
    by_status = GaugeMetricFamily(
        f"{_PREFIX}_registrations", "Registrations in the store, final ones until they are pruned.", labels=["status"]
    )
    for status, number in seen.registrations.items():
        by_status.add_metric([status], number)
    yield by_status
    yield _gauge(
        "paused_hosts", "Hosts from which nothing new is fetched until somebody resumes them.", len(snapshot.paused)
    )
    yield _gauge("webhooks_disabled", "Webhooks that are told nothing any more.", snapshot.webhooks_disabled)
    yield _gauge("webhooks_failing", "Others that could not be told anything lately.", snapshot.webhooks_failing)
    yield _gauge(
        "oldest_due_seconds",
        "How long the registration waits that could be claimed for the longest.",
        snapshot.oldest_due_s or 0,
    )
    retrying = GaugeMetricFamily(
        f"{_PREFIX}_retrying", "Queued registrations whose last attempt failed, by cause.", labels=["cause"]
    )
    for cause, number in snapshot.retrying.items():
        retrying.add_metric([cause], number)
    yield retrying
    outcomes = _counter("outcomes", "Registrations that became final.", _OUTCOME)
    none_yet = {(Status.REGISTERED.value, "", "", ""): 0}  # so that a rate has something to begin at
    for labels, value in (none_yet | _labelled(snapshot, "outcomes")).items():
        outcomes.add_metric(labels, value)
    yield outcomes
    for count, name, sentence in (
        ("claims", "attempts", "Attempts begun: claims, those that were put back too."),
        ("leases_lost", "leases_lost", "Claims whose lease ran out because their worker was lost."),
        ("workers_lost", "workers_lost", "Worker processes that went without a word: killed, held up, or cut off."),
        (PUBLISHED, "events", "Events told in the feed: one for each registration that ended."),
        ("bytes", "verified_bytes", "Bytes of registered artifacts."),
    ):
        counter = _counter(name, sentence)
        counter.add_metric([], counters.get((count, ()), 0))
        yield counter
    for duration, name, sentence in (
        ("queued", "queued_seconds", "From the submission to the claim of the last attempt."),
        ("verifying", "verifying_seconds", "From the claim of the last attempt to the outcome."),
        ("total", "registration_seconds", "From the submission to the outcome."),
    ):
        yield _histogram(seen, duration, name, sentence)
    yield _gauge("downloads_in_flight", "Artifacts that are being verified.", snapshot.verifying)
    yield _gauge(
        "downloads_stalled", "Of these, those of which nothing has arrived for some seconds.", snapshot.all_stalled
    )
    alive = [each for each in snapshot.workers if each.alive]
    yield _gauge("workers_alive", "Worker processes that were heard of in the last seconds.", len(alive))
    yield _gauge(
        "worker_max_downloads", "Downloads that these may hold at once.", sum(each.max_downloads for each in alive)
    )
    yield _gauge(
        "sweep_last_run_timestamp_seconds",
        "When the sweep ran last, by the store's clock; 0 for never.",
        snapshot.swept_at.timestamp() if snapshot.swept_at else 0,
    )
    yield _gauge(
        "store_timestamp_seconds", "The store's clock, when it was looked at.", snapshot.taken_at.timestamp()
    )
    answered = _counter("http_requests", "Requests answered by an api process.", ("method", "route", "status"))
    for labels, value in _labelled(snapshot, REQUESTS).items():
        answered.add_metric(labels, value)
    yield answered


def _labelled(snapshot: StoreSnapshot, name: str) -> dict[tuple[str, ...], int]:
    return {labels: value for (count, labels), value in snapshot.counters.items() if count == name}


def _gauge(name: str, sentence: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"{_PREFIX}_{name}", sentence, value)


def _counter(name: str, sentence: str, labels: Iterable[str] = ()) -> CounterMetricFamily:
    return CounterMetricFamily(f"{_PREFIX}_{name}", sentence, labels=list(labels))


def _histogram(seen: Snapshot, duration: str, name: str, sentence: str) -> HistogramMetricFamily:
    counters = seen.store.counters
    bounds = [*(f"{bound:g}" for bound in BUCKETS_S), "+Inf"]
    buckets, up_to_here = [], 0
    for place, bound in enumerate(bounds):
        up_to_here += counters.get((f"{duration}_bucket", (str(place),)), 0)
        buckets.append((bound, up_to_here))
    total_s = counters.get((f"{duration}_ms", ()), 0) / 1000
    return HistogramMetricFamily(f"{_PREFIX}_{name}", sentence, buckets=buckets, sum_value=total_s)
