"""Webhooks: URLs that are told of events, and what became of each delivery.

A delivery is a row, made by the transaction that numbers its event: so a hook that was there then is told, whoever
dies (at least once, in any order). It is *due* until it is over. Who tries it moves `due_at` on, beyond the end of
the trial: should it be lost meanwhile, somebody else tries again. Trials are numbered, and only the word of the
newest counts.
"""

import base64
import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Insert, Row, delete, func, insert, not_, select, update
from uuid_utils import uuid7

from shared.registration import Operator, host_of
from shared.store.actions import record_other
from shared.store.database import Database, NowMs
from shared.store.tables import deliveries, moment, webhooks
from shared.store.tokens import name_is_like

KINDS = tuple(f"registration.{status}" for status in ("registered", "rejected", "failed", "canceled"))
"""Of events."""
TEST = "webhook.test"
"""What `webhook test` has delivered; it is in no feed."""
AGAIN_AFTER_S = (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
"""How long after each trial that failed the next one is (Standard Webhooks, "Retry schedule")."""
DISABLED_AFTER_S = 3 * 86_400
"""After so long without a delivery that succeeded a hook is disabled."""
LEASE_S = 60
"""A trial that has not ended by then is lost; it may take twenty seconds."""
OLD_SECRET_S = 86_400
"""So long what is sent is signed with the secret before as well."""
MAX_ERROR_CHARACTERS = 300
MAX_WEBHOOKS = 200

_w = webhooks.c
_d = deliveries.c
_NOW = NowMs()


@dataclass(frozen=True)
class Webhook:
    """A hook as operators see it; its secret is not told again."""

    id: str
    url: str
    label: str
    kinds: tuple[str, ...]
    names: tuple[str, ...]
    signed_with_secret: bool
    created_at: datetime
    created_by: str
    failing_since: datetime | None
    disabled_at: datetime | None
    disabled_why: str | None


@dataclass(frozen=True)
class Delivery:
    """What became of telling one hook of one event."""

    id: str
    webhook_id: str
    event_id: str
    kind: str
    created_at: datetime
    due_at: datetime | None
    trials: int
    failures: int
    tried_at: datetime | None
    status: int | None
    error: str | None
    delivered_at: datetime | None


@dataclass(frozen=True)
class Trial:
    """One trial of a delivery that is to be made now: *number* counts them."""

    delivery_id: str
    webhook_id: str
    number: int
    url: str
    host: str
    event_id: str
    body: str
    secrets: tuple[str, ...]
    """To sign with, the newest first."""


@dataclass(frozen=True)
class Tried:
    """How a trial went: the *status* that was answered, or why there was none."""

    trial: Trial
    status: int | None
    error: str | None

    @property
    def delivered(self) -> bool:
        """Whether the hook has it now."""
        return self.status is not None and 200 <= self.status < 300


class Places:
    """How many trials may be begun: *total*, and of each host *each*, less what is under way there."""

    def __init__(self, total: int, each: int, under_way: Mapping[str, int]) -> None:
        self._left = total - sum(under_way.values())
        self._each = each
        self._taken = Counter(under_way)

    def for_host(self, host: str) -> int:
        """Return how many may be begun at *host*."""
        return max(0, min(self._left, self._each - self._taken[host]))

    def take(self, host: str, number: int) -> None:
        """Note that so many are begun there."""
        self._left -= number
        self._taken[host] += number


class NotToRotate(Exception):
    """A hook's secret cannot be changed now; the message says why."""


class TooManyWebhooks(Exception):
    """There are as many as there may be."""


class Webhooks:
    """The hooks in the store. Every method is one transaction and may raise `StoreUnavailable`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(
        self, url: str, by: Operator, *, label: str, kinds: Sequence[str], names: Sequence[str], secret: bool
    ) -> tuple[Webhook, str | None]:
        """Keep a new hook; return it with its secret, which is told this once, if it is to have one.

        Raises:
            TooManyWebhooks: there is no room for another.
        """
        made = new_secret() if secret else None
        new = insert(webhooks).values(
            id=f"webhook-{uuid7()}",
            url=url,
            host=host_of(url),
            label=label,
            kinds="\n".join(kinds),
            names="\n".join(names),
            secret=made,
            created_at=_NOW,
            created_by=by.label,
        )
        with self._database.write() as connection:
            if len(connection.execute(select(_w.id).limit(MAX_WEBHOOKS)).all()) == MAX_WEBHOOKS:
                raise TooManyWebhooks
            row = connection.execute(new.returning(webhooks)).one()
            record_other(connection, by, "create-webhook", row.id, label)
        return webhook_of(row), made

    def all(self) -> list[Webhook]:
        """Return every hook, the oldest first."""
        with self._database.read() as connection:
            return [webhook_of(row) for row in connection.execute(select(webhooks).order_by(_w.id))]

    def get(self, webhook_id: str) -> Webhook | None:
        """Return one hook."""
        with self._database.read() as connection:
            row = connection.execute(select(webhooks).where(_w.id == webhook_id)).first()
        return webhook_of(row) if row else None

    def remove(self, webhook_id: str, by: Operator) -> bool:
        """Forget a hook and its deliveries; return whether there was one."""
        with self._database.write() as connection:
            connection.execute(delete(deliveries).where(_d.webhook_id == webhook_id))
            was = connection.execute(delete(webhooks).where(_w.id == webhook_id)).rowcount > 0
            if was:
                record_other(connection, by, "remove-webhook", webhook_id)
        return was

    def rotate(self, webhook_id: str, by: Operator) -> tuple[Webhook, str] | None:
        """Give a hook a new secret; what is sent in the next day is signed with the old one as well.

        Raises:
            NotToRotate: it has no secret, or has had this one for less than a day.
        """
        made = new_secret()
        until = _NOW + OLD_SECRET_S * 1000
        with self._database.write() as connection:
            known = connection.execute(select(webhooks, _NOW.label("now")).where(_w.id == webhook_id)).first()
            if known is None:
                return None
            if known.secret is None:
                raise NotToRotate("It has no secret: only the registry's own key signs what it is sent.")
            if known.old_secret is not None and known.old_secret_until > known.now:
                raise NotToRotate(
                    "Its secret was changed less than a day ago, and the one before is good until then."
                )
        row = self._change(
            webhook_id,
            by,
            "rotate-webhook",
            {"secret": made, "old_secret": _w.secret, "old_secret_until": until},
        )
        return (webhook_of(row), made) if row else None

    def enable(self, webhook_id: str, by: Operator) -> Webhook | None:
        """Have a hook that was disabled be told again, of what was due meanwhile too."""
        values = {"disabled_at": None, "disabled_why": None, "failing_since": None}
        row = self._change(webhook_id, by, "enable-webhook", values)
        return webhook_of(row) if row else None

    def _change(self, webhook_id: str, by: Operator, what: str, values: Mapping[str, Any]) -> Row[Any] | None:
        with self._database.write() as connection:
            changing = update(webhooks).where(_w.id == webhook_id).values(**values).returning(webhooks)
            row = connection.execute(changing).first()
            if row is not None:
                record_other(connection, by, what, webhook_id)
        return row

    # --- deliveries -----------------------------------------------------------------------------

    def test(self, webhook_id: str, body: str, event_id: str) -> Delivery | None:
        """Have a hook be told that it is one, and nothing else; return that delivery, None where there is no hook."""
        with self._database.write() as connection:
            if connection.execute(select(_w.id).where(_w.id == webhook_id)).first() is None:
                return None
            new = _new().values(_delivery(webhook_id, event_id, TEST, body))
            return delivery_of(connection.execute(new.returning(deliveries)).one())

    def deliveries(
        self, webhook_id: str, *, limit: int, before: str | None = None, open_only: bool = False
    ) -> list[Delivery]:
        """Return a page of a hook's deliveries, newest first; with *open_only* those that are not over."""
        found = select(deliveries).where(_d.webhook_id == webhook_id).order_by(_d.id.desc()).limit(limit)
        if before is not None:
            found = found.where(_d.id < before)
        if open_only:
            found = found.where(_d.due_at.is_not(None))
        with self._database.read() as connection:
            return [delivery_of(row) for row in connection.execute(found)]

    def redeliver(self, webhook_id: str, delivery_id: str, by: Operator) -> Delivery | None:
        """Have a delivery be tried anew, from now on; return it, None where there is none."""
        again = update(deliveries).where(_d.id == delivery_id, _d.webhook_id == webhook_id)
        with self._database.write() as connection:
            # Trials go on being counted, so that one under way has no say any more.
            anew = {"due_at": _NOW, "delivered_at": None, "trials": _d.trials + 1, "failures": 0}
            row = connection.execute(again.values(**anew).returning(deliveries)).first()
            if row is not None:
                record_other(connection, by, "redeliver", webhook_id, delivery_id)
        return delivery_of(row) if row else None

    def begin(self, places: Places) -> list[Trial]:
        """Begin trials of what is due, as far as there are *places*; whose turn is longest due comes first."""
        with self._database.read() as connection:
            hooks = connection.execute(_WITH_SOMETHING_DUE).all()  # mostly there is nothing to write
        begun: list[Trial] = []
        turn = [hook for hook in hooks if places.for_host(hook.host)]
        if not turn:
            return begun
        with self._database.write() as connection:
            # One of each in turn, so that a hook that has many due, and is slow, holds up no other of its host.
            while turn := [hook for hook in turn if places.for_host(hook.host)]:
                for hook in list(turn):
                    trial = _begin(connection, hook.id) if places.for_host(hook.host) else None
                    if trial is None:
                        turn.remove(hook)
                    else:
                        places.take(hook.host, 1)
                        begun.append(trial)
        return begun

    def put_back(self, trial: Trial, *, in_s: float) -> None:
        """Have a trial that could not be made, for a shortage of ours, be made later; it counts for nothing."""
        with self._database.write() as connection:
            newest = _d.id == trial.delivery_id, _d.trials == trial.number
            connection.execute(update(deliveries).where(*newest).values(due_at=_NOW + int(in_s * 1000)))

    def end(self, tried: Tried) -> None:
        """Note how a trial went: the delivery is over, or due again. Who is gone, or fails long, is disabled."""
        trial = tried.trial
        error = None if tried.error is None else tried.error[:MAX_ERROR_CHARACTERS]
        noting = update(deliveries).where(_d.id == trial.delivery_id, _d.trials == trial.number)
        with self._database.write() as connection:
            known = connection.execute(
                noting.values(
                    tried_at=_NOW,
                    status=tried.status,
                    error=error,
                    failures=_d.failures + (0 if tried.delivered else 1),
                ).returning(_d.failures)
            ).first()
            if known is None:
                return
            more = not tried.delivered and known.failures <= len(AGAIN_AFTER_S)
            again = _NOW + AGAIN_AFTER_S[known.failures - 1] * 1000 if more else None
            connection.execute(noting.values(due_at=again, delivered_at=_NOW if tried.delivered else None))
            hook = update(webhooks).where(_w.id == trial.webhook_id)
            if tried.delivered:
                connection.execute(hook.where(_w.failing_since.is_not(None)).values(failing_since=None))
                return
            connection.execute(hook.where(_w.failing_since.is_(None)).values(failing_since=_NOW))
            enabled = hook.where(_w.disabled_at.is_(None))
            if tried.status == 410:
                connection.execute(enabled.values(disabled_at=_NOW, disabled_why="It answered 410: gone."))
                return
            long_failing = _w.failing_since < _NOW - DISABLED_AFTER_S * 1000
            why = "Nothing could be delivered for three days."
            connection.execute(enabled.where(long_failing).values(disabled_at=_NOW, disabled_why=why))
            if not more:  # it fails no longer, as far as anybody can know, once nothing of it is tried
                open_ones = select(_d.id).where(_d.webhook_id == trial.webhook_id, _d.due_at.is_not(None)).exists()
                connection.execute(enabled.where(not_(open_ones)).values(failing_since=None))

    def forget(self, *, older_than_s: float, limit: int) -> int:
        """Delete up to *limit* deliveries that are older; return how many."""
        old = select(_d.id).where(_d.created_at < _NOW - int(older_than_s * 1000)).limit(limit)
        with self._database.write() as connection:
            return connection.execute(delete(deliveries).where(_d.id.in_(old))).rowcount


def hooks_in(connection: Connection) -> int:
    """Return how many hooks there are."""
    return int(connection.execute(select(func.count()).select_from(webhooks)).scalar_one())


def fan_out(connection: Connection, told: Sequence[Mapping[str, Any]]) -> None:
    """Make a delivery of each event in *told*, rows of the feed, for each hook that is to have it."""
    # Locked, as far as that is needed: one that is removed meanwhile waits until it was told.
    known = connection.execute(select(_w.id, _w.kinds, _w.names).with_for_update(read=True, key_share=True))
    hooks = [(row.id, _lines(row.kinds), _lines(row.names)) for row in known]
    rows = [
        _delivery(hook_id, event["id"], event["kind"], event["document"])
        for event in told
        for hook_id, kinds, names in hooks
        if (not kinds or event["kind"] in kinds) and name_is_like(event["name_key"], names)
    ]
    if rows:
        connection.execute(_new(), rows)


def new_secret() -> str:
    """Return a secret as Standard Webhooks writes one: 32 random bytes."""
    return f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}"


