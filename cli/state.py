"""The state folder of an embedded registry: ours, locked while we run, free of an earlier run's strays."""

import fcntl
import json
import os
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import IO

import psutil
from plugin_registry_client.command.refusal import Refusal

MARKER = "plugin-registry.json"
MAX_SOCKET_PATH = 100
"""A Unix socket's path may have 107 bytes (unix(7)), and Valkey adds a suffix while it binds."""


SOCKET = "valkey.sock"
LOCKED_FOR_A_MOMENT_S = 0.5
"""Who only looks whether somebody runs here holds the lock for so long at most."""
_PREFIX = "plugin-registry-"


class StateFolder:
    """A folder that holds the store, the broker's files, the first token, and who runs on it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.token_file = path / "token"
        self.address_file = path / "address"
        self._start_file = path / "start"
        self._children_file = path / "children.json"
        self._lock: IO[str] | None = None
        self._socket_folder: Path | None = None

    def open(self) -> None:
        """Take the folder for this process alone, making it where it is missing.

        Raises:
            Refusal: it is not ours, not writable, or another registry runs on it.
        """
        self.make()
        try:
            self._lock = (self.path / "lock").open("a+")
        except OSError as error:
            raise Refusal(f"The state folder {self.path} cannot be used: {error.strerror}.") from error
        if not _locked(self._lock, patience_s=LOCKED_FOR_A_MOMENT_S):
            self._lock.close()
            where = self.address() or "an address it has not told yet"
            raise Refusal(f"Another plugin-registry runs on {self.path}, at {where}.")
        self._end_strays()

    def make(self) -> None:
        """Make sure that the folder is there, for its owner alone, and ours.

        Raises:
            Refusal: it cannot be, or it holds something else.
        """
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            marker = self.path / MARKER
            if not marker.exists():
                if any(self.path.iterdir()):
                    raise Refusal(
                        f"{self.path} holds other files and no registry: name an empty or a new folder with --state."
                    )
                marker.write_text(json.dumps({"what": "state of a plugin-registry"}) + "\n")
            self.path.chmod(0o700)
        except OSError as error:
            raise Refusal(f"The state folder {self.path} cannot be used: {error.strerror}.") from error

    def running_address(self) -> str | None:
        """Return the address of the registry that runs on this folder now, and not one that a crash left behind."""
        with suppress(OSError), (self.path / "lock").open("r+") as lock:
            return None if _locked(lock) else self.address()
        return None

    def address(self) -> str | None:
        """Return the address that was last told here."""
        with suppress(OSError):
            return self.address_file.read_text().strip() or None
        return None

    def token(self) -> str | None:
        """Return the token that was made with the folder, if it is readable."""
        with suppress(OSError):
            return self.token_file.read_text().strip() or None
        return None

    def keep_token(self, token: str) -> None:
        """Write *token* where only its owner can read it."""
        _write(self.token_file, token + "\n")

    def tell_address(self, address: str) -> None:
        """Write down where the registry answers."""
        _write(self.address_file, address + "\n")

    def note_start(self, moment: int) -> None:
        """Write down the moment of this start, which the store holds too."""
        _write(self._start_file, f"{moment}\n")

    def last_start(self) -> int | None:
        """Return the moment of the last start, if one was noted."""
        with suppress(OSError, ValueError):
            return int(self._start_file.read_text())
        return None

    def socket_path(self) -> Path:
        """Return a path for the broker's socket, in a folder that only its owner may enter; the same at each call.

        Raises:
            Refusal: every folder in which it could be has too long a path.
        """
        path = self.path / "valkey" / SOCKET
        if self._socket_folder is None and not _fits(path):
            self._socket_folder = _short_folder()
        return self._socket_folder / SOCKET if self._socket_folder is not None else path

    def note_children(self, pids: dict[str, int]) -> None:
        """Write down who runs for us, so that the next start can end them should we be killed."""
        known = {}
        for name, pid in pids.items():
            with suppress(psutil.NoSuchProcess):
                known[name] = {"pid": pid, "started": psutil.Process(pid).create_time()}
        _write(self._children_file, json.dumps(known))

    def close(self) -> None:
        """Leave the folder as one on which nothing runs."""
        self.address_file.unlink(missing_ok=True)
        self._children_file.unlink(missing_ok=True)
        if self._socket_folder is not None:
            with suppress(OSError):
                (self._socket_folder / SOCKET).unlink(missing_ok=True)
                self._socket_folder.rmdir()
        if self._lock is not None:
            self._lock.close()

    def _end_strays(self) -> None:
        """End what an earlier run left behind. On Linux it has ended by itself, see `supervise`."""
        self.address_file.unlink(missing_ok=True)
        strays = []
        with suppress(OSError, ValueError):
            for child in json.loads(self._children_file.read_text()).values():
                with suppress(psutil.Error):
                    process = psutil.Process(child["pid"])
                    if process.create_time() == child["started"]:  # not a later process of that number
                        process.kill()
                        strays.append(process)
        psutil.wait_procs(strays, timeout=5)


def _write(path: Path, text: str) -> None:
    """Make *path* hold *text*, for its owner alone: whoever reads it finds all of it or what was there before."""
    half = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with os.fdopen(os.open(half, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(text)
        half.replace(path)
    except OSError:
        half.unlink(missing_ok=True)
        raise


def _fits(path: Path) -> bool:
    return len(os.fsencode(path)) <= MAX_SOCKET_PATH


def _short_folder() -> Path:
    """Make a folder of our own for a socket, where its path is short enough."""
    folders = [tempfile.gettempdir(), os.environ.get("XDG_RUNTIME_DIR", ""), "/tmp", "/var/tmp"]  # noqa: S108
    for folder in filter(None, folders):
        if _fits(Path(folder, f"{_PREFIX}XXXXXXXX", SOCKET)):
            with suppress(OSError):
                return Path(tempfile.mkdtemp(prefix=_PREFIX, dir=folder))  # made with mode 0700
    raise Refusal(
        f"A socket's path may have {MAX_SOCKET_PATH} bytes, and those of the state folder and of every "
        "folder for temporary files are longer: name a state folder with a shorter path, or set TMPDIR to one."
    )


def _locked(file: IO[str], *, patience_s: float = 0.0) -> bool:
    """Lock *file*; return whether nobody else holds it. The lock goes when the file is closed, or we are killed."""
    give_up = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= give_up:
                return False
            time.sleep(0.02)
        else:
            return True
