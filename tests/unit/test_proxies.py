"""Whose request is it: what connected, or what trusted proxies say, and nothing that a client makes up."""

from ipaddress import ip_network
from typing import Any

import pytest

from api.http.proxies import MAX_HOPS, Proxies

NEAR, FAR = "10.0.0.1", "10.0.0.2"
ONE = Proxies([ip_network("10.0.0.0/24"), ip_network("fd00::/64")])


def scope(
    *forwarded: str, client: tuple[str, int] | None = (NEAR, 40_000), proto: tuple[str, ...] = ()
) -> dict[str, Any]:
    headers = [(b"host", b"registry"), *((b"x-forwarded-for", each.encode("latin-1")) for each in forwarded)]
    headers += [(b"x-forwarded-proto", each.encode()) for each in proto]
    return {"type": "http", "scheme": "http", "client": client, "headers": headers}


@pytest.mark.parametrize(
    ("forwarded", "client"),
    [
        # as proxies write it
        (["203.0.113.5"], "203.0.113.5"),
        (["203.0.113.5:40000"], "203.0.113.5"),
        (["2001:db8:1:2:3:4:5:6"], "2001:db8:1:2::/64"),
        (["[2001:DB8:1:2::9]"], "2001:db8:1:2::/64"),
        (["[2001:db8:1:2::9]:40000"], "2001:db8:1:2::/64"),
        (["::ffff:203.0.113.5"], "203.0.113.5"),
        (["[::ffff:203.0.113.5]:1"], "203.0.113.5"),
        (["\t203.0.113.5  "], "203.0.113.5"),
        # read from the right, through what is trusted
        (["198.51.100.1, 203.0.113.5"], "203.0.113.5"),
        ([f"198.51.100.1, 203.0.113.5, {FAR}"], "203.0.113.5"),
        ([f"198.51.100.1, 203.0.113.5,{FAR}, fd00::7"], "203.0.113.5"),
        ([f"{FAR}, 203.0.113.5"], "203.0.113.5"),
        ([f"198.51.100.1, {FAR}, 203.0.113.5"], "203.0.113.5"),
        # in several fields
        (["198.51.100.1", "203.0.113.5"], "203.0.113.5"),
        (["198.51.100.1, 203.0.113.5", FAR], "203.0.113.5"),
        (["198.51.100.1"] * 1000 + ["203.0.113.5"], "203.0.113.5"),
        # all are trusted: the proxy asks for itself
        ([FAR], FAR),
        ([f"10.0.0.3, {FAR}"], "10.0.0.3"),
        # empty elements are none
        ([], NEAR),
        ([""], NEAR),
        ([" , ,"], NEAR),
        (["203.0.113.5,,"], "203.0.113.5"),
        # what is no address is not believed, nor what stands left of it
        (["unknown"], NEAR),
        (["198.51.100.1, unknown"], NEAR),
        ([f"198.51.100.1, _hidden, {FAR}"], FAR),
        (["unknown, 203.0.113.5"], "203.0.113.5"),
        (["203.0.113.5:"], NEAR),
        (["203.0.113.5:x"], NEAR),
        (["203.0.113.5:²"], NEAR),
        (["203.0.113"], NEAR),
        (["203.0.113.05"], NEAR),
        (["203.0.113.5/32"], NEAR),
        (["3405803781"], NEAR),
        (["[2001:db8::1"], NEAR),
        (["[2001:db8::1]x"], NEAR),
        (["[2001:db8::1]:"], NEAR),
        (["[]"], NEAR),
        (["2001:db8::1%eth0"], NEAR),
        (["fe80::1%x" + "y" * 60_000], NEAR),
        ([":" * 60_000], NEAR),
        (["\xff"], NEAR),
        (["registry.example"], NEAR),
        (["<script>"], NEAR),
    ],
)
def test_what_a_trusted_proxy_says_is_read_from_the_right(forwarded: list[str], client: str) -> None:
    assert ONE.client(scope(*forwarded)) == client


