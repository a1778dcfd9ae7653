"""Servers that others wrote serve the same artifact: whole, moved, with ranges, gzip, and connections kept."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.hostile_server import Behaviour, HostileServer, Wire
from tests.running import until
from tests.workbench import REGISTERED, Workbench, attempted

BODY = b"a line of an artifact that compresses well\n" * 8000
CUT_AFTER = 100_000
Start = Callable[[Path, int], list[str]]
"""Writes what a server of the files in a folder needs, and returns the command that starts it on a port."""


def nginx(folder: Path, port: int) -> list[str]:
    (folder / "nginx.conf").write_text(
        f"""daemon off; pid {folder}/pid; error_log {folder}/error.log; worker_processes 1; user root;
        events {{ worker_connections 64; }}
        http {{ access_log off; gzip on; gzip_types text/plain; gzip_min_length 1; types {{ text/plain txt; }}
        client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
        uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
        server {{ listen 127.0.0.1:{port}; root {folder}/files; location = /moved {{ return 302 /a.txt; }} }} }}"""
    )
    return ["nginx", "-e", f"{folder}/error.log", "-c", f"{folder}/nginx.conf"]


def apache2(folder: Path, port: int) -> list[str]:
    modules = "\n".join(
        f"LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so"
        for name in ("mpm_event", "authz_core", "mime", "alias", "deflate", "filter")
    )
    (folder / "apache.conf").write_text(
        f"""ServerName localhost
        ServerRoot {folder}
        Listen 127.0.0.1:{port}
        PidFile {folder}/pid
        ErrorLog {folder}/error.log
        {modules}
        DocumentRoot {folder}/files
        Redirect 302 /moved /a.txt
        AddOutputFilterByType DEFLATE text/plain
        TypesConfig /dev/null
        AddType text/plain .txt
        """
    )
    return ["apache2", "-X", "-f", f"{folder}/apache.conf"]


def lighttpd(folder: Path, port: int) -> list[str]:
    (folder / "lighttpd.conf").write_text(
        f"""server.modules = ("mod_redirect", "mod_deflate")
        server.bind = "127.0.0.1"
        server.port = {port}
        server.document-root = "{folder}/files"
        mimetype.assign = (".txt" => "text/plain")
        deflate.mimetypes = ("text/plain")
        url.redirect = ("^/moved" => "/a.txt")
        """
    )
    return ["lighttpd", "-D", "-f", f"{folder}/lighttpd.conf"]


def caddy(folder: Path, port: int) -> list[str]:
    (folder / "Caddyfile").write_text(
        f"""{{
            admin off
            auto_https off
        }}
        http://127.0.0.1:{port} {{
            root * {folder}/files
            encode gzip
            redir /moved /a.txt
            file_server
        }}
        """
    )
    return ["caddy", "run", "--config", f"{folder}/Caddyfile", "--adapter", "caddyfile"]


def python(folder: Path, port: int) -> list[str]:
    (folder / "files/moved").mkdir()  # which it redirects to, with a slash
    (folder / "files/moved/index.html").write_bytes(BODY)
    return [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", f"{folder}/files"]


def node(folder: Path, port: int) -> list[str]:
    (folder / "serve.js").write_text(
        """const http = require("http"), fs = require("fs"), zlib = require("zlib");
        const body = fs.readFileSync(process.argv[2] + "/files/a.txt");
        http.createServer((request, response) => {
          if (request.url === "/moved") return response.writeHead(302, {Location: "/a.txt"}).end();
          if (!request.url.startsWith("/a.txt")) return response.writeHead(404).end();
          const range = /bytes=(\\d+)-/.exec(request.headers.range || "");
          const headers = {ETag: '"one"', "Content-Type": "text/plain"};
          if (range) {
            const rest = body.subarray(+range[1]);
            headers["Content-Range"] = `bytes ${range[1]}-${body.length - 1}/${body.length}`;
            return response.writeHead(206, headers).end(rest);
          }
          if (/gzip/.test(request.headers["accept-encoding"] || "")) {
            headers["Content-Encoding"] = "gzip";
            return response.writeHead(200, headers).end(zlib.gzipSync(body));
          }
          response.writeHead(200, {...headers, "Content-Length": body.length});
          response.end(body);
        }).listen(+process.argv[3], "127.0.0.1");
        """
    )
    return ["node", f"{folder}/serve.js", str(folder), str(port)]


SERVERS = [
    pytest.param(start, id=start.__name__, marks=pytest.mark.program(start.__name__))
    for start in (nginx, apache2, lighttpd, caddy, node)
] + [pytest.param(python, id="http.server")]


@pytest.fixture
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Start a server, and return its address."""
    start: Start = request.param
    folder = tmp_path
    (folder / "files").mkdir()
    (folder / "files/a.txt").write_bytes(BODY)
    with HostileServer(lambda _wire: None) as free:
        port = free.port
    command = start(folder, port)
    where = shutil.which(command[0])
    assert where is not None
    log = (folder / "log").open("wb")
    environment = os.environ | {"HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    process = subprocess.Popen([where, *command[1:]], stdout=log, stderr=log, env=environment)
    try:
        until(lambda: _answers(port) or process.poll() is not None, what="the server to listen")
        assert process.poll() is None, (folder / "log").read_text()
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)
        log.close()


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 1):
            return True
    except OSError:
        return False


@pytest.mark.parametrize("server", SERVERS, indirect=True)
def test_what_it_serves_is_registered_again_and_again(bench: Workbench, server: str) -> None:
    verifier = bench.verifier()
    for path in ("/a.txt", "/moved", "/a.txt?x=%2F&y=;"):
        assert attempted(verifier, server + path, declared=BODY).verdict == REGISTERED, path
    missing = attempted(verifier, f"{server}/none.txt", declared=BODY)
    assert missing.verdict == ("rejected", "artifact-missing", "submitter")


@pytest.mark.parametrize("server", SERVERS, indirect=True)
def test_a_download_that_breaks_is_resumed_or_begun_again(bench: Workbench, server: str) -> None:
    with HostileServer(_cutting_first(urlsplit(server).port or 0)) as between:
        verifier = bench.verifier(max_attempts=2, retry_base_s=60)
        outcome = attempted(verifier, between.url_of("127.0.0.1", "/a.txt"), declared=BODY)
    if outcome.registration.status == "queued":  # without a strong ETag: another attempt, from the beginning
        assert outcome.registration.failure is not None
        assert outcome.registration.failure.code == "truncated"
    else:
        assert outcome.verdict == REGISTERED
        assert between.requests[1].all("Range") == [f"bytes={_taken(between)}-"]


def _taken(between: HostileServer) -> int:
    (asked,) = between.requests[1].all("Range")
    taken = int(asked.removeprefix("bytes=").removesuffix("-"))
    assert 0 < taken <= CUT_AFTER
    return taken


def _cutting_first(port: int) -> Behaviour:
    """Pass on what the server at *port* answers; of the first answer no more than its beginning."""
    cut: list[bool] = []

    def behave(wire: Wire) -> None:
        request = wire.await_request()
        fields = "".join(f"{name}: {value}\r\n" for name, value in request.headers if name != "connection")
        with socket.create_connection(("127.0.0.1", port)) as server:
            server.sendall(f"{request.line}\r\n{fields}Connection: close\r\n\r\n".encode("latin-1"))
            left = None if cut else CUT_AFTER
            cut.append(True)
            while piece := server.recv(65536):
                if left is not None:
                    piece = piece[:left]
                    left -= len(piece)
                wire.send(piece)
                if left == 0:
                    return

    return behave
