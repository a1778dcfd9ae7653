"""The wire: uvicorn's HTTP/1.1 with a deadline for everything it waits for, and a cap on every kind of connection.

A connection waits for its client in four ways, and each has its end:

    nothing, or part of a head    head_timeout_s      408; closed where not a byte came
    part of a body                body_timeout_s      408, whether or not the app reads it
    nothing, after an answer      keep_alive_s        closed (uvicorn's own timer, but for one case)
    an answer to be taken         answer_timeout_s    cut off; sooner where all of them hold too much of our memory

The first three never run at once and share `_due`; the last is `taken_due`. A look at all connections each half
second (`Gate`) ends those whose time has come: so a request costs an assignment or two, and no timer of its own.

**What the parser is fed is counted** from one sign of progress to the next: the end of a head, a piece of body.
More than `max_head_bytes` between two is too large a head, or as much of trailers, chunk extensions or blank lines:
431. Trailers are dropped: a proxy that sets `X-Forwarded-For` does not look there, and uvicorn would add them to
the headers.

**A refusal is an answer, and answers come in the order of requests.** So it is sent only where nothing before it
still waits for its own; otherwise that is answered, and then the connection ends. From a refusal on the connection
is deaf. It reads on for a moment all the same: a client in the middle of sending would otherwise see a reset and no
answer.

**Another protocol that is offered (`Upgrade`) is declined by answering in this one**, as a server may (RFC 9110
section 7.8). httptools takes what follows such a head for the other protocol's; where it is a body, another parser is
given that, and would otherwise read it as the next request. Some clients offer HTTP/2 with every first request.

**What is pipelined is bounded.** uvicorn reads no further while a request waits for its turn, but what it had read
by then may hold thousands.

Of uvicorn this builds on the callbacks of its protocol, `cycle` (the newest request), `pipeline` (those that wait
for their turn, the newest first) and `flow`. Under `uvicorn --factory api.main:create_app` none of it is there:
then it is for whatever stands in front.
"""

import asyncio
import resource
from collections import Counter
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from math import inf
from typing import Any

import httptools
from starlette.types import ASGIApp
from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from api.http.places import Places
from api.http.prefix import go_under
from api.http.problems import RETRY_AFTER_S, Problem, problem_response
from api.http.proxies import Proxies, counted_as
from shared.logs import get_logger
from shared.settings import Settings

LOOK_S = 0.5
LINGER_S = 2.0
"""How long a client that was refused may go on sending before it is cut off."""
LINGERING = 32
"""So many of them at once; others are closed at once, and may not see why."""
PIPELINED = 16
FIELDS = 256
PIECES = 4096
"""Of a body. One of 64 KiB has them at sixteen bytes each."""
FRAMING = frozenset({b"content-length", b"transfer-encoding"})
OWN_FILES = 128
"""Kept back for the store, the broker and files where the limit on connections is worked out."""
MOST_CONNECTIONS = 10_000
LOGGED_EVERY_S = 60.0

log = get_logger("api.http.protocol")


@dataclass(frozen=True)
class Refusal:
    """Why clients are refused, in a word for the log, and what they are told."""

    why: str
    answer: bytes = b""


