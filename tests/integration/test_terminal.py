"""Nothing that a server sends acts on a terminal: every client command, on a real one, asks a server that tries to.

The server's answers are made from our own OpenAPI document, so that every field of every answer is hostile, those to
come too.
"""

import json
import os
import pty
import re
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from fastapi import FastAPI
from plugin_registry_client.command.main import VERBS
from plugin_registry_client.command.terminal import BELOW, OWN_SCREEN, REST_OF_LINE, TOP_LEFT, USUAL_SCREEN, say

from api.http.openapi import openapi_document
from api.routes import (
    alerts,
    events,
    operations,
    plugins,
    register,
    registrations,
    snapshot,
    tokens,
    upstreams,
    webhooks,
)
from shared.characters import refuse_hidden, visible
from shared.registration import Status
from tests.running import PATIENCE_S, Running, begin, clean_environment, run

HOSTILE_ID = (
    "\x1b]0;title\x07\x1b[2J\x1b[31m\x9b31m\x9d0;x\x9c\r\nplugin-registry: All is well.\n\x00\x08\x7f\x85"
    "\u202e\u2066\u200b\u200f\u2028\u2029\ufeff\U000e0041"
)
"""The client asks for it, so it can be neither long nor what UTF-8 has no form for."""
HOSTILE = HOSTILE_ID + "\ud800" + "long " * 20_000
REGISTRATION = "registration-019bc2a4-6f00-7c3e-8f6e-5b1f0d9a7c11"
CHECKSUM = "sha256:" + "ab" * 32
SUBMISSION = f"--name x --version 1.0.0 --type log --url https://a.example/x --checksum {CHECKSUM} --timeout 10"
ELSEWHERE = {"login", "logout", "mcp", "ci"}
"""They read stdin, or write files: `tests/e2e/test_many.py`, `tests/e2e/test_mcp.py`, `tests/e2e/test_ci.py`."""
CALLS = [
    f"register {SUBMISSION}",
    f"register {SUBMISSION} --no-wait",
    f"register {SUBMISSION} --dry-run",
    f"status {REGISTRATION}",
    f"wait {REGISTRATION} --timeout 10",
    "list",
    "queue",
    "failures",
    f"retry {REGISTRATION}",
    "retry --cause status-404 --yes",
    f"cancel {REGISTRATION}",
    "pause artifacts.example.com",
    "resume artifacts.example.com",
    "acknowledge no-workers",
    "events",
    "webhook add https://hooks.example.com/",
    "webhook list",
    "webhook deliveries webhook-x",
    "webhook redeliver webhook-x delivery-x",
    "webhook test webhook-x",
    "webhook rotate webhook-x",
    "webhook enable webhook-x",
    "webhook remove webhook-x",
    "token create --scope read",
    "token list",
    "token revoke abcdefghijkl",
]
OWN_SEQUENCES = re.compile(r"\r\x1b\[K|\x1b\[\?1049[hl]|\x1b\[\?25[hl]|\x1b\[[HKJ]")
"""What the progress bar and `queue --watch` send by themselves."""


@cache
def _document() -> dict[str, Any]:
    """Return our document, which takes a while to write."""
    app = FastAPI()
    rooms = (register, plugins, registrations, snapshot, operations, upstreams, alerts, tokens, events, webhooks)
    for each in rooms:
        app.include_router(each.router)
    return openapi_document(app)


