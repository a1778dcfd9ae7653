"""What we have too little of costs nobody an attempt, and is nobody else's fault (invariant 13; cases H3, O5)."""

import errno
import multiprocessing
import resource
import threading
import time
from contextlib import closing, suppress
from pathlib import Path

import pytest

from shared.errors import ConnectFailed, RegistryError, Shortage, StoreUnavailable, Truncated
from shared.registration import Registration, RegistrationId, Status
from shared.settings import read_settings
from shared.store.database import open_database
from shared.store.registrations import Store
from tests.conftest import a_parsed_submission
from tests.contracts import let_pass, now, submit
from tests.origin import Origin, Served
from tests.running import PATIENCE_S, until
from tests.verifying import Verifying
from worker.fetch.translation import translated
from worker.open_files import BESIDES, EACH, fitting

FILES = 256
_processes = multiprocessing.get_context("forkserver")


def few_files(url: str, port: int, ids: list[RegistrationId], downloads: int | None) -> None:
    """Be a worker with few open files, while any of *ids* is in flight; it takes what fits, or what it is told."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (FILES if downloads else FILES // 4, FILES))
    settings = read_settings(
        database_url=url,
        egress_schemes="http",
        egress_ports=str(port),
        egress_allow_networks="127.0.0.1/32",
        max_downloads_per_host=1000,
        connect_timeout_s=PATIENCE_S,
        read_timeout_s=PATIENCE_S,
    )
    downloads = downloads or fitting(1000)
    with (
        closing(open_database(url)) as database,
        closing(Verifying(settings, database, downloads=downloads)) as verifier,
    ):
        left = ids
        while left:
            with suppress(StoreUnavailable):  # to look by itself may take a file that is not to be had now
                left = [each for each in ids if not now(verifier.store, each).status.final]
                verifier.offer(left)
            time.sleep(0.1)


@pytest.mark.parametrize("downloads", [None, 1000], ids=["what-fits", "more-than-fits"])
def test_a_worker_with_few_open_files_fails_nobody(
    store: Store, origin: Origin, tmp_path: Path, downloads: int | None
) -> None:
    """O5: 380 submissions where 256 files can be open. All downloads wait until the files are used up."""
    gate = threading.Event()
    served = Served(body=b"artifact" * 10, gate=gate)
    address = origin.serve(served)
    registrations = [
        submit(store, a_parsed_submission(artifactUrl=address, checksum=served.checksum)) for _ in range(380)
    ]
    ids = [each.id for each in registrations]
    url = f"sqlite:///{tmp_path / 'registry.db'}"
    worker = _processes.Process(target=few_files, args=(url, origin.port, ids, downloads))
    worker.start()

    def all_of() -> list[Registration]:
        return store.some(ids)

    def short() -> list[Registration]:
        return [each for each in all_of() if each.failure is not None and each.status is Status.QUEUED]

    fit = (FILES - BESIDES) // EACH
    try:
        if downloads is None:
            until(lambda: len(served.requests) == fit, what="as many downloads as fit")
            assert not short()
        else:
            until(lambda: len(short()) > 10, what="some for which there was no file")
            for each in short():
                assert each.failure is not None
                assert (each.attempts, each.failure.code, each.failure.cause, each.failure.fault) == (
                    0,
                    "registry-shortage",
                    "open-files",
                    "registry",
                )
        gate.set()

        def over() -> bool:
            let_pass(store, 1)
            return all(each.status.final for each in all_of())

        until(over, what="the end of all of them")
        assert {(each.status, each.attempts) for each in all_of()} == {(Status.REGISTERED, 1)}
    finally:
        gate.set()
        worker.join(PATIENCE_S)
        worker.kill()


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (OSError(errno.EMFILE, "Too many open files"), "open-files"),
        (OSError(errno.ENFILE, "Too many open files in system"), "open-files"),
        (OSError(errno.ENOBUFS, "No buffer space available"), "memory"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "memory"),
        (MemoryError(), "memory"),
        (RuntimeError("can't start new thread"), "threads"),
    ],
)
def test_what_the_machine_lacks_is_ours(error: Exception, cause: str) -> None:
    with pytest.raises(Shortage) as told, translated():
        raise error
    assert told.value.cause == cause


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.EHOSTUNREACH, "No route to host"), Truncated),
        (ConnectionResetError(errno.ECONNRESET, "reset"), Truncated),
        (OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address"), Truncated),
        (ConnectFailed("It did not answer."), ConnectFailed),
    ],
)
def test_what_a_host_does_is_not(error: Exception, told: type[RegistryError]) -> None:
    with pytest.raises(told), translated():
        raise error


def test_a_surprise_stays_one() -> None:
    with pytest.raises(RuntimeError, match="of our own"), translated():
        raise RuntimeError("of our own making")
