"""Upstreams as they are, with workers that are killed in the middle and retries between: the outcome is the same."""

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler

import pytest

from tests.faults.cluster import Cluster, Truth
from tests.running import PATIENCE_S, until

Answering = Callable[[BaseHTTPRequestHandler, bytes], None]
WORKERS = ("worker-1", "worker-2")


def broken(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    """Break off in the middle, under a strong ETag."""
    handler.send_response(200)
    handler.send_header("ETag", '"one"')
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body[: len(body) // 2])
    handler.close_connection = True


def whole(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    assert "Range" not in handler.headers
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def rest_as_whole(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    """Say 200, and send what was asked for, which is the rest."""
    assert "Range" in handler.headers
    half = len(body) // 2
    handler.send_response(200)
    handler.send_header("Content-Range", f"bytes {half}-{len(body) - 1}/{len(body)}")
    handler.send_header("Content-Length", str(len(body) - half))
    handler.end_headers()
    handler.wfile.write(body[half:])


def refused(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    assert "Range" in handler.headers
    _status(handler, 403)


def busy(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    _status(handler, 503)


def cut(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    """Send all but nine bytes, of a length that is not announced."""
    _until_closed(handler, body[:-9])


def to_the_end(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    _until_closed(handler, body)


def _status(handler: BaseHTTPRequestHandler, status: int) -> None:
    handler.send_response(status)
    handler.send_header("Content-Length", "0")
    handler.end_headers()


def _until_closed(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    handler.send_response(200)
    handler.send_header("Connection", "close")
    handler.end_headers()
    handler.wfile.write(body)
    handler.close_connection = True


def kill_who_asks(cluster: Cluster, handler: BaseHTTPRequestHandler) -> None:
    """Kill the worker at the other end of *handler*, which is then gone."""
    for name in WORKERS:
        if cluster.running(name) and handler.client_address[1] in [own for own, _ in cluster.wires(name)]:
            cluster.process(name).kill()
            handler.close_connection = True
            return
    raise AssertionError("nobody asks")


@pytest.mark.parametrize(
    "answers",
    [
        pytest.param((broken, None, busy, broken, rest_as_whole, whole), id="U3"),
        pytest.param((broken, None, busy, broken, refused, whole), id="U4"),
        pytest.param((cut, None, busy, cut, to_the_end), id="U9"),
    ],
)
def test_a_worker_that_is_killed_between_changes_nothing(
    cluster: Cluster, truth: Truth, answers: tuple[Answering | None, ...]
) -> None:
    """``None`` is where the worker that asks is killed."""
    left, one_at_a_time = list(answers), threading.Lock()

    def handle(handler: BaseHTTPRequestHandler) -> None:
        with one_at_a_time:
            answer = left.pop(0)
        if answer is None:
            kill_who_asks(cluster, handler)
        else:
            answer(handler, artifact.body)

    submission, artifact = truth.artifact(handle=handle)
    registration_id = cluster.client.accepted(submission)
    _bring_back_until_final(cluster)
    cluster.check(registration_id)
    assert left == []


def test_a_url_that_is_signed_anew_while_workers_are_killed_is_one_plugin(cluster: Cluster, truth: Truth) -> None:
    """U13: sent again with other signatures, in flight, after a kill, and when it is registered."""
    killed = threading.Event()

    def handle(handler: BaseHTTPRequestHandler) -> None:
        if not killed.is_set():
            killed.set()
            kill_who_asks(cluster, handler)
        elif "sig=1" in handler.path:
            _status(handler, 403)  # it has expired meanwhile
        else:
            whole(handler, artifact.body)

    submission, artifact = truth.artifact(handle=handle)
    signed = [submission | {"artifactUrl": f"{submission['artifactUrl']}?sig={n}"} for n in (1, 2, 3)]
    first = cluster.client.accepted(signed[0])
    assert killed.wait(PATIENCE_S)
    others = [cluster.client.accepted(each) for each in signed[1:]]
    _bring_back_until_final(cluster)
    ended = [cluster.client.look(each) for each in (first, *others)]
    assert (ended[0]["status"], ended[0]["problem"]["cause"]) == ("rejected", "status-403")
    (registered,) = [each for each in ended if each["status"] == "registered"]
    (meanwhile,) = [each for each in ended[1:] if each is not registered]
    assert meanwhile["problem"]["cause"] == "registered-meanwhile"
    assert meanwhile["problem"]["pluginId"] == registered["pluginId"]
    for n in (1, 2, 4):
        again = submission | {"artifactUrl": f"{submission['artifactUrl']}?sig={n}"}
        answer = cluster.client.submit(again, prefer="wait=20")
        assert (answer.status_code, answer.json()["id"]) == (200, registered["pluginId"])
    cluster.check(registered["id"])


def _bring_back_until_final(cluster: Cluster) -> None:
    def ended() -> bool:
        for name in WORKERS:
            if not cluster.running(name):
                cluster.spawn_worker(name)
        return not cluster.in_flight()

    until(ended, what="the end of what is in flight")