@pytest.mark.parametrize("trusting", [Proxies([]), ONE])
def test_what_anybody_else_says_counts_for_nothing(trusting: Proxies) -> None:
    for forwarded in ("203.0.113.5", NEAR, "::1", "unknown", "203.0.113.5:1", f"198.51.100.1, {FAR}"):
        assert trusting.client(scope(forwarded, client=("192.0.2.9", 40_000))) == "192.0.2.9"


def test_no_more_than_so_many_proxies_are_looked_through() -> None:
    for proxies in (MAX_HOPS - 1, 30_000):
        forwarded = ",".join(["203.0.113.5", *[FAR] * proxies])
        assert ONE.client(scope(forwarded)) == ("203.0.113.5" if proxies < MAX_HOPS else FAR)


@pytest.mark.parametrize(
    ("host", "counted"),
    [
        ("192.0.2.9", "192.0.2.9"),
        ("::ffff:192.0.2.9", "192.0.2.9"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8::ffff:ffff:ffff:ffff", "2001:db8::/64"),
        ("2001:db8:0:1::1", "2001:db8:0:1::/64"),
        ("fe80::1%eth0", "fe80::/64"),
    ],
)
def test_a_client_counts_the_same_however_its_address_is_spelt(host: str, counted: str) -> None:
    assert Proxies([]).client(scope(client=(host, 40_000))) == counted


def test_a_mapped_address_of_a_trusted_proxy_is_trusted() -> None:
    assert ONE.client(scope("203.0.113.5", client=(f"::ffff:{NEAR}", 40_000))) == "203.0.113.5"


@pytest.mark.parametrize("trusting", [Proxies([]), ONE])
@pytest.mark.parametrize(
    ("forwarded", "client"),
    [
        ("203.0.113.5", ("203.0.113.5", 0)),
        ("203.0.113.5:77", ("203.0.113.5", 77)),
        ("203.0.113.5:7_7", ("203.0.113.5", 77)),
        ("[2001:db8::1]:77", ("2001:db8::1", 77)),
        ("198.51.100.1, 10.0.0.2:77", ("10.0.0.2", 77)),
        ("anything", ("anything", 0)),
        ("", None),
    ],
)
def test_an_address_that_the_server_took_from_a_header_is_unknown(
    trusting: Proxies, forwarded: str, client: tuple[str, int] | None
) -> None:
    assert trusting.client(scope(forwarded, client=client)) == ""


@pytest.mark.parametrize(
    ("said", "client", "encrypted"),
    [
        (("https",), (NEAR, 1), True),
        (("HTTPS ",), (NEAR, 1), True),
        (("http, https",), (NEAR, 1), True),
        (("http", "https"), (NEAR, 1), True),
        (("https, http",), (NEAR, 1), False),
        (("",), (NEAR, 1), False),
        ((), (NEAR, 1), False),
        (("https",), ("192.0.2.9", 1), False),
        (("https",), None, False),
    ],
)
def test_a_trusted_proxy_alone_may_say_that_the_client_came_over_tls(
    said: tuple[str, ...], client: tuple[str, int] | None, encrypted: bool
) -> None:
    assert ONE.over_tls(scope(client=client, proto=said)) is encrypted
    assert Proxies([]).over_tls(scope(client=client, proto=said)) is False


def test_a_server_that_speaks_tls_itself_is_believed() -> None:
    assert Proxies([]).over_tls(scope() | {"scheme": "https"})


@pytest.mark.parametrize(
    "forwarded", ["203.0.113.5:", "203.0.113.5:1, 198.51.100.7", "[203.0.113.5]", "1203.0.113.5:77"]
)
def test_who_names_its_own_address_is_counted_by_it_all_the_same(forwarded: str) -> None:
    assert Proxies(()).client(scope(forwarded, client=("203.0.113.5", 77))) == "203.0.113.5"
