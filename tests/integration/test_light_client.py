"""How the light client reaches a registry, or says why not: real sockets, certificates and proxies."""

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import trustme
from plugin_registry_client import (
    BadSettings,
    Client,
    NotARegistry,
    NoToken,
    Registration,
    RegistryError,
    Unreachable,
)
from plugin_registry_client.connection import Connection

from tests.running import COMMAND, PATIENCE_S, clean_environment, run

PLUGINS: dict[str, object] = {"items": [], "nextCursor": None}


def answer(body: bytes = json.dumps(PLUGINS).encode(), head: str = "200 OK", *more: str) -> bytes:
    lines = [f"HTTP/1.1 {head}", f"Content-Length: {len(body)}", "Connection: close", *more, "", ""]
    return "\r\n".join(lines).encode() + body


TLS_RECORD = b"\x16\x03"


class Answering:
    """Sends the same bytes to whoever has sent a head, over TLS if it has a context; keeps the heads."""

    def __init__(self, sends: bytes, context: ssl.SSLContext | None = None) -> None:
        self.heads: list[bytes] = []
        self._sends = sends
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                accepted, _ = self._listener.accept()
            except OSError:
                return
            with closing(accepted):
                try:
                    connection = self._context.wrap_socket(accepted, server_side=True) if self._context else accepted
                    head = b""
                    while (
                        b"\r\n\r\n" not in head
                        and not head.startswith(TLS_RECORD)
                        and (came := connection.recv(65536))
                    ):
                        head += came
                    self.heads.append(head)
                    connection.sendall(self._sends)
                    connection.close()
                except OSError:
                    continue


@contextmanager
def answering(sends: bytes = b"", context: ssl.SSLContext | None = None) -> Iterator[Answering]:
    server = Answering(sends or answer(), context)
    yield server
    server.close()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def secure(authority: trustme.CA) -> Iterator[Answering]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    with answering(context=context) as server:
        yield server


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> Path:
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return tmp_path / "ca.pem"


def reason(url: str, **options: Path) -> str:
    with pytest.raises(RegistryError) as error:
        Connection(url, "prg_x", **options).get("/api/v1/plugins")
    assert error.value.exit_status == 7
    return str(error.value)


def a_closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


def test_why_no_registry_answers_is_told() -> None:
    assert "nothing listens there" in reason(f"http://127.0.0.1:{a_closed_port()}")
    assert "there is no host called no-such-host.invalid" in reason("http://no-such-host.invalid")
    with answering(b"\x00") as server:
        assert "the connection broke" in reason(f"http://127.0.0.1:{server.port}")
        assert "TLS fails there" in reason(f"https://127.0.0.1:{server.port}")


@pytest.mark.parametrize(
    ("sends", "told"),
    [
        (answer(b"<html>"), "is no plugin registry (status 200"),
        (answer(b"[]"), "is no plugin registry"),
        (answer(b"[" * 100_000), "is no plugin registry"),
        (answer(b""), "is no plugin registry (status 200"),
        (answer(b'{"code": 404, "kind": "Status"}', "404 Not Found"), "is no plugin registry (status 404"),
        (answer(b'{"code": "x", "errors": ["y"]}', "400 Bad Request"), "is no plugin registry (status 400"),
        (answer(b"no", "502 Bad Gateway", "Content-Type: text/plain; x"), "(status 502, text/plain)"),
        (answer(b'{"error": 1}', "401 Unauthorized"), "is no plugin registry (status 401"),
        (
            answer(b"", "301 Moved", "Location: https://u:secret@elsewhere.example/secret"),
            "to https://elsewhere.example:",
        ),
    ],
)
def test_what_is_no_registry_is_told(sends: bytes, told: str) -> None:
    with answering(sends) as server:
        said = reason(f"http://127.0.0.1:{server.port}")
        assert told in said
        assert "secret" not in said
        with pytest.raises(NotARegistry):
            Client(f"http://127.0.0.1:{server.port}", "prg_x").plugin("plugin-1")


@pytest.mark.parametrize("told", [b'{"a": 1}', b'{"id": 7, "name": "x"}', b'{"id": "plugin-1", "name": "x"}', b"[]"])
def test_a_strangers_200_lists_nothing(told: bytes) -> None:
    with answering(answer(told)) as server, Client(f"http://127.0.0.1:{server.port}", "prg_x") as client:
        ended = Registration({"id": "r", "status": "registered", "pluginId": "p", "problem": None})
        asked: list[Callable[[], object]] = [
            lambda: client.submit({}),
            lambda: client.dry_run({}),
            lambda: client.plugin("plugin-1"),
            lambda: client.registration("registration-1"),
            lambda: client.retry("registration-1"),
            lambda: client.wait(ended, timeout_s=0.2),
            lambda: next(client.plugins()),
        ]
        for ask in asked:
            with pytest.raises(NotARegistry):
                ask()


