"""O3: brokers that answer and refuse. All say once why; nothing ends, and work flows when it is mended."""

import pytest

from tests.faults.brokers import Valkey
from tests.faults.cluster import Cluster, Truth, all_at_once
from tests.faults.shown import Shown
from tests.running import until

AWAY, TICKS_AWAY, BELL_AWAY = (
    "broker away, it is waited for",
    "broker away, beat goes on trying",
    "broker away, the sweep will ring",
)
BACK = "broker back"
Command = tuple[str, ...]
KILL: Command = ("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
REFUSALS: dict[str, tuple[list[Command], list[Command]]] = {
    "READONLY": ([("REPLICAOF", "127.0.0.1", "1")], [("REPLICAOF", "NO", "ONE")]),
    "OOM": ([("CONFIG", "SET", "maxmemory", "1")], [("CONFIG", "SET", "maxmemory", "0")]),
    "NOAUTH": ([("CONFIG", "SET", "requirepass", "S3CRET"), KILL], [("CONFIG", "SET", "requirepass", "")]),
    "NOPERM": ([("ACL", "SETUSER", "default", "-@write", "-@scripting")], [("ACL", "SETUSER", "default", "+@all")]),
    "MASTERDOWN": (
        [("CONFIG", "SET", "replica-serve-stale-data", "no"), ("REPLICAOF", "127.0.0.1", "1")],
        [("REPLICAOF", "NO", "ONE"), ("CONFIG", "SET", "replica-serve-stale-data", "yes")],
    ),
}


def pids(cluster: Cluster) -> dict[str, int]:
    return {name: cluster.process(name).pid for name in ("api", "beat", *cluster.workers)}


@pytest.mark.faults_long
@pytest.mark.parametrize("word", REFUSALS)
def test_a_broker_that_refuses_is_waited_for_and_named_and_nothing_ends(
    cluster: Cluster, truth: Truth, word: str
) -> None:
    broker, shown = cluster.broker, Shown(cluster)
    assert isinstance(broker, Valkey)
    refuse, mend = REFUSALS[word]
    before, (told, over) = pids(cluster), [events_of(cluster, event) for event in ({TICKS_AWAY}, {BACK})]
    ids = all_at_once(cluster.client.accepted, [truth.slow_artifact(1)[0] for _ in range(10)])
    for each in refuse:
        broker.do(*each)
    until(lambda: all(said(cluster, name, AWAY, word) for name in cluster.workers), what=f"{word} from each worker")
    ids += all_at_once(cluster.client.accepted, truth.submissions(20))
    until(lambda: said(cluster, "beat", TICKS_AWAY, word), what=f"{word} from beat")
    until(lambda: said(cluster, "api", BELL_AWAY, word), what=f"{word} from the bell")
    shown.all_say(f"The broker refuses writes: {word} ", lambda: shown.metric("broker_up") == 0)
    assert shown.snapshot()["brokerReason"].startswith(word)
    assert shown.metric("broker_away") == 1
    cluster.spawn_worker("late")
    until(lambda: said(cluster, "late", AWAY, word), what=f"{word} from a worker that starts meanwhile")
    for each in mend:
        broker.do(*each)
    until(lambda: cluster.listens("late"), what="the late one at work")
    cluster.until_final()
    ids += all_at_once(cluster.client.accepted, truth.submissions(5))
    cluster.until_final()
    until(lambda: shown.metric("broker_up") == 1, what="that it is back")
    assert before.items() <= pids(cluster).items(), "nobody ended"
    until(lambda: len(events_of(cluster, {BACK})) > len(over), what="that beat says so")
    assert len(events_of(cluster, {TICKS_AWAY})) - len(told) <= 2, "once, and once its word"
    cluster.check(*ids)
    logs = "".join(each.read_text() for each in cluster.folder.glob("*.log"))
    assert "S3CRET" not in logs
    assert "Frequent restarts" not in logs, "between two tries there is a pause"


def events_of(cluster: Cluster, events: set[str]) -> list[object]:
    """Return what beat told of *events*."""
    return [found for event in events for found in cluster.events("beat", event)]


def said(cluster: Cluster, name: str, event: str, word: str) -> bool:
    """Whether a process told that the broker is away by its *word*."""
    return any(each["reason"].startswith(word) for each in cluster.events(name, event))


@pytest.mark.parametrize("command", [("CLIENT", "UNBLOCK"), ("CLIENT", "KILL", "ID")], ids=" ".join)
def test_a_worker_whose_waiting_is_ended_waits_again(cluster: Cluster, truth: Truth, command: Command) -> None:
    broker = cluster.broker
    assert isinstance(broker, Valkey)
    before = pids(cluster)
    for each in broker.waiting():
        broker.do(*command, each, *(("ERROR",) if "UNBLOCK" in command else ()))
    until(lambda: all(cluster.listens(name) for name in cluster.workers), what="every worker back")
    ids = all_at_once(cluster.client.accepted, truth.submissions(20))
    cluster.until_final()
    assert pids(cluster) == before
    cluster.check(*ids)
