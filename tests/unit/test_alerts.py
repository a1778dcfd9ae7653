"""The table of alerts: each is told for its fault, once that has lasted, and for no other; a mistake wakes nobody."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from api.live.alerts import RULES, Alert, Seen, Watch, notes
from shared.broker import Reason
from shared.errors import Failure
from shared.registration import Registration, Status
from shared.store.snapshot import Minute, StoreSnapshot, Upstream
from shared.store.workers import WorkerSeen
from tests.conftest import a_parsed_submission
from tests.unit.test_monitor import NOW, WELL

ALIVE = WorkerSeen("host:1", 8, 0, NOW, NOW, True)
BUSY = [Minute(NOW, 90, 3)]
REFUSED = Reason("READONLY You can't write against a read only replica", "READONLY")


def failure(cause: str, fault: str) -> Registration:
    failed = Failure("upstream-busy", "It failed.", fault, True, cause=cause)  # type: ignore[arg-type]
    return Registration(
        id="registration-1",  # type: ignore[arg-type]
        submission=a_parsed_submission(),
        status=Status.FAILED,
        attempts=5,
        bytes_downloaded=0,
        artifact_bytes=None,
        created_at=NOW,
        updated_at=NOW,
        next_attempt_at=None,
        plugin_id=None,
        failure=failed,
    )


def seen(*, broker_away: Reason | None = None, **changes: Any) -> Seen:
    return Seen(replace(WELL, **changes), broker_away)


# What is seen all the time -> which alerts are told in the end.
FAULTS: dict[str, tuple[Seen, set[str]]] = {
    "all is well": (seen(), set()),
    "much to do, and none of it late": (seen(queued=20_000, oldest_due_s=59.0, minutes=BUSY), set()),
    "the store is away": (Seen(None), {"store-away"}),
    "the broker is away": (seen(broker_away=Reason("Connection refused")), {"broker-away"}),
    "the broker takes no messages": (seen(broker_away=REFUSED), {"broker-away"}),
    "both are away": (Seen(None, REFUSED), {"store-away", "broker-away"}),
    "no worker was ever there": (seen(workers=[]), {"no-workers"}),
    "the last worker is gone": (seen(workers=[replace(ALIVE, alive=False)]), {"no-workers"}),
    "one of two workers is gone": (seen(workers=[ALIVE, replace(ALIVE, id="host:2", alive=False)]), set()),
    "the sweep never ran": (seen(swept_at=None), {"sweep-silent"}),
    "the sweep is silent": (seen(swept_at=NOW - timedelta(seconds=31)), {"sweep-silent"}),
    "the sweep is late": (seen(swept_at=NOW - timedelta(seconds=29)), set()),
    "nothing flows": (seen(oldest_due_s=61.0), {"nothing-flows"}),
    "nothing flows, for long": (seen(oldest_due_s=301.0), {"nothing-flows", "oldest-too-old"}),
    "nothing flows, and what is downloaded has stalled": (
        seen(oldest_due_s=61.0, verifying=3, all_stalled=3),
        {"nothing-flows"},
    ),
    "one large download, and others wait": (seen(oldest_due_s=299.0, verifying=1), set()),
    "work flows, too slowly": (seen(oldest_due_s=301.0, minutes=BUSY), {"oldest-too-old"}),
    "what ended did so long ago": (
        seen(oldest_due_s=61.0, minutes=[Minute(NOW - timedelta(minutes=10), 90, 0)]),
        {"nothing-flows"},
    ),
    "workers are lost": (seen(workers_lost=2), {"workers-lost"}),
    "a worker was lost": (seen(workers_lost=1), set()),
    "most fails upstream": (seen(minutes=[Minute(NOW, 4, 6)], faults={"upstream": 6}), {"failures-surge"}),
    "most fails, by mistakes of submitters": (seen(minutes=[Minute(NOW, 4, 60)], faults={"submitter": 60}), set()),
    "a few fail, and little else happens": (seen(minutes=[Minute(NOW, 0, 4)], faults={"upstream": 4}), set()),
    "some of many fail": (seen(minutes=[Minute(NOW, 7, 6)], faults={"upstream": 6}), set()),
    "a webhook is disabled": (seen(minutes=BUSY, webhooks_disabled=1), {"webhook-disabled"}),
    "the registry failed one": (seen(minutes=BUSY, faults={"registry": 1}), {"registry-at-fault"}),
    "an upstream holds the workers": (
        seen(verifying=8, all_stalled=5, upstreams=[Upstream("slow.example", 0, 0, None, 5, 5)]),
        {"downloads-stall"},
    ),
    "some downloads have stalled": (seen(verifying=8, all_stalled=4), set()),
    "one registration, whose host answers 503": (seen(queued=1, retrying={"status-503": 1}), set()),
}


def told(watch: Watch, what: Seen, seconds: Sequence[float]) -> tuple[list[Alert], list[Alert]]:
    """Return what is told, and what is not yet, after a look at each of *seconds*."""
    found: tuple[list[Alert], list[Alert]] = ([], [])
    for now_s in seconds:
        found = watch.look(what, now_s=now_s, at=NOW + timedelta(seconds=now_s))
    return found


@pytest.mark.parametrize("fault", FAULTS)
def test_each_alert_is_told_for_its_fault_and_for_no_other(fault: str) -> None:
    what, expected = FAULTS[fault]
    alerts, early = told(Watch(), what, range(0, 300, 5))
    assert {each.name for each in alerts} == expected
    assert early == []


def test_every_rule_has_a_fault() -> None:
    assert {rule.name for rule in RULES} == set().union(*(expected for _seen, expected in FAULTS.values()))


@pytest.mark.parametrize("rule", RULES, ids=[rule.name for rule in RULES])
def test_what_has_not_lasted_is_known_and_not_told(rule: Any) -> None:
    what = next(what for what, expected in FAULTS.values() if rule.name in expected)
    watch = Watch()
    alerts, early = told(watch, what, [0.0])
    assert rule.name in {each.name for each in (early if rule.for_s else alerts)}
    alerts, early = told(watch, what, [rule.for_s])
    (alert,) = [each for each in alerts if each.name == rule.name]
    assert (alert.since, alert.severity) == (NOW, rule.severity)
    assert alert.sentence.endswith(".")
    told(watch, seen(), [rule.for_s + 1])
    alerts, early = told(watch, what, [rule.for_s + 2])
    assert (rule.name in {each.name for each in alerts}) == (not rule.for_s), "it begins anew"


def test_a_store_that_is_away_meanwhile_makes_nothing_well() -> None:
    watch, silent = Watch(), seen(workers=[])
    told(watch, silent, [0.0, 5.0])
    told(watch, Seen(None), [10.0])
    alerts, _early = told(watch, silent, [31.0])
    assert "no-workers" in {each.name for each in alerts}


def test_the_sentence_says_the_brokers_own_word_the_worst_host_and_the_newest_cause() -> None:
    def sentence(what: Seen) -> str:
        (alert,) = told(Watch(), what, [0.0, 300.0])[0]
        return alert.sentence

    assert "refuses writes: READONLY" in sentence(FAULTS["the broker takes no messages"][0])
    assert "5 of slow.example" in sentence(FAULTS["an upstream holds the workers"][0])
    failures = [failure("html-page", "submitter"), failure("status-503", "upstream"), failure("disk", "registry")]
    surge = seen(minutes=[Minute(NOW, 4, 6)], faults={"upstream": 6}, failures=failures)
    assert "6 of 10 registrations failed in 5 minutes; the newest: status-503" in sentence(surge)
    assert "1 registration failed" in sentence(seen(faults={"registry": 1}, failures=failures))
    assert "the newest: disk" in sentence(seen(faults={"registry": 1}, failures=failures))


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"retrying": {"status-503": 4, "truncated": 1}}, "5 wait to be tried again, 4 of them for status-503."),
        ({"all_stalled": 1}, "1 download has stalled."),
        (
            {"all_stalled": 2, "upstreams": [Upstream("slow.example", 0, 0, None, 3, 2)]},
            "2 downloads have stalled, 2 of slow.example.",
        ),
        ({"faults": {"submitter": 3}}, "3 registrations failed in 5 minutes by their submitters' mistakes."),
    ],
)
def test_what_wakes_nobody_is_a_note(changes: dict[str, Any], note: str) -> None:
    store: StoreSnapshot = replace(WELL, **changes)
    assert notes(store) == [note]
    assert told(Watch(), Seen(store), range(0, 300, 5))[0] == []