def webhook_of(row: Row[Any]) -> Webhook:
    """Return the hook in a row."""
    return Webhook(
        id=row.id,
        url=row.url,
        label=row.label,
        kinds=_lines(row.kinds),
        names=_lines(row.names),
        signed_with_secret=row.secret is not None,
        created_at=moment(row.created_at),
        created_by=row.created_by,
        failing_since=_moment(row.failing_since),
        disabled_at=_moment(row.disabled_at),
        disabled_why=row.disabled_why,
    )


def delivery_of(row: Row[Any]) -> Delivery:
    """Return the delivery in a row."""
    return Delivery(
        id=row.id,
        webhook_id=row.webhook_id,
        event_id=row.event_id,
        kind=row.kind,
        created_at=moment(row.created_at),
        due_at=_moment(row.due_at),
        trials=row.trials,
        failures=row.failures,
        tried_at=_moment(row.tried_at),
        status=row.status,
        error=row.error,
        delivered_at=_moment(row.delivered_at),
    )


_OLDEST_DUE = select(func.min(_d.due_at)).where(_d.webhook_id == _w.id, _d.due_at.is_not(None)).scalar_subquery()
_WITH_SOMETHING_DUE = (
    select(webhooks).where(_w.disabled_at.is_(None), _OLDEST_DUE <= _NOW).order_by(_OLDEST_DUE, _w.id)
)


