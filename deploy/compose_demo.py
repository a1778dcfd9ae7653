# ruff: noqa: INP001, S310, S603, T201
"""Runs compose.yaml for real: two apis behind the edge, a registration, a refusal, a worker killed in a download.

It needs Docker with Compose, or podman and podman-compose, openssl, and of Python nothing but the standard library.
`PYTHON_IMAGE`, `POSTGRES_IMAGE`, `VALKEY_IMAGE` and `EDGE_IMAGE` name other images than compose.yaml's; `PIP_CERT`
names the certificates to trust while the image is built. What is missing it says before it starts anything, all at
once. It ends with 0 only if all went as it should, and takes everything down again except the built image.
"""

import hashlib
import http.client
import json
import os
import random
import secrets
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NoReturn

from compose_needs import find_engine

PROJECT = Path(__file__).resolve().parent.parent
IMAGE = "plugin-registry:demo"
APIS = WORKERS = 2
ORIGIN_PORT = 8000
ARTIFACT_BYTES = 24 * 2**20
SLOW_S = 120

# What serves the artifacts, in a container of its own on the stack's network: the same bytes on every path,
# /tampered with one bit changed and /slow, to who asks first, at a rate that leaves time to kill whoever that is.
ORIGIN = f"""
import random, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

good = random.Random(2).randbytes({ARTIFACT_BYTES})
tampered = bytearray(good)
tampered[len(good) // 2] ^= 1
slow = ["/slow.tar.gz"]

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        body = bytes(tampered) if self.path == "/tampered.tar.gz" else good
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        parts, pause_s = 100, 0
        if self.path in slow:
            slow.remove(self.path)
            pause_s = {SLOW_S} / parts
        for start in range(0, len(body), len(body) // parts + 1):
            self.wfile.write(body[start : start + len(body) // parts + 1])
            time.sleep(pause_s)

ThreadingHTTPServer(("", {ORIGIN_PORT}), Handler).serve_forever()
"""


class Failed(Exception):
    """The demo did not go as it should; the message says where."""


