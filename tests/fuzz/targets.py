"""What meets a stranger's bytes, called as the product calls it, and the errors each may end in.

Whatever else it raises is a finding; so is what takes too long or too much memory, which `tests.fuzz.trial` sees to.
Targets call what is public only, so that what is behind it may change.
"""

import asyncio
import hashlib
import json
import socket
import time
from datetime import UTC, datetime
from functools import cache
from unittest.mock import patch
from urllib.parse import parse_qsl, urlsplit

import uvloop
from pydantic import ValidationError

from api.http.body import parse_submission
from api.http.config_schema import fault_in_schema
from api.http.paging import PageQuery, known_id, milliseconds
from api.http.plain import MAX_QUERY_BYTES
from api.http.prefer import MAX_WAIT_S, Preference
from api.http.problems import Problem, problem_response
from api.http.strict_json import loads_strictly
from api.routes.plugins import PluginQuery
from api.routes.registrations import RegistrationQuery
from shared.egress import Egress
from shared.errors import RegistryError
from shared.logs import without_secrets
from shared.registration import Claim, RegistrationId, Submission
from shared.store.tokens import Token, parse
from tests.fuzz import examples
from tests.fuzz.served import served
from tests.fuzz.trial import Target
from worker.attempt import Attempt
from worker.digest.diagnose import Evidence, cause_of
from worker.digest.intake import Intake
from worker.digest.lanes import Lanes
from worker.fetch.client import Client
from worker.fetch.hops import Fetcher
from worker.fetch.parser import Body, Head
from worker.fetch.wire import Wire
from worker.slots import Slots

_OPEN = Egress(frozenset({"http", "https"}), (range(1, 65536),))
MAX_HEAD_BYTES = 65_536
"""What the server in front of the application lets through."""
_PATTERNS = ("*a*b*c*d*", "team-?-*", "*.*.*.*", "x" * 100)


def _text(data: bytes) -> str:
    """Return *data* as a text that may hold lone surrogates, as decoded JSON may."""
    return data.decode("utf-8", "surrogateescape")


def _header(data: bytes) -> str:
    """Return *data* as the value of a header: servers decode Latin-1, and leave no end of a line in it."""
    return data.decode("latin-1").translate({0: None, 10: None, 13: None})


# --- the worker -----------------------------------------------------------------------------------


def diagnosis(data: bytes) -> None:
    """A body that is not what was declared, as the stream showed it."""
    seen = Intake(max_bytes=2**30)
    seen.total_bytes = len(data)
    seen.take(data)
    computed = f"sha256:{hashlib.sha256(data).hexdigest()}"
    known = Evidence(examples.DECLARED, computed, len(data), False, None, None, bytes(seen.head))
    assert cause_of(Evidence.unpack(known.pack())).word


@cache
def _loop() -> asyncio.AbstractEventLoop:
    """Return the one loop."""
    return uvloop.new_event_loop()


@cache
def _client() -> Client:
    """Return the one client, for to load the list of authorities takes longer than a thousand inputs."""
    return Client(_nobody, Lanes(1), connect_timeout_s=60, read_timeout_s=60)


async def _nobody(host: str, _port: int, _submitted_by: str) -> Wire:
    raise ConnectionRefusedError(host)


async def _at_once(_seconds: float) -> None:
    """Wait for nothing before it resumes, or gives others a turn."""


def answers(data: bytes) -> None:
    """All that an artifact's host sends, on one connection after the other: heads, bodies, redirects, resumptions."""
    sent, others = data.split(examples.NEXT_CONNECTION), list[socket.socket]()

    async def dial(host: str, port: int, _submitted_by: str) -> Wire:
        assert 0 < port < 65536
        if len(others) == len(sent):
            raise ConnectionRefusedError(host)
        ours, other = socket.socketpair()
        ours.setblocking(False)
        other.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**20)
        other.setblocking(False)
        other.send(sent[len(others)] or b"\r\n")
        other.shutdown(socket.SHUT_WR)
        others.append(other)
        return Wire(ours)

    async def fetched() -> Intake:
        claim = Claim(RegistrationId(examples.ID.decode()), 1, 1, Submission.model_validate(examples.DOCUMENT))
        attempt = Attempt(claim, deadline_s=60, lease_s=60, claimed_at=time.monotonic())
        intake = Intake(max_bytes=2**20, attempt=attempt)
        slot = Slots(1).take(_OPEN.check_url("http://host.example"))
        await Fetcher(client, _OPEN, max_bytes=2**20)("http://host.example/plugin.tar.gz", attempt, slot, intake)
        assert intake.digest().size_bytes == attempt.bytes_downloaded
        return intake

    client = _client()
    client._dial = dial
    try:
        with patch("worker.fetch.hops.asyncio.sleep", _at_once):
            _loop().run_until_complete(fetched())
    finally:
        client.close()
        for other in others:
            other.close()