@pytest.mark.parametrize("text", ["", ".", ".."])
def test_an_id_of_dots_is_none(text: str) -> None:
    with answering() as server, Client(f"http://127.0.0.1:{server.port}", "prg_x") as client:
        for ask in (client.plugin, client.registration, client.retry, client.cancel):
            with pytest.raises(BadSettings):
                ask(text)
        assert server.heads == []


def test_a_post_that_is_redirected_becomes_no_get() -> None:
    with answering(answer(b"", "302 Found", "Location: /")) as server:
        with pytest.raises(NotARegistry):
            Client(f"http://127.0.0.1:{server.port}", "prg_x").submit({})
        assert len(server.heads) == 1


def test_certificates_are_those_of_this_machine_and_of_a_file(
    secure: Answering, ca_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"https://localhost:{secure.port}"
    assert "its certificate is not trusted" in reason(url)
    assert "REGISTRY_CA_FILE" in reason(url)
    assert Connection(url, "prg_x", ca_file=ca_file).get("/x").document == PLUGINS
    assert "its certificate is not trusted" in reason(f"https://127.0.0.1:{secure.port}", ca_file=ca_file)
    monkeypatch.setenv("SSL_CERT_FILE", str(ca_file))  # what OpenSSL takes for this machine's
    assert Connection(url, "prg_x").get("/x").document == PLUGINS


def test_no_other_list_of_authorities_counts(
    secure: Answering, ca_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("requests.adapters.DEFAULT_CA_BUNDLE_PATH", str(ca_file))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(ca_file))
    monkeypatch.setenv("CURL_CA_BUNDLE", str(ca_file))
    assert "its certificate is not trusted" in reason(f"https://localhost:{secure.port}")


def test_a_file_without_certificates_is_told(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("nothing")
    for file in (tmp_path / "empty", tmp_path / "nowhere"):
        with pytest.raises(BadSettings, match=r"^REGISTRY_CA_FILE: no certificate"):
            Connection("https://localhost", "prg_x", ca_file=file)


def test_the_command_takes_the_file_from_its_environment(secure: Answering, ca_file: Path) -> None:
    env = {"REGISTRY_URL": f"https://localhost:{secure.port}", "REGISTRY_TOKEN": "prg_x"}
    assert run("list", env=env).returncode == 7
    assert run("list", env={**env, "REGISTRY_CA_FILE": str(ca_file)}).returncode == 0


def test_a_proxy_of_the_environment_is_used_unless_the_host_needs_none(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering() as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://me:hunter2@127.0.0.1:{proxy.port}")
        assert Connection("http://registry.example", "prg_x").get("/x").document == PLUGINS
        assert proxy.heads[0].startswith(b"GET http://registry.example/x HTTP/1.1")
        assert b"Proxy-Authorization: Basic" in proxy.heads[0]
        monkeypatch.setenv("NO_PROXY", "localhost")
        assert "nothing listens there" in reason(f"http://localhost:{a_closed_port()}")
    assert len(proxy.heads) == 1
    monkeypatch.setenv("HTTPS_PROXY", f"http://me:hunter2@127.0.0.1:{a_closed_port()}")
    said = reason("https://registry.example")
    assert "the proxy 127.0.0.1:" in said
    assert "Connection refused" in said
    assert "hunter2" not in said
    with answering(answer(b"no", "407 Proxy Authentication Required")) as refusing:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{refusing.port}")
        assert "407" in reason("https://registry.example")


@pytest.mark.parametrize(
    "proxy", ["http://me:hun/ter2@proxy:3128", "http://me:hunter#2@proxy:3128", "http://:3128", "http://h:bad"]
)
def test_a_proxy_that_is_none_is_told_without_its_password(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    with pytest.raises(BadSettings, match="is none: write http://HOST:PORT") as told:
        Connection("https://registry.example", "prg_x")
    assert "hun" not in str(told.value)


def test_a_netrc_takes_no_tokens_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password hunter2\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    with answering() as server:
        Connection(f"http://127.0.0.1:{server.port}", " prg_x\n").get("/x")
        assert b"Authorization: Bearer prg_x\r\n" in server.heads[0]


@pytest.mark.parametrize("token", ["", " \n", "prg_\u65e5", "prg_\x00", "prg_a\nb"])
def test_a_token_that_is_none_is_told_and_not_sent(token: str) -> None:
    with pytest.raises(NoToken):
        Connection("http://127.0.0.1", token)


def test_a_registry_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plugin_registry_client.connection.PATIENCE_S", 0.2)
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(Unreachable, match=r"said nothing for 0\.2 s"),
    ):
        Connection(f"http://127.0.0.1:{silent.getsockname()[1]}", "prg_x").get("/x")


@pytest.mark.parametrize(
    "call",
    [
        "list",
        "queue",
        "status registration-x",
        "wait registration-x --timeout 0.5",
        "token list",
        "register --name a --version 1.0.0 --type log --url https://a.example/x --checksum sha256:ab",
    ],
)
def test_no_answer_is_a_document_too(call: str) -> None:
    env = {"REGISTRY_URL": f"http://127.0.0.1:{a_closed_port()}", "REGISTRY_TOKEN": "prg_x"}
    done = run(*call.split(), "--json", env=env)
    assert done.returncode == 7
    found = json.loads(done.stdout)
    assert (found["code"], found["exitStatus"]) == ("unreachable", 7)
    assert "nothing listens there" in found["title"]
    nobody = run(*call.split(), "--json", env={"REGISTRY_STATE_DIR": "/nowhere", "HOME": "/nowhere"})
    if not call.startswith("token"):  # of which the registry's own distribution looks into the store then
        assert (nobody.returncode, json.loads(nobody.stdout)["code"]) == (4, "no-token")


@pytest.mark.parametrize("call", ["register --name x", "status", "list --limit x", "register --from nowhere"])
def test_a_usage_error_is_a_document_too(call: str) -> None:
    done = run(*call.split(), "--json", env={"REGISTRY_URL": "http://127.0.0.1:9", "REGISTRY_TOKEN": "prg_x"})
    assert done.returncode == 2
    assert json.loads(done.stdout)["exitStatus"] == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("call", ["wait registration-x", "register", "status registration-x --watch"])
def test_who_is_stopped_before_there_was_any_answer_says_how_to_go_on(call: str, number: signal.Signals) -> None:
    if call == "register":
        call += f" --name a --version 1.0.0 --type log --url https://a.example/x --checksum sha256:{'ab' * 32}"
    with socket.create_server(("127.0.0.1", 0)) as silent:
        env = clean_environment(
            {"REGISTRY_URL": f"http://127.0.0.1:{silent.getsockname()[1]}", "REGISTRY_TOKEN": "prg_x"}
        )
        command = [*COMMAND, *call.split(), "--json"]
        process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        accepted, _ = silent.accept()
        with closing(accepted):
            accepted.recv(1)
            process.send_signal(number)
            out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 128 + number
    assert json.loads(out)["exitStatus"] == 128 + number
    assert "to run the same again" in err


def test_what_an_encoding_has_no_form_for_is_shown_by_its_number() -> None:
    plugin = dict.fromkeys(("name", "version", "pluginType", "checksum"), "日")
    with answering(answer(json.dumps({"items": [plugin], "nextCursor": None}).encode())) as server:
        env = {"REGISTRY_URL": f"http://127.0.0.1:{server.port}", "REGISTRY_TOKEN": "prg_x"}
        done = run("list", env={**env, "PYTHONIOENCODING": "cp1252"})
    assert (done.returncode, done.stdout.split()[0]) == (0, "\\u65e5")


def test_a_registry_that_is_away_is_waited_for_from_the_beginning() -> None:
    env = {"REGISTRY_URL": f"http://127.0.0.1:{a_closed_port()}", "REGISTRY_TOKEN": "prg_x"}
    begun = time.monotonic()
    assert run("wait", "registration-x", "--timeout", "2", env=env).returncode == 7
    assert time.monotonic() - begun >= 2


IMPORTED = """
import sys
import plugin_registry_client, plugin_registry_client.command.register
print(*sorted({each.partition(".")[0] for each in sys.modules}))
"""


def test_it_loads_none_of_the_registry() -> None:
    environment = {**clean_environment(), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", IMPORTED], env=environment, capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    assert {"requests", "click"} <= loaded
    assert not loaded & {"shared", "api", "cli", "worker", "sqlalchemy", "pydantic", "celery", "fastapi", "yaml"}