class HostileServer:
    """Answers every request with what our document says, poisoned as *mode* says."""

    def __init__(self, mode: str, status: str = "registered") -> None:
        self.mode, self.status = mode, status
        self.sent: list[Any] = []
        self._document = _document()
        self._schemas = self._document["components"]["schemas"]
        answer = self._answer

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                answer(self)

            def do_POST(self) -> None:
                answer(self)

            def log_message(self, *_args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        request.rfile.read(int(request.headers.get("Content-Length", 0)))
        where = urlsplit(request.path)
        operation = self._operation(request.command.lower(), where.path)
        stream = where.path.endswith("/events") and where.path != "/api/v1/events"
        status, document = (422, self._problem()) if self.mode == "problem" else self._success(operation, stream)
        if "dryRun=true" in where.query and status == 202:
            status, document = 200, self._example({"$ref": "#/components/schemas/Plugin"})
        if "cursor=" in where.query:
            document["nextCursor"] = None
        self.sent.append(document)
        body = json.dumps(document).encode() if status != 204 else b""
        request.send_response(status, "\x1b[31m\x9b31m")
        request.send_header("Content-Type", "text/event-stream" if stream else "application/json")
        request.end_headers()
        request.wfile.write(b"event: outcome\ndata: " + body + b"\n\n" if stream else body)

    def _operation(self, method: str, path: str) -> dict[str, Any]:
        for template, methods in self._document["paths"].items():
            if re.fullmatch(re.sub(r"{\w+}", "[^/]+", template), path) and method in methods:
                found: dict[str, Any] = methods[method]
                return found
        raise AssertionError(path)

    def _success(self, operation: dict[str, Any], stream: bool) -> tuple[int, Any]:
        if stream:
            return 200, self._example({"$ref": "#/components/schemas/RegistrationView"})
        responses = operation["responses"]
        status = next((each for each in ("201", "202", "200") if each in responses), "204")
        if status == "204":
            return 204, {}
        return int(status), self._example(responses[status]["content"]["application/json"]["schema"])

    def _problem(self) -> Any:
        return self._example({"$ref": "#/components/schemas/ProblemDocument"})

    def _example(self, schema: dict[str, Any]) -> Any:
        """Return what *schema* allows, every string hostile; in mode ``alien``, every number and all else too."""
        while "anyOf" in schema or "$ref" in schema:
            schema = schema["anyOf"][0] if "anyOf" in schema else self._schemas[schema["$ref"].rpartition("/")[2]]
        kind = schema["type"]
        if kind == "array":
            return [self._example(schema["items"])] * 2
        if kind == "object":
            return self._object(schema)
        if self.mode == "alien":
            return HOSTILE
        plain = {"integer": 422, "number": 4.5, "boolean": True, "string": HOSTILE}
        return self.status if self.status in schema.get("enum", ()) else plain[kind]

    def _object(self, schema: dict[str, Any]) -> Any:
        if "properties" in schema:
            found = {key: self._example(each) for key, each in schema["properties"].items()}
            if self.status == "unacknowledged" and "acknowledged" in found:
                found["acknowledged"] = None
            return found | {key: HOSTILE_ID for key in ("id", "pluginId", "nextCursor") if key in found}
        if schema["additionalProperties"] is True:  # a registration's problem
            return self._problem()
        return {each: self._example(schema["additionalProperties"]) for each in (*Status, HOSTILE)}


@pytest.fixture
def hostile(request: pytest.FixtureRequest) -> Iterator[HostileServer]:
    server = HostileServer(*request.param.split())
    yield server
    server.close()


def on_a_terminal(call: str, server: HostileServer, *, until_it_says: str | None = None) -> str:
    """Return all that the command writes to a terminal, on stdout and stderr, less its own sequences."""
    env = {"REGISTRY_URL": server.url, "REGISTRY_TOKEN": "prg_x"}
    written = written_to_a_terminal(lambda terminal: begin(call.split(), env, terminal), until_it_says)
    return OWN_SEQUENCES.sub("", written)


def written_to_a_terminal(start: Callable[[int], Running], until_it_says: str | None = None) -> str:
    leading, following = pty.openpty()
    process = start(following)
    os.close(following)
    deadline = threading.Timer(PATIENCE_S, process.send_signal, [signal.SIGKILL])
    deadline.start()
    written = b""
    try:
        while chunk := _read(leading):
            written += chunk
            if until_it_says and until_it_says.encode() in written:
                process.send_signal(signal.SIGTERM)
        status = process.wait(PATIENCE_S)
    finally:
        deadline.cancel()
        process.send_signal(signal.SIGKILL)
        os.close(leading)
    assert status != -signal.SIGKILL, written[-1000:]
    return written.decode().replace("\r\n", "\n")


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # everybody has closed the other end
        return b""


def assert_harmless(text: str) -> None:
    for line in text.split("\n"):
        assert refuse_hidden(line) == line
        assert len(line) < 4100
        assert not line.startswith("plugin-registry: All is well")
    assert "Traceback" not in text


def test_every_client_command_is_tried() -> None:
    assert {call.split()[0] for call in CALLS} == set(VERBS) - ELSEWHERE


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("hostile", ["success", "problem"], indirect=True)
def test_what_a_server_sends_is_shown_and_not_obeyed(hostile: HostileServer, call: str) -> None:
    text = on_a_terminal(call, hostile)
    assert_harmless(text)
    # Some tell numbers alone, or nothing.
    if hostile.mode == "problem" or not call.startswith(("retry --cause", "webhook remove", "webhook redeliver")):
        assert visible(HOSTILE[:40]) in text, "what was sent is told"


@pytest.mark.parametrize("hostile", ["success failed"], indirect=True)
def test_why_a_registration_failed_is_shown_and_not_obeyed(hostile: HostileServer) -> None:
    text = on_a_terminal(CALLS[0], hostile)
    assert_harmless(text)
    assert visible(HOSTILE[:40]) in text


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("hostile", ["alien"], indirect=True)
def test_an_answer_of_another_kind_is_told_in_a_sentence(hostile: HostileServer, call: str) -> None:
    assert_harmless(on_a_terminal(call, hostile))
    assert hostile.sent


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("hostile", ["success"], indirect=True)
def test_json_is_ascii_and_holds_what_was_sent(hostile: HostileServer, call: str) -> None:
    done = run(*call.split(), "--json", env={"REGISTRY_URL": hostile.url, "REGISTRY_TOKEN": "prg_x"})
    assert_harmless(done.stderr)
    assert set(done.stdout) <= {"\n", *map(chr, range(0x20, 0x7F))}
    if call == "events":  # a document for each
        documents = [json.loads(line) for line in done.stdout.splitlines()]
        assert documents == hostile.sent[-1]["items"]
        return
    document = json.loads(done.stdout)
    if call.startswith("webhook remove"):  # which is answered with nothing
        assert document == {"id": "webhook-x", "removed": True}
    elif call == "failures":  # of two answers
        assert document == {"items": hostile.sent[0]["items"] + hostile.sent[1]["items"]}
    elif call.startswith("retry --cause"):  # of two pages
        assert document["retried"] == [HOSTILE] * 4
    else:
        assert document == hostile.sent[-1]


@pytest.mark.parametrize(
    ("hostile", "returncode"), [("success unacknowledged", 8), ("success", 0)], indirect=["hostile"]
)
def test_queue_ends_with_8_when_somebody_is_to_be_told(hostile: HostileServer, returncode: int) -> None:
    done = run("queue", env={"REGISTRY_URL": hostile.url, "REGISTRY_TOKEN": "prg_x"})
    assert hostile.sent[0]["alerts"]
    assert done.returncode == returncode


@pytest.mark.parametrize("hostile", ["success", "problem", "alien"], indirect=True)
def test_what_is_watched_is_shown_and_not_obeyed(hostile: HostileServer) -> None:
    text = on_a_terminal("queue --watch", hostile, until_it_says="\\x1b" if hostile.mode == "success" else None)
    assert_harmless(text)


@pytest.mark.parametrize("hostile", ["success"], indirect=True)
def test_what_is_watched_has_a_screen_of_its_own_that_is_left_again(hostile: HostileServer) -> None:
    env = {"REGISTRY_URL": hostile.url, "REGISTRY_TOKEN": "prg_x", "COLUMNS": "60", "LINES": "12"}
    text = written_to_a_terminal(lambda terminal: begin(["queue", "--watch"], env, terminal), "more lines")
    assert text.startswith(OWN_SCREEN)
    assert text.endswith(USUAL_SCREEN), "though it was ended by a signal"
    first = text.removeprefix(OWN_SCREEN).removeprefix(TOP_LEFT).partition(BELOW)[0].split("\n")
    assert len(first) == 12
    assert all(len(each.removesuffix(REST_OF_LINE)) <= 60 for each in first)


def test_progress_is_one_line_of_the_terminals_width(tmp_path: Path) -> None:
    server = HostileServer("success", "verifying")
    try:
        text = on_a_terminal(f"register {SUBMISSION.replace('--timeout 10', '--timeout 1')}", server)
    finally:
        server.close()
    assert_harmless(text)
    assert "Still verifying" in text


LOGGING = """
import logging
from shared.logs import configure_logs, get_logger
from tests.integration.test_terminal import HOSTILE_ID
configure_logs(service="api")
get_logger("api.access").info("request " + HOSTILE_ID, path=HOSTILE_ID, ids=[HOSTILE_ID], **{HOSTILE_ID: 1})
logging.getLogger("library").warning("met %s", HOSTILE_ID)
try:
    raise ValueError(HOSTILE_ID)
except ValueError:
    logging.getLogger("library").exception("failed")
"""


def test_what_is_logged_on_a_terminal_is_shown_and_not_obeyed() -> None:
    command = [sys.executable, "-c", LOGGING]
    text = written_to_a_terminal(
        lambda terminal: subprocess.Popen(
            command, env=clean_environment(), stdin=terminal, stdout=terminal, stderr=terminal
        )
    )
    assert "\x1b[32m" in text, "it is the form for people"
    text = re.sub(r"\x1b\[[0-9]{1,2}m", "", text)
    assert_harmless(text.replace("Traceback", "", 1))
    assert text.count(visible(HOSTILE_ID[:8])) >= 6
    events = [line for line in text.splitlines() if not line.startswith("    ")]
    assert [re.sub(r"^\S+ \[(\w+) *\].*", r"\1", each) for each in events] == ["info", "warning", "error"]


def test_a_line_has_its_bounds_and_tells_what_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    say("x" * 4000, "x" * 4001, "\x1b" * 4000, "\n")
    whole, cut, escaped, newline = capsys.readouterr().out.splitlines()
    assert whole == "x" * 4000
    assert cut == "x" * 4000 + " ... (of 4001 characters)"
    assert escaped == "\\x1b" * 1000 + " ... (of 4000 characters)"
    assert newline == "\\n"


def test_what_a_store_holds_is_shown_and_not_obeyed(tmp_path: Path) -> None:
    """Labels that were made before hidden characters were refused in them."""
    env = {"REGISTRY_DATABASE_URL": f"sqlite:///{tmp_path / 'store.db'}"}
    assert run("migrate", env=env).returncode == 0
    assert run("token", "create", "--scope", "read", env=env).returncode == 0
    label = HOSTILE_ID.replace("\x00", "")
    with closing(sqlite3.connect(tmp_path / "store.db")) as connection, connection:
        connection.execute("UPDATE tokens SET label = ?", (label,))
    listed = run("token", "list", env=env).stdout
    assert_harmless(listed)
    assert visible(label) in listed