def _begin(connection: Connection, webhook_id: str) -> Trial | None:
    """Begin the trial of a hook that is due the longest, if the hook is still to be told anything."""
    due = select(_d.id).where(_d.webhook_id == webhook_id, _d.due_at <= _NOW).order_by(_d.due_at).limit(1)
    row = connection.execute(
        update(deliveries)
        .where(_d.id.in_(due.with_for_update(skip_locked=True)))
        .values(due_at=_NOW + LEASE_S * 1000, trials=_d.trials + 1)
        .returning(*deliveries.c)
    ).first()
    # As it is by now: its secret may have been changed, or it was disabled, since it was seen to have something due.
    hook = connection.execute(
        select(webhooks, _NOW.label("now")).where(_w.id == webhook_id, _w.disabled_at.is_(None))
    ).first()
    if row is None or hook is None:
        return None
    old = [hook.old_secret] if hook.old_secret and (hook.old_secret_until or 0) > hook.now else []
    signing = tuple(each for each in (hook.secret, *old) if each)
    return Trial(row.id, hook.id, row.trials, hook.url, hook.host, row.event_id, row.body, signing)


def _delivery(webhook_id: str, event_id: str, kind: str, body: str) -> dict[str, Any]:
    return {
        "id": f"delivery-{uuid7()}",
        "webhook_id": webhook_id,
        "event_id": event_id,
        "kind": kind,
        "body": body,
        "trials": 0,
        "failures": 0,
    }


def _new() -> Insert:
    return insert(deliveries).values(created_at=_NOW, due_at=_NOW)


def _lines(text: str) -> tuple[str, ...]:
    return tuple(text.split("\n")) if text else ()


def _moment(milliseconds: int | None) -> datetime | None:
    return None if milliseconds is None else moment(milliseconds)
