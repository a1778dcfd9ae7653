"""Slots by host: bounded, handed on, and one host's are no other's."""

import time
from concurrent.futures import ThreadPoolExecutor

from shared.registration import RegistrationId
from worker.hosts import MAX_PARKED, Hosts, host_of

ONE, TWO, THREE = (RegistrationId(f"registration-{n}") for n in range(3))


def test_a_host_has_so_many_slots_and_no_other_is_held_up() -> None:
    hosts = Hosts(2)
    assert hosts.enter("slow")
    assert hosts.enter("slow")
    assert not hosts.enter("slow")
    assert hosts.enter("quick")


def test_whoever_leaves_takes_on_who_waited_longest() -> None:
    hosts = Hosts(1)
    assert hosts.enter("slow")
    assert hosts.park("slow", ONE)
    assert hosts.park("slow", TWO)
    assert hosts.is_parked(ONE)
    assert not hosts.is_parked(THREE)
    assert hosts.leave("slow") == ONE
    assert not hosts.is_parked(ONE)
    assert hosts.enter("slow")
    assert hosts.leave("slow") == TWO
    assert hosts.enter("slow")
    assert hosts.leave("slow") is None


def test_a_slot_that_became_free_meanwhile_is_not_waited_for() -> None:
    hosts = Hosts(1)
    assert hosts.enter("slow")
    assert hosts.leave("slow") is None
    assert not hosts.park("slow", ONE)


def test_a_slot_that_becomes_free_in_a_moment_is_waited_for_and_another_hosts_is_not_it() -> None:
    hosts = Hosts(1, patience_s=20)
    assert hosts.enter("quick")
    assert hosts.enter("other")
    with ThreadPoolExecutor(2) as pool:
        waiting = pool.submit(hosts.enter, "quick")
        hosts.leave("other")
        assert not waiting.done()
        hosts.leave("quick")
        assert waiting.result()


def test_nobody_who_waits_is_forgotten() -> None:
    hosts = Hosts(1, patience_s=3600)

    def come_and_go() -> None:
        for _ in range(20):
            assert hosts.enter("quick")
            time.sleep(0.001)  # so that the others have to wait
            hosts.leave("quick")

    with ThreadPoolExecutor(8) as pool:
        for each in [pool.submit(come_and_go) for _ in range(8)]:
            each.result()


def test_where_some_are_parked_nobody_waits() -> None:
    hosts = Hosts(1, patience_s=20)
    assert hosts.enter("slow")
    assert hosts.park("slow", ONE)
    assert not hosts.enter("slow")


def test_the_parked_are_bounded() -> None:
    hosts = Hosts(1)
    hosts.enter("slow")
    for n in range(MAX_PARKED + 5):
        hosts.park("slow", RegistrationId(str(n)))
    assert hosts.is_parked(RegistrationId(str(MAX_PARKED - 1)))
    assert not hosts.is_parked(RegistrationId(str(MAX_PARKED)))


def test_a_host_is_its_name_and_port() -> None:
    assert host_of("https://Artifacts.Example.com/a") == "artifacts.example.com"
    assert host_of("http://[::1]:8000/a") != host_of("http://[::1]:8001/a")