class Stack:
    """The stack under a name of its own, through whichever engine is there."""

    def __init__(self, engine: str, compose: list[str], folder: Path) -> None:
        self.engine = engine
        self.name = f"plugin-registry-demo-{os.getpid()}"
        self.port = _free_port()
        self.secrets = {
            # What a URL, a shell and SQL would each have to escape.
            "owner_password": f"@/:'\"$ {secrets.token_urlsafe(24)}",
            "database_password": f"%\\;{secrets.token_urlsafe(24)}",
        }
        self.certificate = folder / "edge_certificate"
        for name, secret in self.secrets.items():
            (folder / name).write_text(secret + "\n")
        _make_certificate(self.certificate, folder / "edge_key")
        for each in folder.iterdir():
            each.chmod(0o644)  # the folder is ours alone, and who reads it in a container is another user
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("REGISTRY_", "COMPOSE_"))},
            "REGISTRY_OWNER_PASSWORD_FILE": str(folder / "owner_password"),
            "REGISTRY_DATABASE_PASSWORD_FILE": str(folder / "database_password"),
            "EDGE_CERTIFICATE_FILE": str(self.certificate),
            "EDGE_KEY_FILE": str(folder / "edge_key"),
            "EDGE_PORT": str(self.port),
            "EDGE_SUBNET": f"198.19.{os.getpid() % 256}.0/24",  # not that of a stack which runs here
            "EDGE_ADDRESS": f"198.19.{os.getpid() % 256}.254",
            "COMPOSE_PROFILES": "edge",
            "REGISTRY_PORT": "",
            "REGISTRY_IMAGE": IMAGE,
        }
        changes: dict[str, Any] = {"networks": {"default": {"external": True, "name": self.name}}}
        if certificates := os.environ.get("PIP_CERT"):
            changes["secrets"] = {"pip_cert": {"file": certificates}}
            changes["services"] = {"api": {"build": {"secrets": ["pip_cert"]}}}
        override = folder / "compose.demo.json"
        override.write_text(json.dumps(changes))
        self._compose = [*compose, "-p", self.name, "-f", str(PROJECT / "compose.yaml"), "-f", str(override)]
        self._log = folder / "engine.log"

    def compose(self, *arguments: str, timeout_s: float = 300) -> str:
        """Run compose with *arguments* and return what it printed."""
        return self._run([*self._compose, *arguments], timeout_s)

    def run(self, *arguments: str, timeout_s: float = 120) -> str:
        """Run the engine's command with *arguments* and return what it printed."""
        return self._run([self.engine, *arguments], timeout_s)

    def containers(self, service: str = "", *, all_of_them: bool = False) -> list[str]:
        """Return the ids of the stack's containers, or of one service's."""
        labels = [f"com.docker.compose.project={self.name}"]
        labels += [f"com.docker.compose.service={service}"] if service else []
        filters = [word for label in labels for word in ("--filter", f"label={label}")]
        return self.run("ps", *(["--all"] if all_of_them else []), "--quiet", *filters).split()

    def healthy(self, container: str) -> bool:
        """Whether a container's health check says that it is well."""
        if self.engine == "podman":  # it runs health checks by a systemd timer, and not everywhere is a systemd
            command = [self.engine, "healthcheck", "run", container]
            return subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 0
        return self.run("inspect", "--format", "{{.State.Health.Status}}", container).strip() == "healthy"

    def ask_store(self, query: str) -> list[str]:
        """Ask PostgreSQL as its superuser, which only whoever is in its container can be; return the lines."""
        psql = (
            "exec",
            "-T",
            "postgres",
            "psql",
            "--username=postgres",
            "--dbname=registry",
            "--tuples-only",
            "--no-align",
        )
        return self.compose(*psql, "-c", query).split()

    def said(self) -> str:
        """Return what the engine and the containers said."""
        logs = [self._log.read_text(errors="replace") if self._log.exists() else ""]
        for container in self.containers(all_of_them=True):
            name = self.run("inspect", "--format", "{{.Name}}", container).strip()
            found = subprocess.run([self.engine, "logs", "--tail", "30", container], capture_output=True, check=False)
            logs.append(f"--- {name}\n{(found.stdout + found.stderr).decode(errors='replace')}")
        return "\n".join(logs)

    def _run(self, command: list[str], timeout_s: float) -> str:
        try:
            done = subprocess.run(
                command,
                cwd=PROJECT,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise Failed(f"{' '.join(command)} did not end within {timeout_s:.0f} s.") from error
        with self._log.open("a") as log:
            log.write(f"$ {' '.join(command)}\n{done.stdout[-20_000:]}{done.stderr[-20_000:]}\n")
        if done.returncode:
            raise Failed(f"{' '.join(command)} ended with {done.returncode}.")
        return done.stdout


class Client:
    """The registry as any client sees it, through the edge."""

    def __init__(self, stack: Stack, token: str) -> None:
        self._port = stack.port
        self._address = f"https://localhost:{stack.port}"
        self._tls = ssl.create_default_context(cafile=stack.certificate)
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=self._tls)
        )
        self._token = token

    def register(self, name: str, url: str, checksum: str, *, prefer: str) -> tuple[int, dict[str, Any]]:
        """Submit a plugin; return the status and the answer."""
        submission = {
            "name": name,
            "version": "2.1.0",
            "pluginType": "log",
            "artifactUrl": url,
            "checksum": checksum,
            "configSchema": "{}",
            "pluginRuntime": "go",
        }
        return self.ask("/api/v1/plugins", json.dumps(submission).encode(), Prefer=prefer)

    def ask(self, path: str, body: bytes | None = None, **headers: str) -> tuple[int, dict[str, Any]]:
        """Send a request; return the status and the answer."""
        headers |= {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        request = urllib.request.Request(self._address + path, data=body, headers=headers)
        try:
            with self._opener.open(request, timeout=70) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read() or b"{}")  # the edge's own has none
        except (OSError, ValueError):
            return 0, {}

    def cookie(self) -> str:
        """Sign in to the operations page and return the cookie that it sets."""
        form = urllib.parse.urlencode({"token": self._token})
        headers = {"Origin": self._address, "Content-Type": "application/x-www-form-urlencoded"}
        connection = http.client.HTTPSConnection("localhost", self._port, context=self._tls, timeout=70)
        with closing(connection):  # not through the opener, which would follow the redirect and tell of that
            connection.request("POST", "/operations/sign-in", form, headers)
            return connection.getresponse().getheader("Set-Cookie", "")


def main() -> None:
    """Run the demo."""
    engine, compose = find_engine()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="plugin-registry-compose-") as folder:
        stack = Stack(engine, compose, Path(folder))
        failure: Failed | None = None
        try:
            _demonstrate(stack)
        except Failed as error:
            print(stack.said(), file=sys.stderr)
            failure = error
        finally:
            _say("Taking everything down ...")
            left = _take_down(stack)
        remains = f" This could not be taken down: {', '.join(left)}." if left else ""
        if failure is not None:
            _refuse(f"The demo failed: {failure}{remains}")
        if left:
            _refuse(f"The demo went well, but was not taken down.{remains}")
    _say("All of it went as it should: registered, refused, and registered although a worker was killed.")


