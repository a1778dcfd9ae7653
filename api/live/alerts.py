"""Alerts: what is wrong, in sentences for whoever is on call.

The alert rules in ``deploy/`` say the same, but wait longer, and not for a single download or retry.
"""

from collections.abc import Iterator, Sequence

from shared.broker import Reason
from shared.registration import Registration
from shared.store.snapshot import StoreSnapshot

SILENT_S = 15.0
"""After so long without a sweep something is wrong: it runs every other second."""
OLD_S = 30.0
SURGE_FROM, SURGE_SHARE = 5, 0.5


def alerts(store: StoreSnapshot, broker_away: Reason | None) -> list[str]:
    """Return what is wrong by the *store*, and that the broker is away, if it is. The worst comes first."""
    return list(_sentences(store, broker_away))


def _sentences(store: StoreSnapshot, broker_away: Reason | None) -> Iterator[str]:
    if broker_away is not None:
        yield f"{broker_away.sentence}. New work waits for the sweep, and the sweep for the broker."
    if not any(each.alive for each in store.workers):
        yield "No worker lives: nothing is verified."
    if store.swept_s_ago is None or store.swept_s_ago > SILENT_S:
        since = "never ran" if store.swept_s_ago is None else f"has not run for {store.swept_s_ago:.0f} s"
        yield f"The sweep {since}: retries and what was missed wait. Is beat running, and a worker?"
    if store.oldest_due_s is not None and store.oldest_due_s > OLD_S:
        flows = "work flows, too slowly" if store.settled_a_second else "nothing flows"
        yield f"The oldest registration has been due for {store.oldest_due_s:.0f} s: {flows}."
    if store.all_stalled:
        worst = max(store.upstreams, key=lambda each: each.stalled, default=None)
        where = f", {worst.stalled} of {worst.host}" if worst and worst.stalled else ""
        yield f"{_downloads(store.all_stalled)} stalled{where}."
    settled, failed = store.settled_lately
    if failed >= SURGE_FROM and failed > settled * SURGE_SHARE:
        yield f"{failed} of the last {settled} registrations failed; the newest: {_reason(store.failures)}."
    if store.retrying:
        cause, number = max(store.retrying.items(), key=lambda each: each[1])
        yield f"{sum(store.retrying.values())} wait to be tried again, {number} of them for {cause}."


def _downloads(number: int) -> str:
    return "1 download has" if number == 1 else f"{number} downloads have"


def _reason(failures: Sequence[Registration]) -> str:
    failure = failures[0].failure if failures else None
    return f"{failure.cause}, at fault: {failure.fault}" if failure else "unknown"