class Gate:
    """What the connections of a process share: the limits, the places, a look at all of them, and a line of log."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        go_under(settings.root_path)
        self.proxies = Proxies(settings.trusted_proxies)
        self.most_connections = settings.max_connections or _connections_by_open_files()
        self.by_address = Places(settings.max_connections_per_address)
        self.lingering = Places(LINGERING)
        self.connections: set[Connection] = set()
        self.refused: Counter[str] = Counter()
        self._logged: Counter[str] = Counter()
        self._last = ""
        self._log_due = 0.0
        self._looking = False

        self.malformed = _refusal("malformed", "malformed-request", "This is no request of HTTP/1.1 (RFC 9112).")
        self.large_head = _refusal(
            "large-head",
            "head-too-large",
            f"The head of a request may have {settings.max_head_bytes} bytes and {FIELDS} fields at most.",
        )
        self.late_head = _refusal(
            "late-head",
            "request-timeout",
            f"The head of a request must be complete within {settings.head_timeout_s:g} s.",
        )
        self.late_body = _refusal(
            "late-body",
            "request-timeout",
            f"The body of a request must be complete within {settings.body_timeout_s:g} s after its head.",
        )
        self.too_many = _refusal(
            "connections-of-address",
            "too-many-requests",
            f"Your address has {self.by_address.most} connections open, as many as it may. Close some, or use them.",
            retryable=True,
        )
        self.full = _refusal(
            "connections",
            "overloaded",
            f"The registry has {self.most_connections} connections open, as many as it may. Try again.",
            fault="registry",
            retryable=True,
        )
        self.crumbs = _refusal(
            "crumbs", "malformed-request", f"The body came in more than {PIECES} pieces: send it in larger ones."
        )
        self.pipelined = Refusal("pipelined")
        self.unread = Refusal("unread-answer")

    def look_after(self, connection: "Connection") -> None:
        """Have *connection* looked at until it is lost."""
        self.connections.add(connection)
        self._go_on(connection.loop)

    def note(self, refusal: Refusal, connection: "Connection") -> None:
        """Note that a client was refused. It is logged, once a minute at most, with how many there were."""
        self.refused[refusal.why] += 1
        self._last = connection.client[0] if connection.client else "unknown"
        self._log(connection.loop.time())

    def _go_on(self, loop: asyncio.AbstractEventLoop) -> None:
        if not self._looking and (self.connections or self.refused != self._logged):
            self._looking = True
            loop.call_later(LOOK_S, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._looking = False
        now = loop.time()
        for connection in list(self.connections):
            connection.look(now)
        self._make_room()
        self._log(now)
        self._go_on(loop)

    def _make_room(self) -> None:
        """Cut off who has left an answer unread for the longest, until all there are fit into what they may fill."""
        unread = {each: each.unread_bytes for each in self.connections if each.unread_bytes}
        surplus = sum(unread.values()) - self.settings.max_unread_bytes
        for connection in sorted(unread, key=lambda each: each.taken_due):
            if surplus <= 0:
                return
            surplus -= unread[connection]
            connection.cut_off()

    def _log(self, now: float) -> None:
        if now >= self._log_due and self.refused != self._logged:
            log.warning("clients refused", **(self.refused - self._logged), last_from=self._last)
            self._logged = self.refused.copy()
            self._log_due = now + LOGGED_EVERY_S


class Connection(HttpToolsProtocol):
    """One client's connection."""

    def __init__(self, *args: Any, gate: Gate, **options: Any) -> None:
        super().__init__(*args, **options)
        self._gate = gate
        self._limits = gate.settings
        self._counted_as: str | None = None
        self._answering: RequestResponseCycle | None = None
        """The request whose turn it is, until it is answered."""
        self._in_head = self._in_body = False
        """Whether a part of a request has come: of its head, or all of that and not yet its body's end."""
        self._fed = 0
        """Bytes since the last sign of progress."""
        self._pieces = 0
        """Of the body that comes."""
        self._due = inf
        """When what we wait for must have come."""
        self.taken_due = inf
        """When what we sent must have been taken."""
        self._declining = False
        """Whether the body that comes must be taken out of the hands of a parser that sees none."""
        self._refusing: Refusal | None = None
        """What the parser was stopped for, where that was us."""
        self._deaf = False
        self._lingers = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Take a place for the connection, or refuse it."""
        super().connection_made(transport)
        gate = self._gate
        gate.look_after(self)
        self._due = self.loop.time() + self._limits.head_timeout_s
        host = self.client[0] if self.client else ""
        if len(gate.connections) > gate.most_connections:
            self._refuse(gate.full)
        elif host and not gate.proxies.trusts(host):
            who = counted_as(host)
            if gate.by_address.take(who):
                self._counted_as = who
            else:
                self._refuse(gate.too_many)

    def connection_lost(self, exc: Exception | None) -> None:
        """Leave the place, and tell the request whose turn it is; uvicorn tells the newest, which may be another."""
        super().connection_lost(exc)
        self._gate.connections.discard(self)
        if self._counted_as is not None:
            self._gate.by_address.leave(self._counted_as)
        if self._lingers:
            self._gate.lingering.leave("")
        if self._answering is not None:
            _end(self._answering)
        self.pipeline.clear()

    # --- what comes -----------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Feed the parser, no more than may come before the next sign of progress."""
        if self._deaf:
            return
        self._unset_keepalive_if_required()
        if not (self._in_head or self._in_body):
            self._in_head = True
            if self._answering is None:
                self._due = self.loop.time() + self._limits.head_timeout_s
        while data and not self._deaf:
            piece = data[: self._limits.max_head_bytes - self._fed]
            data = data[self._feed(piece) :]

    def _feed(self, piece: bytes) -> int:
        """Return how many bytes of *piece* were fed."""
        fed = len(piece)
        self._fed += fed
        try:
            try:
                self.parser.feed_data(piece)
            except httptools.HttpParserUpgrade as upgrade:
                fed = upgrade.args[0]
                if self._declining:
                    self._decline()
        except httptools.HttpParserError:
            self._refuse(self._refusing or self._gate.malformed)
            return fed
        if self._fed >= self._limits.max_head_bytes:
            self._refuse(self._gate.large_head)
        return fed

    def _decline(self) -> None:
        """Give the body to a parser that knows no more of the head than how the body ends."""
        self.parser = httptools.HttpRequestParser(self)
        framing = [name + b": " + value + b"\r\n" for name, value in self.scope["headers"] if name in FRAMING]
        self.parser.feed_data(b"POST / HTTP/1.1\r\n" + b"".join(framing) + b"\r\n")
        self._declining = False

    def on_message_begin(self) -> None:
        """Note that a head has begun."""
        if self._declining:
            return
        super().on_message_begin()
        self._in_head = True

    def on_headers_complete(self) -> None:
        """Begin with the request, or have it wait for its turn."""
        if self._declining:
            return
        if len(self.headers) > FIELDS or len(self.pipeline) >= PIPELINED:
            self._refusing = self._gate.large_head if len(self.headers) > FIELDS else self._gate.pipelined
            raise ValueError(self._refusing.why)  # the parser is stopped by it, and tells us as of any other error
        super().on_headers_complete()
        self._declining = self.parser.should_upgrade() and _has_body(self.headers)
        self.headers = []  # what comes now are trailers
        self._in_head, self._in_body, self._fed, self._pieces = False, True, 0, 0
        if self._answering is None:
            self._answering = self.cycle
            self._due = self.loop.time() + self._limits.body_timeout_s

    def on_body(self, body: bytes) -> None:
        """Note the progress, unless it is made in crumbs: each piece costs us what kilobytes cost."""
        self._pieces += 1
        if self._pieces > PIECES:
            self._refusing = self._gate.crumbs
            raise ValueError(self._refusing.why)
        super().on_body(body)
        self._fed = 0

    def on_message_complete(self) -> None:
        """Wait for nothing more of this request."""
        if self._declining:
            return
        super().on_message_complete()
        self._in_body, self._fed = False, 0
        self._due = inf if self._answering else self.loop.time() + self._limits.keep_alive_s

    def on_response_complete(self) -> None:
        """Go on to the request whose turn is next, or wait for one."""
        following = self.pipeline[-1][0] if self.pipeline else None
        super().on_response_complete()
        self._answering = following
        if self._in_body and following is self.cycle:
            self._due = self.loop.time() + self._limits.body_timeout_s
        elif self._in_head and following is None:
            self._unset_keepalive_if_required()
            self._due = self.loop.time() + self._limits.head_timeout_s

    # --- what goes ------------------------------------------------------------------------------

    def pause_writing(self) -> None:
        """Give the client so long to take what there is."""
        super().pause_writing()
        self.taken_due = self.loop.time() + self._limits.answer_timeout_s

    def resume_writing(self) -> None:
        """Go on: it was taken."""
        super().resume_writing()
        if not self._lingers:
            self.taken_due = inf

    def shutdown(self) -> None:
        """End after the answer under way; a client that does not take it holds nobody up."""
        super().shutdown()
        self.taken_due = min(self.taken_due, self.loop.time() + LINGER_S)

    # --- what does not come or go ---------------------------------------------------------------

    def look(self, now: float) -> None:
        """End what is late by *now*."""
        closing = self.transport.is_closing()
        if closing and self.taken_due == inf:  # it closes once the client has taken everything
            self.taken_due = now + self._limits.answer_timeout_s
        if now >= self.taken_due:
            self.cut_off()
        elif now >= self._due and not closing:
            if self._in_head or self._in_body:
                self._refuse(self._gate.late_body if self._in_body else self._gate.late_head)
            else:
                self.transport.close()

    @property
    def unread_bytes(self) -> int:
        """How much of our memory is filled with what the client has not taken."""
        return self.transport.get_write_buffer_size() if self.flow.write_paused else 0

    def cut_off(self) -> None:
        """End it at once."""
        if not self._lingers:
            self._gate.note(self._gate.unread, self)
        self.transport.abort()

    def _refuse(self, refusal: Refusal) -> None:
        """Listen to nothing more, answer what is still to be answered, and end."""
        self._gate.note(refusal, self)
        self._deaf, self._due = True, inf
        if self._in_body and self.pipeline:
            self.pipeline.popleft()  # it is the newest, whose body this is
        elif self._in_body:
            refused, self._answering = self._answering, None
            if refused is not None:
                _end(refused)
            if refused is None or refused.response_started:
                self.transport.close()  # it has an answer already, or part of one
                return
        if self._answering is None:
            self._answer(refusal)
        else:
            last = self.pipeline[0][0] if self.pipeline else self._answering
            last.keep_alive = False

    def _answer(self, refusal: Refusal) -> None:
        self.transport.write(refusal.answer)
        if self.transport.can_write_eof() and self._gate.lingering.take(""):
            self._lingers = True
            self.taken_due = self.loop.time() + LINGER_S
            self.transport.write_eof()
            self.flow.resume_reading()
        else:
            self.transport.close()


