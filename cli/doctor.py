"""`doctor`: all that has to be right before services start here, looked at at once, in the order in which to mend it.

It changes nothing. What needs what is not there is said to be not looked at, so the first bad line is where to begin.
"""

import logging
import os
import resource
import shutil
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import certifi
import click
from plugin_registry_client.command.asked import json_option
from plugin_registry_client.command.terminal import say, say_json
from plugin_registry_client.errors import ALERTS

from cli.state import StateFolder
from shared.broker import BROKER_ERRORS, reason_of
from shared.errors import RegistryError, StoreUnavailable
from shared.logs import configure_logs
from shared.queues import celery_app, look_at_broker
from shared.settings import BadSettings, Settings, read_settings
from shared.store.database import Database, SchemaMismatch, open_database
from shared.store.schema import check_schema
from worker.digest.lanes import Lanes
from worker.fetch.status import REDIRECTS
from worker.loop import LoopThread
from worker.open_files import fits
from worker.running import a_client

CLOCKS_APART_S = 5.0
LITTLE_BYTES, TOO_LITTLE_BYTES = 2**30, 100 * 2**20
Health = Literal["ok", "warn", "bad", "not looked at"]


@dataclass(frozen=True)
class Finding:
    """What was found of one thing, in a sentence without a full stop."""

    check: str
    health: Health
    sentence: str


class Bad(Exception):
    """Something is not right, and no service will work well before it is mended."""


class Warn(Exception):
    """Something may be right, and is worth knowing."""


class NotLookedAt(Exception):
    """What this needs is not there."""


@click.command()
@click.option("--url", help="Fetch the head of this URL, as a worker would.")
@click.option("--state", type=click.Path(path_type=Path), help="State folder (default: REGISTRY_STATE_DIR).")
@json_option
def doctor(url: str | None, state: Path | None, json_wanted: bool) -> None:
    """Look at settings, store, clock, broker, open files, disk, certificates and egress, as services here see them.

    Exit status: 0 nothing is bad, 8 something is.
    """
    configure_logs(service="doctor", level=logging.ERROR)
    found = list(_findings(url, state))
    if json_wanted:
        say_json({"findings": [asdict(each) for each in found]})
    else:
        say(*(f"{each.health:<13} {each.check:<12} {each.sentence}" for each in found))
    if any(each.health == "bad" for each in found):
        raise click.exceptions.Exit(ALERTS)


def _findings(url: str | None, state: Path | None) -> Iterator[Finding]:
    try:
        settings = read_settings(**({"state_dir": state} if state else {}))
    except BadSettings as error:
        yield from (Finding("settings", "bad", each) for each in str(error).split("; "))
        rest = ("store", "clock", "broker", "open files", "disk", "certificates", "egress")
        yield from (Finding(check, "not looked at", "settings come first") for check in rest)
        return
    yield Finding("settings", "ok", "every value can be read")
    database: list[Database] = []
    checks: dict[str, Callable[[], str]] = {
        "store": lambda: _store(settings, database),
        "clock": lambda: _clock(database),
        "broker": lambda: _broker(settings),
        "open files": lambda: _open_files(settings),
        "disk": lambda: _disk(settings),
        "certificates": lambda: _certificates(settings),
        "egress": lambda: _egress(settings, url),
    }
    try:
        for check, look in checks.items():
            yield _finding(check, look)
    finally:
        for each in database:
            each.close()


def _finding(check: str, look: Callable[[], str]) -> Finding:
    health: dict[type[Exception], Health] = {Bad: "bad", Warn: "warn", NotLookedAt: "not looked at"}
    try:
        return Finding(check, "ok", look())
    except (Bad, Warn, NotLookedAt) as error:
        return Finding(check, health[type(error)], str(error).removesuffix("."))


def _store(settings: Settings, opened: list[Database]) -> str:
    """Connect, and leave what is connected in *opened*."""
    if settings.store_file is not None and not settings.store_file.exists():
        raise Warn(f"{settings.store_file} is not there yet: `plugin-registry up` or `migrate` makes it")
    try:
        database = open_database(settings.database_url)
        opened.append(database)
        check_schema(database)
    except SchemaMismatch as error:
        raise Bad(str(error)) from error
    except StoreUnavailable as error:
        opened.clear()
        raise Bad(str(error)) from error
    return f"{database.dialect} answers, and its schema is one that this version serves"