def _demonstrate(stack: Stack) -> None:
    _say(f"Building the image, with {stack.engine} ...")
    stack.compose("build", "api", timeout_s=1800)
    stack.run("network", "create", stack.name)
    origin = _start_origin(stack)

    _say(f"Starting PostgreSQL, Valkey, migrate, beat, {APIS} apis behind the edge and {WORKERS} workers ...")
    stack.environment |= {
        "REGISTRY_EGRESS_SCHEMES": "http",
        "REGISTRY_EGRESS_PORTS": str(ORIGIN_PORT),
        "REGISTRY_EGRESS_ALLOW_NETWORKS": f"{origin}/32",
    }
    _start(stack)
    client = _client_when_ready(stack)
    for service, count in {"postgres": 1, "valkey": 1, "api": APIS, "worker": WORKERS, "beat": 1, "edge": 1}.items():
        _wait_for_health(stack, service, count)
        _say(f"   {service}: {count} healthy")
    _check(_migrated(stack), "migrate should have ended with 0")
    _say("   migrate: ended with 0")
    _look_at_rights(stack, client)

    url = f"http://{origin}:{ORIGIN_PORT}"
    checksum = f"sha256:{hashlib.sha256(random.Random(2).randbytes(ARTIFACT_BYTES)).hexdigest()}"  # noqa: S311
    _say("1. The real artifact.")
    status, plugin = client.register("nginx-log-collector", f"{url}/good.tar.gz", checksum, prefer="wait=60")
    _check((status, plugin.get("checksum")) == (200, checksum), f"it should be registered: {status} {plugin}")
    _say(f"   200, {plugin['id']}")

    _say("2. A tampered copy, under the digest of the real one.")
    status, refusal = client.register("tampered", f"{url}/tampered.tar.gz", checksum, prefer="wait=60")
    _check((status, refusal.get("code")) == (422, "digest-mismatch"), f"it should be refused: {status} {refusal}")
    _say(f"   422, {refusal['code']}: declared {refusal['declared'][:19]}..., computed {refusal['computed'][:19]}...")

    _say("3. A slow one, whose worker is killed midway.")
    _kill_midway(stack, client, f"{url}/slow.tar.gz", checksum)

    _, listed = client.ask("/api/v1/plugins")
    names = sorted(each["name"] for each in listed.get("items", []))
    _check(names == ["nginx-log-collector", "slow"], f"the list should hold the two that match, but holds {names}")


def _look_at_rights(stack: Stack, client: Client) -> None:
    """Hold what compose.yaml promises of rights, as it shows from outside."""
    for container in stack.containers(all_of_them=True):
        about = stack.run("inspect", container)
        _check(not any(each in about for each in _spellings(stack.secrets)), f"inspect of {container} tells a secret")
    superusers = stack.ask_store("SELECT rolname FROM pg_roles WHERE rolsuper")
    _check(superusers == ["postgres"], f"postgres should be the one superuser, but they are {superusers}")
    came = stack.ask_store("SELECT DISTINCT usename FROM pg_stat_activity WHERE client_addr IS NOT NULL")
    _check(came == ["registry_serve"], f"api and worker should come as registry_serve, but they come as {came}")
    (api, *_), (worker, *_) = stack.containers("api"), stack.containers("worker")
    for container in (api, worker):
        for command in ("python3 -m pip --version", "cp /bin/true /tmp/it && /tmp/it"):
            words = [stack.engine, "exec", container, "sh", "-c", command]
            done = subprocess.run(words, capture_output=True, timeout=60, check=False)
            _check(done.returncode != 0, f"this should fail in {container}: {command}")
    _check("Secure" in client.cookie(), "behind the edge the session's cookie should be Secure")
    _say("   no secret is in inspect, nobody comes as a superuser, nothing can be installed, the cookie is Secure")


def _spellings(found: dict[str, str]) -> Iterator[str]:
    for secret in found.values():
        yield from (secret, json.dumps(secret)[1:-1], urllib.parse.quote(secret, safe=""))


def _start_origin(stack: Stack) -> str:
    """Start what serves the artifacts, and return its address: the workers may reach that and nothing else."""
    name = f"{stack.name}-origin"
    stack.run("run", "--detach", "--name", name, "--network", stack.name, IMAGE, "python3", "-c", ORIGIN)
    networks = json.loads(stack.run("inspect", "--format", "{{json .NetworkSettings.Networks}}", name))
    address: str = networks[stack.name]["IPAddress"]
    _check(bool(address), "the container of the artifacts has no address")
    return address