def over_our_wire(app: ASGIApp, gate: Gate, **where: Any) -> Config:
    """Return how uvicorn serves *app* over this wire; *where* are its own options."""
    return Config(
        app,
        http=partial(Connection, gate=gate),  # type: ignore[arg-type]  # it is called, as a class would be
        ws="none",
        timeout_keep_alive=gate.settings.keep_alive_s,  # type: ignore[arg-type]  # all it does is wait for so long
        timeout_graceful_shutdown=5,
        proxy_headers=False,  # whom to believe is for api/http/proxies.py
        server_header=False,
        access_log=False,
        log_config=None,
        log_level="error",  # it would warn of each malformed request, where we count
        **where,
    )


def _has_body(headers: list[tuple[bytes, bytes]]) -> bool:
    return any(name in FRAMING and value.strip(b"0") for name, value in headers)


def _end(cycle: RequestResponseCycle) -> None:
    """Tell the app that whoever asked this has gone."""
    cycle.disconnected = True
    cycle.message_event.set()


def _refusal(why: str, code: str, detail: str, **more: Any) -> Refusal:
    headers = {"Retry-After": str(RETRY_AFTER_S)} if more.get("retryable") else {}
    response = problem_response(Problem(code, detail, headers=headers, **more))
    head = f"HTTP/1.1 {response.status_code} {HTTPStatus(response.status_code).phrase}".encode()
    fields = [*response.raw_headers, (b"connection", b"close")]
    lines = [head, *(name + b": " + value for name, value in fields)]
    return Refusal(why, b"\r\n".join(lines) + b"\r\n\r\n" + bytes(response.body))


def _connections_by_open_files() -> int:
    """Return how many connections this process may have, so that it can still open what it needs itself."""
    files, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return MOST_CONNECTIONS
    return min(MOST_CONNECTIONS, files - min(OWN_FILES, files // 2))