def _clock(opened: list[Database]) -> str:
    if not opened:
        raise NotLookedAt("the store comes first")
    apart_s = opened[0].now().timestamp() - time.time()
    if abs(apart_s) > CLOCKS_APART_S:
        raise Warn(
            f"the store's clock is {abs(apart_s):.0f} s {'ahead of' if apart_s > 0 else 'behind'} this machine's: "
            "leases go by the store's, certificates by this one's"
        )
    return f"the store's and this machine's are {abs(apart_s):.1f} s apart"


def _broker(settings: Settings) -> str:
    if not settings.broker_url:
        if settings.embedded_store:
            address = StateFolder(settings.state_dir).running_address()
            return f"`plugin-registry up` brings its own{f', and runs at {address}' if address else ''}"
        raise Bad("REGISTRY_BROKER_URL is not set: api, workers and beat need it")
    with celery_app(settings) as app:
        try:
            waiting = look_at_broker(app)
        except BROKER_ERRORS as error:
            raise Bad(reason_of(error).sentence) from error
    return f"{settings.broker.kind} answers and takes messages; {waiting} wait"


def _open_files(settings: Settings) -> str:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    fit = fits(hard)
    if fit < settings.downloads:
        raise Warn(
            f"{hard} allow {fit} downloads at once, REGISTRY_DOWNLOADS asks for {settings.downloads}: raise it"
        )
    limit = "no limit" if hard == resource.RLIM_INFINITY else f"{hard}, of which a worker takes all"
    return f"{limit}; the api has {soft}"


def _disk(settings: Settings) -> str:
    if settings.store_file is None:
        return "no service keeps anything on it"
    folder = settings.store_file.parent
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if not os.access(folder, os.W_OK):
        raise Bad(f"{folder} cannot be written")
    if free < LITTLE_BYTES:
        raise (Bad if free < TOO_LITTLE_BYTES else Warn)(f"{free / 2**20:.0f} MiB are free in {folder}")
    return f"{free / 2**30:.1f} GiB are free in {folder}"


def _certificates(settings: Settings) -> str:
    files = [settings.egress_ca_file or Path(certifi.where()), settings.broker_ca_file]
    told = []
    for file in filter(None, files):
        trusted = ssl.create_default_context(cafile=file).get_ca_certs()
        expired = [each for each in trusted if _until(each) < datetime.now(UTC)]
        if trusted and len(expired) == len(trusted):
            raise Bad(f"all certificates in {file} have expired")
        told.append(f"{len(trusted) - len(expired)} are trusted by {file}")
    return "; ".join(told)


def _until(certificate: object) -> datetime:
    assert isinstance(certificate, dict)  # noqa: S101  # what `get_ca_certs` returns
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(certificate["notAfter"]), UTC)


def _egress(settings: Settings, url: str | None) -> str:
    if url is None:
        raise NotLookedAt("name an artifact's URL with --url, and its head is fetched as a worker would")
    try:
        target = settings.egress.check_url(url)
    except RegistryError as error:
        raise Bad(error.detail) from error
    loop, lanes = LoopThread("doctor"), Lanes()
    try:

        async def head() -> int:
            client = a_client(settings, lanes)
            with closing(client), closing(await client.get(url, target, "doctor", {})) as answer:
                return answer.head.status

        status = loop.call(head(), within_s=settings.connect_timeout_s * 2 + settings.read_timeout_s)
    except RegistryError as error:
        raise Bad(error.detail) from error
    except OSError as error:  # a time-out too
        raise Bad(f"{target.host} did not answer: {error.strerror or type(error).__name__}") from error
    finally:
        loop.close()
        lanes.close()
    if status != 200 and status not in REDIRECTS:
        raise Warn(f"{target.host} answers with status {status}")
    return f"{target.host} is reached, and answers with status {status}"
