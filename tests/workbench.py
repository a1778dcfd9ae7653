"""The composed worker beside hosts on loopback: attempts are made, and held to what every attempt is held to."""

import hashlib
import time
import tracemalloc
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme

from shared.registration import Registration, Status
from shared.settings import Settings, read_settings
from shared.store.database import open_database
from tests.conftest import a_parsed_submission
from tests.contracts import now, submit
from tests.hostile_server import BODY, Behaviour
from tests.stores import sqlite_store
from tests.verifying import Verifying
from worker.fetch.resolver import Resolve

MAX_BYTES = 2**20
MAX_GROWTH_BYTES = 20_000_000
SLACK_S = 20.0
"""How long after its deadline an attempt may end, on a machine that is busy; without a deadline it would last for
as long as its host, LIFETIME_S."""


Verdict = tuple[str, str | None, str | None]
"""A registration's status, and its failure's code and fault."""
REGISTERED: Verdict = ("registered", None, None)
DEADLINE_PASSED: Verdict = ("failed", "deadline-passed", "upstream")
READ_TIMEOUT: Verdict = ("failed", "read-timeout", "upstream")
CONNECT_FAILED: Verdict = ("failed", "connect-failed", "upstream")
TRUNCATED: Verdict = ("failed", "truncated", "upstream")
BUSY: Verdict = ("failed", "upstream-busy", "upstream")
BAD_RESPONSE: Verdict = ("rejected", "bad-response", "upstream")
BAD_REDIRECT: Verdict = ("rejected", "bad-redirect", "upstream")
BAD_CERTIFICATE: Verdict = ("rejected", "bad-certificate", "upstream")
MISSING: Verdict = ("rejected", "artifact-missing", "submitter")
TOO_LARGE: Verdict = ("rejected", "artifact-too-large", "submitter")
MISMATCH: Verdict = ("rejected", "digest-mismatch", "submitter")
FORBIDDEN_ADDRESS: Verdict = ("rejected", "forbidden-address", "submitter")
LED_ASTRAY: Verdict = ("rejected", "forbidden-address", "upstream")


class Workbench:
    """One store, and a composed verifier for every set of settings that a test asks for."""

    def __init__(self, folder: Path, authority: trustme.CA) -> None:
        self._ca_file = folder / "authority.pem"
        authority.cert_pem.write_to_path(str(self._ca_file))
        self._database_url = sqlite_store(folder / "registry.db")
        self.database = open_database(self._database_url)
        self._verifiers: dict[Settings, Verifying] = {}
        self._others: list[Verifying] = []

    def settings(self, **changes: object) -> Settings:
        values = {
            "database_url": self._database_url,
            "egress_schemes": "http,https",
            "egress_ports": "1024-65535",
            "egress_allow_networks": "127.0.0.1/32",
            "egress_ca_file": self._ca_file,
            "max_attempts": 1,
            "lease_s": 300,  # however slow the machine is
            "fetch_deadline_s": 30,
            "connect_timeout_s": 30,
            "read_timeout_s": 30,
            "max_artifact_bytes": MAX_BYTES,
        }
        return read_settings(**(values | changes))

    def verifier(self, **changes: object) -> Verifying:
        """Return an engine, one for all tests with the same settings."""
        settings = self.settings(**changes)
        if settings not in self._verifiers:
            self._verifiers[settings] = Verifying(settings, self.database)
        return self._verifiers[settings]

    def new_verifier(self, resolve: Resolve | None = None, **changes: object) -> Verifying:
        """Return an engine that no other test has; names lead where *resolve* says."""
        self._others.append(Verifying(self.settings(**changes), self.database, resolve=resolve))
        return self._others[-1]

    def verifier_of_names(self, resolve: Resolve, **changes: object) -> Verifying:
        """Return an engine for which names lead where *resolve* says; 127.0.1.0/24 may be reached."""
        return self.new_verifier(resolve, egress_allow_networks="127.0.1.0/24", **changes)

    def close_others(self) -> None:
        while self._others:
            self._others.pop().close()

    def close(self) -> None:
        self.close_others()
        for each in self._verifiers.values():
            each.close()
        self.database.close()


@dataclass(frozen=True)
class Outcome:
    """How one attempt ended: in *took_s*, with at most *growth_bytes* more memory than before it."""

    registration: Registration
    took_s: float
    growth_bytes: int

    @property
    def verdict(self) -> Verdict:
        status, failure = self.registration.status.value, self.registration.failure
        return (status, failure.code, failure.fault) if failure else (status, None, None)


def checksum_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def queued(verifier: Verifying, url: str, declared: bytes = BODY) -> Registration:
    return submit(verifier.store, a_parsed_submission(artifactUrl=url, checksum=checksum_of(declared)))


def attempted(verifier: Verifying, url: str, *, declared: bytes = BODY, deadline_s: float = 30) -> Outcome:
    """Make one attempt at *url*, and hold it to what every attempt is held to."""
    registration = queued(verifier, url, declared)
    tracemalloc.start()
    try:
        started = time.monotonic()
        verifier.verify(registration.id)
        took_s = time.monotonic() - started
        growth_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    outcome = Outcome(now(verifier.store, registration.id), took_s, growth_bytes)
    plugins = verifier.store.plugins(limit=1, filters={"name": registration.submission.name})
    assert bool(plugins) == (outcome.registration.status is Status.REGISTERED), "invariant 5"
    assert took_s <= deadline_s + SLACK_S, outcome
    assert growth_bytes < MAX_GROWTH_BYTES, outcome
    return outcome


def named(*behaviours: Behaviour) -> list[Any]:
    """Return a case for each of *behaviours*, called as it is."""
    return [pytest.param(each, id=each.__name__) for each in behaviours]


def cases(table: dict[str, Any]) -> list[Any]:
    """Return a case for each entry of *table*: its key is what it is called."""
    return [pytest.param(*(it if isinstance(it, tuple) else (it,)), id=name) for name, it in table.items()]