def _client_when_ready(stack: Stack) -> Client:
    _until(lambda: Client(stack, "").ask("/readyz")[0] == 200, "an api to be ready", within_s=180)
    token = stack.compose(
        *("exec", "-T", "api", "plugin-registry", "token", "create"),
        *("--scope", "register", "--scope", "read", "--label", "demo"),
    )
    return Client(stack, token.split()[-1])


def _start(stack: Stack) -> None:
    up = ["up", "--detach", "--no-build"]
    if stack.engine == "docker":
        stack.compose(*up, "--scale", f"api={APIS}", "--scale", f"worker={WORKERS}")
        return
    # podman before 4.6 knows no condition "healthy", and none starts what depends on a container that has ended
    # well and depended on another: here it is we who wait for what `depends_on` says. podman-compose takes one
    # `--scale`, and forgets over that what else has replicas.
    stack.compose(*up, "--no-deps", "postgres", "valkey")
    for service in ("postgres", "valkey"):
        _wait_for_health(stack, service, 1)
    stack.compose(*up, "--no-deps", "migrate")
    _until(lambda: _migrated(stack), "migrate to end with 0", within_s=60)
    stack.compose(*up, "--no-deps", "--scale", f"api={APIS}", "api")
    stack.compose(*up, "--no-deps", "--scale", f"worker={WORKERS}", "worker")
    stack.compose(*up, "--no-deps", "beat", "edge")


def _migrated(stack: Stack) -> bool:
    (migrate,) = stack.containers("migrate", all_of_them=True)
    state = stack.run("inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", migrate).strip()
    return state == "exited 0"


def _wait_for_health(stack: Stack, service: str, count: int) -> None:
    def all_healthy() -> bool:
        found = stack.containers(service)
        return len(found) == count and all(stack.healthy(each) for each in found)

    _until(all_healthy, f"{count} healthy {service}", within_s=120)


def _kill_midway(stack: Stack, client: Client, url: str, checksum: str) -> None:
    status, accepted = client.register("slow", url, checksum, prefer="respond-async")
    _check(status == 202, f"it should be accepted: {status} {accepted}")
    path = f"/api/v1/registrations/{accepted['id']}"

    def registration() -> dict[str, Any]:
        return client.ask(path)[1]

    _until(lambda: registration().get("bytesDownloaded", 0) > 0, "the slow download to begin", within_s=60)
    query = f"SELECT claimed_by FROM registrations WHERE id = '{accepted['id']}'"  # noqa: S608  # our own id
    (claimed_by,) = stack.ask_store(query)
    container = claimed_by.rpartition(":")[0]  # a container's host name is the beginning of its id
    before = registration()
    _check(before["status"] == "verifying", f"it should be downloading still: {before}")
    stack.run("kill", "--signal", "KILL", container)
    megabytes = before["bytesDownloaded"] / 2**20
    _say(f"   killed worker {container} after {megabytes:.0f} of {ARTIFACT_BYTES // 2**20} MiB")

    _until(lambda: registration().get("status") in {"registered", "rejected", "failed"}, "its end", within_s=180)
    after = registration()
    _check(after["status"] == "registered" and after["attempts"] > 1, f"it should be registered: {after}")
    _say(f"   {after['status']} all the same, with attempt {after['attempts']}: {after['pluginId']}")


def _take_down(stack: Stack) -> list[str]:
    """Remove what the demo made; return what is left all the same."""
    for do, arguments in (
        (stack.compose, ["down", "--volumes", "--remove-orphans", "--timeout", "10"]),
        (stack.run, ["rm", "--force", "--volumes", f"{stack.name}-origin"]),
        (stack.run, ["network", "rm", stack.name]),
    ):
        try:
            do(*arguments)
        except Failed as error:
            print(error, file=sys.stderr)
    return [
        *stack.containers(all_of_them=True),
        *stack.run("volume", "ls", "--quiet", "--filter", f"name={stack.name}").split(),
        *stack.run("network", "ls", "--quiet", "--filter", f"name={stack.name}").split(),
    ]


def _make_certificate(certificate: Path, key: Path) -> None:
    what = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    what += ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(["openssl", *what], capture_output=True, timeout=60, check=True)  # noqa: S607


def _until(condition: Callable[[], bool], what: str, *, within_s: float) -> None:
    give_up = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > give_up:
            raise Failed(f"waited {within_s:.0f} s for {what} in vain.")
        time.sleep(0.5)


def _check(truth: bool, otherwise: str) -> None:
    if not truth:
        raise Failed(otherwise)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _say(words: str) -> None:
    print(words, flush=True)


def _refuse(words: str) -> NoReturn:
    sys.exit(words)


if __name__ == "__main__":
    main()
