"""Alerts: what is worth being woken for, from one table, `RULES`, that everything goes by which tells of them.

The operations page, `GET /api/v1/snapshot`, `plugin-registry queue`, the metric `plugin_registry_alert` and
``deploy/alerts.yml`` say the same: what is so, and has been for as long as its rule says. What has not been for so
long, or is not worth waking anybody, is a note. A submitter's mistake is a note and never more.

How long something has been so each api process knows for itself (`Watch`): it looks every few seconds.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from shared.broker import Reason
from shared.registration import Registration, rfc3339
from shared.store.acknowledgements import Acknowledged
from shared.store.snapshot import FAULTS_OVER_MINUTES, LOST_OVER_S, StoreSnapshot

Severity = Literal["page", "warn"]
SILENT_S = 30.0
"""After so long without a sweep something is wrong: it runs every other second."""
DUE_S, OLD_S = 60.0, 300.0
LOST = 2
SURGE_FROM, SURGE_SHARE = 5, 0.5
NOTHING_FOR_MINUTES = 3


@dataclass(frozen=True)
class Seen:
    """What the rules look at. *store* is None while it does not answer, *broker_away* where that does."""

    store: StoreSnapshot | None
    broker_away: Reason | None = None


@dataclass(frozen=True)
class Rule:
    """When somebody is told of what."""

    name: str
    severity: Severity
    for_s: float
    """How long it has to be so."""
    when: str
    """What is so then, in words, for the documents."""
    to_do: str
    says: Callable[[Seen], str | None]
    """Returns what is so, in a sentence, or None where it is not."""


@dataclass(frozen=True)
class Alert:
    """One rule whose word holds: *sentence* is what is so, *since* when it has been seen to be.

    One that somebody has acknowledged is shown, and wakes nobody until that ends.
    """

    name: str
    severity: Severity
    sentence: str
    since: datetime
    to_do: str
    acknowledged: Acknowledged | None = None


def of_the_store(says: Callable[[StoreSnapshot], str | None]) -> Callable[[Seen], str | None]:
    """Return *says* for whatever is seen: of a store that does not answer nothing is known."""
    return lambda seen: says(seen.store) if seen.store is not None else None


def _store_away(seen: Seen) -> str | None:
    if seen.store is not None:
        return None
    return "The store does not answer: submissions get 503, and nothing that was accepted is lost."


def _broker_away(seen: Seen) -> str | None:
    away = seen.broker_away
    return f"{away.sentence}. New work waits for the sweep, and the sweep for the broker." if away else None


@of_the_store
def _no_workers(store: StoreSnapshot) -> str | None:
    return None if any(each.alive for each in store.workers) else "No worker lives: nothing is verified."


@of_the_store
def _sweep_silent(store: StoreSnapshot) -> str | None:
    if store.swept_s_ago is not None and store.swept_s_ago <= SILENT_S:
        return None
    since = "never ran" if store.swept_s_ago is None else f"has not run for {store.swept_s_ago:.0f} s"
    return f"The sweep {since}: retries and what was missed wait."


@of_the_store
def _nothing_flows(store: StoreSnapshot) -> str | None:
    if store.oldest_due_s is None or store.oldest_due_s <= DUE_S or store.ended_over(NOTHING_FOR_MINUTES):
        return None
    if store.verifying > store.all_stalled:
        return None  # something still arrives
    return (
        f"The oldest registration has been due for {store.oldest_due_s:.0f} s, and nothing has ended for "
        f"{NOTHING_FOR_MINUTES} minutes: nothing flows."
    )


@of_the_store
def _oldest_too_old(store: StoreSnapshot) -> str | None:
    if store.oldest_due_s is None or store.oldest_due_s <= OLD_S:
        return None
    return f"The oldest registration has been due for {store.oldest_due_s:.0f} s: more comes in than is done."


@of_the_store
def _workers_lost(store: StoreSnapshot) -> str | None:
    if store.workers_lost < LOST:
        return None
    return f"{store.workers_lost} workers went without a word in {LOST_OVER_S / 60:.0f} minutes."


@of_the_store
def _failures_surge(store: StoreSnapshot) -> str | None:
    ended = store.ended_over(FAULTS_OVER_MINUTES)
    failed = store.faults.get("upstream", 0) + store.faults.get("registry", 0)
    if failed < SURGE_FROM or failed <= ended * SURGE_SHARE:
        return None
    newest = next((each for each in store.failures if each.failure and each.failure.fault != "submitter"), None)
    return f"{failed} of {ended} registrations failed in {FAULTS_OVER_MINUTES} minutes{_for(newest)}."


@of_the_store
def _our_own_fault(store: StoreSnapshot) -> str | None:
    number = store.faults.get("registry", 0)
    if not number:
        return None
    newest = next((each for each in store.failures if each.failure and each.failure.fault == "registry"), None)
    return f"{_registrations(number)} failed by the registry's own fault{_for(newest)}."


@of_the_store
def _webhooks_disabled(store: StoreSnapshot) -> str | None:
    number = store.webhooks_disabled
    if not number:
        return None
    return f"{number} webhook{' is' if number == 1 else 's are'} disabled, and told nothing."


@of_the_store
def _downloads_stall(store: StoreSnapshot) -> str | None:
    places = sum(each.max_downloads for each in store.workers if each.alive)
    if not places or store.all_stalled <= places * SURGE_SHARE:
        return None
    return f"{store.all_stalled} downloads have stalled, of the {places} that the workers can hold{_worst(store)}."


RULES = (
    Rule(
        "store-away",
        "page",
        30,
        "the store does not answer",
        "See to the database, or the disk it is on.",
        _store_away,
    ),
    Rule(
        "broker-away",
        "page",
        30,
        "the broker does not answer, or takes no messages",
        "See to the broker: its own word stands there. Nothing needs to be restored in it.",
        _broker_away,
    ),
    Rule(
        "no-workers",
        "page",
        30,
        "no worker was heard of in the last seconds",
        "See in their logs why the workers ended, and start them.",
        _no_workers,
    ),
    Rule(
        "sweep-silent",
        "page",
        30,
        f"the last sweep was more than {SILENT_S:.0f} s ago",
        "See whether beat runs, and whether a worker takes what it sends.",
        _sweep_silent,
    ),
    Rule(
        "nothing-flows",
        "page",
        60,
        f"something has been due for {DUE_S:.0f} s, nothing has ended for {NOTHING_FOR_MINUTES} minutes, "
        "and no download moves",
        "See to workers, broker and sweep; then to the upstream whose downloads have stalled.",
        _nothing_flows,
    ),
    Rule(
        "registry-at-fault",
        "warn",
        0,
        f"something failed by the registry's own fault in the last {FAULTS_OVER_MINUTES} minutes",
        "Its cause says what was short or broken. Retry by cause when it is mended.",
        _our_own_fault,
    ),
    Rule(
        "workers-lost",
        "warn",
        0,
        f"{LOST} workers or more went without a word within {LOST_OVER_S / 60:.0f} minutes",
        "They were killed (for memory?), held up, or cut off from the store: their logs end with where they stood.",
        _workers_lost,
    ),
    Rule(
        "oldest-too-old",
        "warn",
        120,
        f"something has been due for {OLD_S:.0f} s",
        "Add workers, or see which upstream holds their places.",
        _oldest_too_old,
    ),
    Rule(
        "failures-surge",
        "warn",
        60,
        f"in {FAULTS_OVER_MINUTES} minutes {SURGE_FROM} or more, and more than half of what ended, failed by an "
        "upstream's fault or the registry's",
        "See which cause and host it is. Retry by cause once that is well again.",
        _failures_surge,
    ),
    Rule(
        "downloads-stall",
        "warn",
        60,
        "stalled downloads hold more than half of the workers' places",
        "See which upstream it is. Its downloads end by themselves at their read timeout.",
        _downloads_stall,
    ),
    Rule(
        "webhook-disabled",
        "warn",
        0,
        "a webhook is disabled: it answered that it is gone, or nothing could be delivered to it for three days",
        "See on its page why. Enable it once it is well again: what was due is delivered then. Else remove it.",
        _webhooks_disabled,
    ),
)


class Watch:
    """What the rules have said, and since when, by one clock that only goes on."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}

    def look(self, seen: Seen, *, now_s: float, at: datetime) -> tuple[list[Alert], list[Alert]]:
        """Return what is to be told by *seen*, and what is so but not for long enough yet; both as `RULES` has them.

        It is *now_s* by the clock, in seconds, and *at* by a calendar.
        """
        alerts: list[Alert] = []
        early: list[Alert] = []
        for rule in RULES:
            sentence = rule.says(seen)
            if sentence is None:
                if seen.store is not None or rule.name == "broker-away":
                    self._since.pop(rule.name, None)  # of a store that is away nothing is known, but what was
                continue
            for_s = now_s - self._since.setdefault(rule.name, now_s)
            alert = Alert(rule.name, rule.severity, sentence, at - timedelta(seconds=for_s), rule.to_do)
            (alerts if for_s >= rule.for_s else early).append(alert)
        return alerts, early


