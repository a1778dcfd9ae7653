"""What is going on, and what is wrong, as operators and their programs read it."""

from dataclasses import asdict
from typing import Annotated, Self

from fastapi import APIRouter, Depends
from pydantic import Field
from starlette.responses import Response

from api.http.auth import allowed, require_every_name
from api.http.problems import documented
from api.live.alerts import Severity
from api.live.monitor import Snapshot
from api.routes.registrations import RegistrationView
from api.routes.views import View, as_json
from api.services import Services, services_of
from shared.registration import Status, Timestamp
from shared.store.tokens import Token

router = APIRouter(tags=["operations"])


class WorkerView(View):
    """A worker process."""

    id: str
    max_downloads: int = Field(description="How many downloads it may hold")
    holding: int
    started_at: Timestamp
    seen_at: Timestamp
    alive: bool


class UpstreamView(View):
    """An upstream host, in this hour and the one before."""

    host: str
    settled: int
    failed: int
    verifying_s: float | None = Field(description="Average from the claim to the outcome")
    downloading: int
    stalled: int


class MinuteView(View):
    """What settled in one minute."""

    begun_at: Timestamp
    registered: int
    failed: int


class PausedView(View):
    """That nothing new is fetched from a host."""

    host: str
    at: Timestamp
    by: str = Field(description="The label of the token")
    note: str


class AcknowledgedView(View):
    """That somebody knows of an alert."""

    by: str = Field(description="The label of the token")
    at: Timestamp
    until: Timestamp
    note: str


class AlertView(View):
    """What somebody is to be told of: by the same table as the metrics and the rules for Prometheus."""

    name: str = Field(examples=["no-workers"])
    severity: Severity
    sentence: str
    since: Timestamp = Field(description="Since when it has been seen to be so")
    to_do: str
    acknowledged: AcknowledgedView | None = Field(description="Who knows of it: until then it wakes nobody")


class SnapshotView(View):
    """What somebody on call wants to know."""

    taken_at: Timestamp
    registrations: dict[Status, int] = Field(description="How many of each status the store holds")
    oldest_due_s: float | None = Field(description="How long the longest waits that could be claimed")
    messages_waiting: int | None = Field(description="Messages in the broker; null where that is away")
    broker_reason: str | None = Field(description="Why the broker is away, by its own word; null where it is not")
    settled_a_second: float
    retrying: dict[str, int] = Field(description="Queued ones whose last attempt failed, by cause")
    swept_s_ago: float | None = Field(description="How long ago the sweep ran")
    alerts: list[AlertView] = Field(description="What is worth being woken for, the worst first")
    notes: list[str] = Field(description="What is good to know and wakes nobody, in sentences")
    paused: list[PausedView] = Field(description="The hosts that are left alone, the one for the longest first")
    workers: list[WorkerView]
    upstreams: list[UpstreamView] = Field(description="The ten worst")
    minutes: list[MinuteView]
    downloads: list[RegistrationView] = Field(description="The oldest claims first, fifty at most")
    failures: list[RegistrationView]

    @classmethod
    def of(cls, seen: Snapshot) -> Self:
        """Return the view of what was *seen*."""
        snapshot = seen.store
        return cls(
            taken_at=snapshot.taken_at,
            registrations=seen.registrations,
            oldest_due_s=snapshot.oldest_due_s,
            messages_waiting=seen.messages_waiting,
            broker_reason=seen.broker_away.text if seen.broker_away else None,
            settled_a_second=round(snapshot.settled_a_second, 3),
            retrying=dict(snapshot.retrying),
            swept_s_ago=snapshot.swept_s_ago,
            alerts=[AlertView.model_validate(each) for each in seen.alerts],
            notes=seen.notes,
            paused=[PausedView.model_validate(each) for each in snapshot.paused],
            workers=[WorkerView(**asdict(each)) for each in snapshot.workers],
            upstreams=[UpstreamView(**asdict(each)) for each in snapshot.upstreams],
            minutes=[MinuteView(**asdict(each)) for each in snapshot.minutes],
            downloads=[RegistrationView.of(each) for each in snapshot.downloads[:50]],
            failures=[RegistrationView.of(each) for each in snapshot.failures],
        )


@router.get(
    "/api/v1/snapshot",
    operation_id="GetSnapshot",
    summary="What is going on, and what is wrong",
    response_model=SnapshotView,
    responses=documented(
        "malformed-request", "unauthorized", "forbidden", "too-many-requests", "store-unavailable", "internal-error"
    ),
)
async def get_snapshot(
    services: Annotated[Services, Depends(services_of)], token: Annotated[Token, Depends(allowed("read", "operate"))]
) -> Response:
    """From the store and the broker, at most about a second old. For tokens that are not limited to names."""
    require_every_name(token)
    return as_json(SnapshotView.of(await services.monitor.now()))
