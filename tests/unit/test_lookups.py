"""Look-ups that hang cost their own zone and their own submitter a place, and nobody else."""

import asyncio
import errno
import os
import resource
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from shared.errors import ConnectFailed, HostNotFound, RegistryError, Shortage
from worker.fetch.resolver import PLACES_EACH_ZONE, Resolver, zone_of

SOON_S, LONG_S = 0.2, 60.0


@pytest.fixture
def hanging() -> Iterator[threading.Event]:
    """Ends the look-ups that hang."""
    release = threading.Event()
    yield release
    release.set()


def resolver(hanging: threading.Event, *, places: int = 256) -> Resolver:
    def look_up(host: str, _port: int) -> list[str]:
        if "slow" in host:
            hanging.wait()
        return ["192.0.2.1", "192.0.2.1", "192.0.2.2"]

    return Resolver(look_up, places=places)


def run(hanging: threading.Event, story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def told() -> None:
        try:
            await story()
        finally:
            hanging.set()

    asyncio.run(told())


async def found(
    resolve: Resolver, host: str, *, by: str = "a", within_s: float = LONG_S
) -> list[str] | RegistryError:
    try:
        return await resolve(host, 443, within_s, by)
    except RegistryError as error:
        return error


def test_a_name_has_its_addresses_once_each(hanging: threading.Event) -> None:
    async def story() -> None:
        resolve = resolver(hanging)
        assert await found(resolve, "quick.example.com") == ["192.0.2.1", "192.0.2.2"]
        assert await found(resolve, "2001:db8::1") == ["2001:db8::1"], "an address is none"
        assert resolve._free == 256
        assert not +resolve._taken

    run(hanging, story)


def test_names_whose_servers_are_silent_do_not_cost_others_theirs(hanging: threading.Event) -> None:
    """H3: 600 names of which none is answered for, beside 30 that are."""

    async def story() -> None:
        resolve = resolver(hanging)
        slow = [
            asyncio.create_task(found(resolve, f"slow.n{number}.example", by="hostile", within_s=LONG_S))
            for number in range(600)
        ]
        await asyncio.sleep(0.1)
        honest = await asyncio.gather(*(found(resolve, f"quick{n}.example.com", by="honest") for n in range(30)))
        assert honest == [["192.0.2.1", "192.0.2.2"]] * 30
        assert sum(not each.done() for each in slow) == 600
        hanging.set()
        await asyncio.gather(*slow)
        assert resolve._free == 256

    run(hanging, story)


def test_a_zone_that_hangs_holds_a_few_places_and_is_the_one_at_fault(hanging: threading.Event) -> None:
    async def story() -> None:
        resolve = resolver(hanging)
        slow = [
            asyncio.create_task(found(resolve, f"slow{number}.example.com", within_s=SOON_S))
            for number in range(PLACES_EACH_ZONE + 5)
        ]
        errors = await asyncio.gather(*slow)
        assert all(isinstance(each, ConnectFailed) and each.cause == "not-resolved" for each in errors)
        assert resolve._free == 256 - PLACES_EACH_ZONE, "who is given up keeps its place until it ends"
        assert isinstance(await found(resolve, "quick.example.com", within_s=SOON_S), ConnectFailed)
        assert await found(resolve, "quick.example.org") == ["192.0.2.1", "192.0.2.2"]

    run(hanging, story)


def test_that_we_have_no_place_is_our_fault_and_not_the_submitters(hanging: threading.Event) -> None:
    async def story() -> None:
        resolve = resolver(hanging, places=4)
        slow = [
            asyncio.create_task(found(resolve, f"slow.n{number}.example", within_s=LONG_S)) for number in range(4)
        ]
        await asyncio.sleep(0.1)
        short = await found(resolve, "quick.example.org", within_s=SOON_S)
        assert isinstance(short, Shortage)
        assert (short.cause, short.failure().fault) == ("resolver", "registry")
        assert await found(resolve, "quick.example.org", by="another") == ["192.0.2.1", "192.0.2.2"]
        hanging.set()
        await asyncio.gather(*slow)

    run(hanging, story)


@pytest.mark.parametrize(
    ("raised", "told", "cause"),
    [
        (socket.gaierror(socket.EAI_NONAME, "no"), HostNotFound, ""),
        (socket.gaierror(socket.EAI_AGAIN, "later"), ConnectFailed, "not-resolved"),
        (socket.gaierror(socket.EAI_MEMORY, "memory"), Shortage, "resolver"),
        (OSError(errno.EMFILE, "files"), Shortage, "resolver"),
        (UnicodeError("label too long"), ConnectFailed, "not-resolved"),
        (OSError("odd"), ConnectFailed, "not-resolved"),
    ],
)
def test_what_goes_wrong_is_told_by_whose_fault_it_is(
    raised: Exception, told: type[RegistryError], cause: str
) -> None:
    def look_up(_host: str, _port: int) -> list[str]:
        raise raised

    error = asyncio.run(found(Resolver(look_up), "host.example.com"))
    assert type(error) is told
    assert error.cause == cause


def test_a_name_that_is_not_found_for_want_of_a_file_is_not_called_missing() -> None:
    """So says the system's resolver, which could not read its own configuration."""

    def look_up(_host: str, _port: int) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "no")

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    error: object = None

    async def without_files() -> None:
        nonlocal error
        await asyncio.sleep(0)
        with Path(os.devnull).open() as lowest:
            free = lowest.fileno()
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
        try:
            error = await found(Resolver(look_up), "host.example.com")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    asyncio.run(without_files())
    assert isinstance(error, Shortage)


def test_a_thread_that_cannot_be_had_costs_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve = Resolver(lambda _host, _port: [])

    def no_thread(_self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", no_thread)
    with pytest.raises(RuntimeError):
        asyncio.run(resolve("host.example.com", 443, LONG_S, "a"))
    assert resolve._free == 256


@pytest.mark.parametrize(
    ("host", "zone"),
    [
        ("example.com", "example.com"),
        ("a.b.example.com", "example.com"),
        ("a.example.co.uk", "example.co.uk"),
        ("example.co.uk", "example.co.uk"),
        ("a.b.example.io", "example.io"),
        ("host", "host"),
    ],
)
def test_a_zone_is_what_has_name_servers_of_its_own(host: str, zone: str) -> None:
    assert zone_of(host) == zone