def chunks(data: bytes) -> None:
    """A body in chunks, and its trailers."""
    body = Body(Head(200, 1, (("transfer-encoding", "chunked"),)))
    arrived = sum(len(piece) for piece in body.feed(data))
    assert arrived <= len(data)
    if not body.done:
        body.end()


def egress(data: bytes) -> None:
    """A URL, read by the policy and by whatever else reads it afterwards."""
    url = _text(data)
    target = _OPEN.check_url(url)
    parts = urlsplit(url)
    assert parts.scheme == target.scheme
    assert (parts.hostname or "").removesuffix(".") in {target.host, f"{target.host}."} or ":" in target.host
    assert (parts.port or {"http": 80, "https": 443}[target.scheme]) == target.port


# --- the api --------------------------------------------------------------------------------------


def submission(data: bytes) -> None:
    """A body of RegisterPlugin, decoded and parsed; what is refused is answered."""
    try:
        submitted = parse_submission(loads_strictly(data.decode("utf-8")), Egress())
    except Problem as refused:
        problem_response(refused)
        return
    assert Submission.model_validate_json(submitted.model_dump_json(by_alias=True)) == submitted
    assert submitted.fingerprint
    _TOKEN.may_use_name(submitted.name)


def config_schema(data: bytes) -> None:
    """A configSchema."""
    fault = fault_in_schema(_text(data))
    if fault is not None:
        assert len(fault) < 1000
        json.dumps(fault).encode()


def strict_json(data: bytes) -> None:
    """JSON, which is read no other way than anybody else reads it."""
    text = data.decode("utf-8")
    document = loads_strictly(text)
    assert len(text) > 4096 or document == json.loads(text)


def prefer(data: bytes) -> None:
    """All Prefer headers of a request."""
    preference = Preference.parse(_header(each) for each in data.split(b"\n"))
    assert 0 <= preference.wait_s(30) <= MAX_WAIT_S
    assert all(value.isprintable() and value.isascii() for value in preference.applied.values())


def query(data: bytes) -> None:
    """The query of a list: cursor and filters; and an id in a path."""
    given = dict(parse_qsl(data[:MAX_QUERY_BYTES].decode("latin-1"), keep_blank_values=True))
    for kind, model in (("plugin", PluginQuery), ("registration", RegistrationQuery)):
        try:
            asked: PageQuery = model.model_validate(given)
            asked.before(kind)
        except (ValidationError, Problem):
            continue
        assert all("\0" not in value for value in asked.filters.values())
        if isinstance(asked, RegistrationQuery):
            assert (milliseconds(asked.since) or 0) >= 0
    known_id(_text(data))


def log_line(data: bytes) -> None:
    """What is logged."""
    text = _text(data[:MAX_HEAD_BYTES])
    event = without_secrets(None, "info", {"event": text, "path": [text], "error": ValueError(text)})
    assert examples.CREDENTIAL not in json.dumps(event)


def token(data: bytes) -> None:
    """A bearer token, and a name that one may or may not use."""
    text = _text(data)
    found = parse(text)
    assert found is None or found.text == text
    if len(text) <= 100:  # of a name
        _TOKEN.may_use_name(text)


def request(data: bytes) -> None:
    """A whole request: a line with method and target, headers, an empty line, the body."""
    head, _, body = data.partition(b"\n\n")
    line, *lines = head[:MAX_HEAD_BYTES].translate(None, b"\r\0").split(b"\n", 1000)
    method, _, target = line.partition(b" ")
    headers = [(name.strip().lower(), value.strip()) for name, _, value in (each.partition(b":") for each in lines)]
    status = served().status(method, target, headers, body)
    assert status < 500 or status == 503, served().surprise.story


# --- all of them ----------------------------------------------------------------------------------

_TOKEN = Token("a" * 12, "fuzz", frozenset({"register"}), _PATTERNS, datetime.now(UTC), None, None)
TARGETS = {
    each.name: each
    for each in (
        Target("diagnosis", diagnosis, examples.BODIES),
        Target("answers", answers, examples.ANSWERS, (RegistryError,)),
        Target("chunks", chunks, examples.CHUNKS, (RegistryError,)),
        Target("egress", egress, examples.URLS, (RegistryError,)),
        Target("submission", submission, examples.SUBMISSIONS, (ValueError,)),
        Target("schema", config_schema, examples.SCHEMAS),
        Target("json", strict_json, examples.JSON, (ValueError,)),
        Target("prefer", prefer, examples.PREFER),
        Target("query", query, examples.QUERIES, (Problem,)),
        Target("log", log_line, examples.LOGGED),
        Target("token", token, examples.TOKENS),
        Target("request", request, examples.REQUESTS),
    )
}