def pauses(store: StoreSnapshot) -> list[str]:
    """Return which hosts are left alone, so that none is forgotten, in sentences."""
    return [
        f"{each.host} is paused by {each.by} since {rfc3339(each.at)}{f': {each.note}' if each.note else '.'}"
        for each in store.paused
    ]


def notes(store: StoreSnapshot) -> list[str]:
    """Return what is good to know and wakes nobody: what is tried again or has stalled, and submitters' mistakes."""
    found = []
    if store.retrying:
        cause, number = max(store.retrying.items(), key=lambda each: each[1])
        found.append(f"{sum(store.retrying.values())} wait to be tried again, {number} of them for {cause}.")
    if store.all_stalled:
        are = "1 download has" if store.all_stalled == 1 else f"{store.all_stalled} downloads have"
        found.append(f"{are} stalled{_worst(store)}.")
    if number := store.faults.get("submitter", 0):
        found.append(
            f"{_registrations(number)} failed in {FAULTS_OVER_MINUTES} minutes by their submitters' mistakes."
        )
    return found


def prometheus_rules() -> dict[str, Any]:
    """Return the rules for Prometheus: each api process tells the same of `RULES`, so the largest is taken."""
    unseen = {
        "alert": "PluginRegistryUnseen",
        "expr": "absent(plugin_registry_store_up)",
        "for": "1m",
        "labels": {"severity": "page"},
        "annotations": {
            "summary": "No api process of the plugin registry tells its metrics.",
            "description": "Submissions are probably refused. See whether the api runs, and whether Prometheus may "
            "scrape it.",
        },
    }
    told = [
        {
            "alert": f"PluginRegistry{''.join(word.capitalize() for word in rule.name.split('-'))}",
            "expr": f'max(plugin_registry_alert{{alert="{rule.name}"}}) == 1',
            "labels": {"severity": rule.severity},
            "annotations": {
                "summary": f"Plugin registry: {rule.when}{f', for {rule.for_s:g} s' if rule.for_s else ''}.",
                "description": rule.to_do,
            },
        }
        for rule in RULES
    ]
    return {"groups": [{"name": "plugin-registry", "rules": [unseen, *told]}]}


def _worst(store: StoreSnapshot) -> str:
    worst = max(store.upstreams, key=lambda each: each.stalled, default=None)
    return f", {worst.stalled} of {worst.host}" if worst and worst.stalled else ""


def _for(newest: Registration | None) -> str:
    return f"; the newest: {newest.failure.cause}" if newest and newest.failure else ""


def _registrations(number: int) -> str:
    return "1 registration" if number == 1 else f"{number} registrations"
