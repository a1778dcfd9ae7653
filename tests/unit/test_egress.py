"""Which URLs and addresses a worker may fetch from; tables of our own beside hostile spellings."""

from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shared.egress import FORBIDDEN_V4, FORBIDDEN_V6, Address, Egress, Network, Target, parse_networks, parse_ports
from shared.errors import BadRedirect, ForbiddenAddress, ForbiddenUrl

DEFAULT = Egress()
HTTP_TOO = Egress(schemes=frozenset({"http", "https"}), ports=(range(80, 81), range(443, 444)))
ANY_PORT = Egress(schemes=frozenset({"http", "https"}), ports=(range(1, 65536),))

# Written out again, so that a block lost from the product's tables is a failure here.
_V4 = """
    0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 168.63.129.16/32 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24
    192.0.2.0/24 192.31.196.0/24 192.52.193.0/24 192.88.99.0/24 192.168.0.0/16 192.175.48.0/24 198.18.0.0/15
    198.51.100.0/24 203.0.113.0/24 224.0.0.0/4 240.0.0.0/4
"""
SPECIAL_V4 = [IPv4Network(block) for block in _V4.split()]
_V6 = """
    ::/3 2001::/23 2001:db8::/32 2002::/16 2620:4f:8000::/48 3fff::/20 4000::/2 8000::/1
"""
SPECIAL_V6 = [IPv6Network(block) for block in _V6.split()]
SPECIAL: list[Network] = [*SPECIAL_V4, *SPECIAL_V6]


def _special(address: Address) -> bool:
    return any(address.version == block.version and address in block for block in SPECIAL)


def _passes(egress: Egress, address: object) -> bool:
    try:
        egress.check_address(str(address))
    except ForbiddenAddress:
        return False
    return True


def _leads_to(egress: Egress, url: str) -> str | None:
    try:
        return egress.check_url(url).host
    except (ForbiddenAddress, ForbiddenUrl):
        return None


# addresses


@pytest.mark.parametrize("block", SPECIAL, ids=str)
def test_a_block_is_refused_from_its_first_address_to_its_last_and_no_further(block: Network) -> None:
    first, last = int(block.network_address), int(block.broadcast_address)
    kind = IPv4Address if block.version == 4 else IPv6Address
    assert not _passes(DEFAULT, kind(first))
    assert not _passes(DEFAULT, kind(last))
    for neighbour in (first - 1, last + 1):
        if 0 <= neighbour < 2**block.max_prefixlen:
            assert _passes(DEFAULT, kind(neighbour)) is not _special(kind(neighbour))


def test_no_block_is_in_the_tables_that_this_test_does_not_know() -> None:
    assert set(FORBIDDEN_V4) == set(SPECIAL_V4)
    assert set(FORBIDDEN_V6) == {block for block in SPECIAL_V6 if block.prefixlen > 3}


@settings(deadline=None, max_examples=400)
@given(st.ip_addresses())
def test_what_the_standard_library_does_not_call_global_is_refused(address: Address) -> None:
    assert address.is_global or not _passes(DEFAULT, address)


@settings(deadline=None, max_examples=400)
@given(st.ip_addresses(v=4))
def test_every_ipv4_address_outside_the_blocks_may_be_reached(address: IPv4Address) -> None:
    assert _passes(DEFAULT, address) is not _special(address)


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",  # most clouds' metadata
        "169.254.170.2",  # containers' credentials on AWS
        "100.100.100.200",  # Alibaba
        "192.0.0.192",  # Oracle
        "168.63.129.16",  # Azure
        "fd00:ec2::254",  # AWS
        "fd20:ce::254",  # Google
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1",
        "fec0::1",
        "fc00::1",
        "ff02::1",
        "2001:db8::1",
        "100::1",
        "5f00::1",
    ],
)
def test_an_address_that_is_special_by_name_is_refused(address: str) -> None:
    assert not _passes(DEFAULT, address)


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "1.1.1.1", "93.184.216.34", "2606:4700::1111", "2a00:1450:4001::200e"]
)
def test_a_public_address_may_be_reached(address: str) -> None:
    assert DEFAULT.check_address(address) == ip_address(address)


@pytest.mark.parametrize(
    "text",
    ["", "host.example", "8.8.8", "134744072", "0x08080808", "08.8.8.8", "8.8.8.8 ", "8.8.8.8%eth0", "[2606::1]"],
)
def test_what_is_not_plainly_an_address_is_refused_as_one(text: str) -> None:
    assert not _passes(DEFAULT, text)


CARRIERS: dict[str, Callable[[int], int]] = {
    "compatible ::a.b.c.d": lambda v4: v4,
    "mapped ::ffff:0:0/96": lambda v4: 0xFFFF << 32 | v4,
    "translated ::ffff:0:0:0/96": lambda v4: 0xFFFF << 48 | v4,
    "NAT64 64:ff9b::/96": lambda v4: 0x64FF9B << 96 | v4,
    "NAT64, local 64:ff9b:1::/48": lambda v4: 0x64FF9B0001 << 80 | v4,
    "6to4 2002::/16": lambda v4: 0x2002 << 112 | v4 << 80 | 1,
    "Teredo client": lambda v4: 0x20010000 << 96 | (v4 ^ 0xFFFFFFFF),
    "Teredo server": lambda v4: 0x20010000 << 96 | v4 << 64,
    "ISATAP": lambda v4: 0x26064700 << 96 | 0x00005EFE << 32 | v4,
    "ISATAP, universal bit": lambda v4: 0x26064700 << 96 | 0x02005EFE << 32 | v4,
}


@pytest.mark.parametrize("carrier", CARRIERS.values(), ids=CARRIERS)
@pytest.mark.parametrize(
    "inner", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "8.8.8.8", "0.0.0.0", "255.255.255.255"]
)
def test_an_ipv6_form_that_carries_an_ipv4_address_is_refused_whatever_it_carries(
    carrier: Callable[[int], int], inner: str
) -> None:
    address = IPv6Address(carrier(int(IPv4Address(inner))))
    assert not _passes(DEFAULT, address)
    assert not _passes(DEFAULT, address.exploded.upper())
    assert _leads_to(DEFAULT, f"https://[{address}]/a") is None


@pytest.mark.parametrize("address", ["fe80::1%eth0", "2606:4700::1111%1", "::1%lo"])
def test_an_address_with_a_zone_is_refused_even_if_its_network_is_allowed(address: str) -> None:
    assert not _passes(DEFAULT, address)
    assert not _passes(Egress(allow_networks=parse_networks("::/0")), address)


# allowed networks


def test_an_allowed_network_opens_exactly_what_it_names() -> None:
    egress = Egress(allow_networks=parse_networks("10.1.0.0/16, fd00:1::/32"))
    for address in ("10.1.0.0", "10.1.255.255", "fd00:1::", "fd00:1:ffff:ffff:ffff:ffff:ffff:ffff"):
        assert _passes(egress, address), address
    for address in ("10.0.255.255", "10.2.0.0", "127.0.0.1", "fd00::ffff", "fd00:2::", "::1"):
        assert not _passes(egress, address), address
    assert _leads_to(egress, "https://10.1.2.3/a") == "10.1.2.3"
    assert _leads_to(egress, "https://[fd00:1::7]/a") == "fd00:1::7"


@pytest.mark.parametrize("carrier", CARRIERS.values(), ids=CARRIERS)
def test_an_allowed_ipv4_network_opens_no_ipv6_form_of_it(carrier: Callable[[int], int]) -> None:
    egress = Egress(allow_networks=parse_networks("10.1.0.0/16,127.0.0.0/8,0.0.0.0/8"))
    assert not _passes(egress, IPv6Address(carrier(int(IPv4Address("10.1.2.3")))))
    assert not _passes(egress, "::1")


def test_an_allowed_network_allows_no_odd_spelling() -> None:
    egress = Egress(allow_networks=parse_networks("127.0.0.0/8"))
    assert _leads_to(egress, "https://127.0.0.1/") == "127.0.0.1"
    for host in ("127.1", "2130706433", "0x7f.0.0.1", "localhost"):
        assert _leads_to(egress, f"https://{host}/") is None


# spellings of IPv4 hosts

_FORMS: list[Callable[[int], str]] = [
    str,
    "0{:o}".format,
    "000{:o}".format,
    "0x{:x}".format,
    "0X{:X}".format,
    "0x00{:x}".format,
    "{:03d}".format,
]
_HEX_PERCENT = {ord(each): f"%{ord(each):02x}" for each in "0123456789abcdefABCDEFxX."}
_DISGUISES: list[Callable[[str], str]] = [
    lambda host: host,
    lambda host: host,
    lambda host: host + ".",
    lambda host: host + "..",
    lambda host: "." + host,
    lambda host: host.translate(_HEX_PERCENT),
    lambda host: host[:-1] + f"%{ord(host[-1]):02X}",
    lambda host: host.translate({ord("0") + digit: 0xFF10 + digit for digit in range(10)}),
    lambda host: host.replace(".", "\u3002"),
    lambda host: host.replace(".", "%2e"),
    lambda host: f"[{host}]",
    lambda host: f"[::ffff:{host}]",
]


@st.composite
def _spellings(draw: st.DrawFn, addresses: st.SearchStrategy[Address]) -> tuple[str, str]:
    """Return one of the IPv4 *addresses*, plain and in some spelling that some parser takes for it."""
    address = draw(addresses)
    octets = address.packed
    plain_parts = draw(st.integers(0, 3))
    numbers = [*octets[:plain_parts], int.from_bytes(octets[plain_parts:])]
    host = ".".join(draw(st.sampled_from(_FORMS))(number) for number in numbers)
    return str(address), draw(st.sampled_from(_DISGUISES))(host)


_forbidden_v4 = st.sampled_from(SPECIAL_V4).flatmap(lambda block: st.ip_addresses(network=block))


@settings(deadline=None, max_examples=500)
@given(_spellings(_forbidden_v4))
@example(("127.0.0.1", "127.0.0.1"))
@example(("127.0.0.1", "127.0.0.1."))
@example(("127.0.0.1", "2130706433"))
@example(("127.0.0.1", "017700000001"))
@example(("127.0.0.1", "0x7f000001"))
@example(("127.0.0.1", "0x7f.1"))
@example(("127.0.0.1", "127.1"))
@example(("127.0.0.1", "127.0.0.1%00"))
@example(("0.0.0.0", "0"))
@example(("0.0.0.0", "0x"))
def test_no_spelling_of_a_forbidden_ipv4_address_passes(spelling: tuple[str, str]) -> None:
    assert _leads_to(DEFAULT, f"https://{spelling[1]}/a") is None


@settings(deadline=None, max_examples=300)
@given(_spellings(st.ip_addresses(v=4)))
@example(("8.8.8.8", "[8.8.8.8]"))
def test_a_public_ipv4_address_passes_in_its_plain_spelling_only(spelling: tuple[str, str]) -> None:
    plain, spelt = spelling
    assert _leads_to(DEFAULT, f"https://{spelt}/a") in (None, plain)
    assert _leads_to(DEFAULT, f"https://{spelt}/a") is None or spelt.removesuffix(".") == plain


# URLs


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("https://host.example/a.tar.gz", Target("https", "host.example", 443)),
        ("HTTPS://Host.EXAMPLE/A", Target("https", "host.example", 443)),
        ("https://host.example", Target("https", "host.example", 443)),
        ("https://host.example?a=b", Target("https", "host.example", 443)),
        ("https://host.example./a", Target("https", "host.example", 443)),
        ("https://host.example:443/a", Target("https", "host.example", 443)),
        ("https://xn--bcher-kva.example/a%20b?q=%C3%A9&sig=a@b:c/d?e", Target("https", "xn--bcher-kva.example", 443)),
        ("https://_under.score-d.example/", Target("https", "_under.score-d.example", 443)),
        ("https://8.8.8.8/a", Target("https", "8.8.8.8", 443)),
        ("https://[2606:4700:0::1111]/a", Target("https", "2606:4700::1111", 443)),
        ("https://1password.example/", Target("https", "1password.example", 443)),
        ("https://127.0.0.1.nip.example/", Target("https", "127.0.0.1.nip.example", 443)),
    ],
)
def test_a_plain_url_leads_where_it_says(url: str, target: Target) -> None:
    assert DEFAULT.check_url(url) == target


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://hunter2.example/", "scheme"),
        ("ftp://hunter2.example/", "scheme"),
        ("file:///hunter2", "scheme"),
        ("gopher://hunter2.example/", "scheme"),
        ("javascript:hunter2", "not an absolute URL"),
        ("hunter2.example/a", "not an absolute URL"),
        ("//hunter2.example/a", "not an absolute URL"),
        ("/hunter2", "not an absolute URL"),
        ("", "not an absolute URL"),
        ("https:hunter2.example", "not an absolute URL"),
        ("https:/hunter2.example", "not an absolute URL"),
        ("https:///hunter2", "missing or malformed"),
        ("https://?hunter2", "missing or malformed"),
        ("https://:443/hunter2", "missing or malformed"),
        ("https://hunter2.example:/", "missing or malformed"),
        ("https://hunter2.example:https/", "missing or malformed"),
        ("https://hunter2.example:443:443/", "missing or malformed"),
        ("https://hunter2.example:-443/", "missing or malformed"),
        ("https://hunter2.example:+443/", "missing or malformed"),
        ("https://hunter2.example:000443/", "missing or malformed"),
        ("https://[2606:4700::1111/hunter2", "missing or malformed"),
        ("https://2606:4700::1111/hunter2", "missing or malformed"),
        ("https://[2606:4700::1111]hunter2/", "missing or malformed"),
        ("https://[2606:4700::1111%25eth0]/hunter2", "missing or malformed"),
        ("https://[v1.hunter2]/", "missing or malformed"),
        ("https://[8.8.8.8]/hunter2", "missing or malformed"),
        ("https://[]/hunter2", "missing or malformed"),
        ("https://hunter2..example/", "host name"),
        ("https://.hunter2.example/", "host name"),
        ("https://hunter2.example../", "host name"),
        ("https://-hunter2.example/", "host name"),
        ("https://hunter2-.example/", "host name"),
        ("https://hunter2.ex%61mple/", "host name"),
        ("https://hunter2.example%00.evil.example/", "host name"),
        (f"https://{'a' * 64}.hunter2.example/", "host name"),
        (f"https://{'a.' * 124}hunter2.example/", "host name"),
        ("https://hunter2/", "local name"),
        ("https://hunter2./", "local name"),
        ("https://hunter2.localhost/", "local name"),
        ("https://hunter2.LOCALHOST./", "local name"),
        ("https://user:hunter2@host.example/", "user name or password"),
        ("https://hunter2@host.example/", "user name or password"),
        ("https://@hunter2.example/", "user name or password"),
        ("https://hunter2.example@127.0.0.1/", "user name or password"),
        ("https://hunter2.example/#", "fragment"),
        ("https://hunter2.example/a#b", "fragment"),
        ("https://hunter2.example#@127.0.0.1/", "fragment"),
        ("https://hunter2.example\\@127.0.0.1/", "character"),
        ("https:\\\\hunter2.example\\", "character"),
        (" https://hunter2.example/", "character"),
        ("https://hunter2.example/ ", "character"),
        ("https://hunter2.example/\n", "U+000A"),
        ("https://hunter2.example/a\u202eb", "U+202E (RIGHT-TO-LEFT OVERRIDE)"),
        ("https://hunter2.exam\u200bple/", "U+200B (ZERO WIDTH SPACE)"),
        ("https://hunter2.exa\tmple/", "character"),
        ("https://hunter2.example/a\r\nHost: b", "character"),
        ("https://hunter2.example/\x00", "character"),
        ("https://hunter2.example/\x7f", "character"),
        ("https://hunter2.example/<a>", "character"),
        ('https://hunter2.example/"', "character"),
        ("https://hunter2.example/é", "character"),
        ("https://hunter2.ｅxample/", "character"),  # noqa: RUF001
        ("https://hunter2\u3002example/", "character"),
        ("https://hunter2.example/" + "a" * 2048, "2048 characters"),
    ],
)
def test_a_url_that_is_not_plain_is_refused_and_told_why_but_not_repeated(url: str, told: str) -> None:
    with pytest.raises(ForbiddenUrl) as refused:
        DEFAULT.check_url(url)
    assert told in refused.value.detail
    assert "hunter2" not in refused.value.detail


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "[::1]", "10.0.0.1.", "0x7f000001", "hunter2.0", "hunter2.0x", "[::ffff:10.0.0.1]", "[:::]"]
)
def test_a_host_that_is_a_forbidden_address_is_refused_without_repeating_it(host: str) -> None:
    with pytest.raises(ForbiddenAddress) as refused:
        DEFAULT.check_url(f"https://{host}/hunter2")
    assert host not in refused.value.detail
    assert "hunter2" not in refused.value.detail


@pytest.mark.parametrize(
    "code", [*range(0x21), *b'"<>\\^`{|}', 0x7F, 0x80, 0xA0, 0xAD, 0x200B, 0x2028, 0xFF0F, 0x1F600]
)
def test_no_whitespace_control_or_foreign_character_passes_anywhere(code: int) -> None:
    url = "https://host.example/a?b"
    for position in range(len(url) + 1):
        assert _leads_to(DEFAULT, url[:position] + chr(code) + url[position:]) is None


# ports and schemes


@pytest.mark.parametrize(
    ("egress", "url", "port"),
    [
        (HTTP_TOO, "http://host.example/", 80),
        (HTTP_TOO, "https://host.example/", 443),
        (HTTP_TOO, "http://host.example:443/", 443),
        (Egress(ports=(range(8000, 9000),)), "https://host.example:8000/", 8000),
        (Egress(ports=(range(8000, 9000),)), "https://host.example:8999/", 8999),
        (ANY_PORT, "https://host.example:1/", 1),
        (ANY_PORT, "https://host.example:65535/", 65535),
    ],
)
def test_an_allowed_port_passes(egress: Egress, url: str, port: int) -> None:
    assert egress.check_url(url).port == port


@pytest.mark.parametrize(
    ("egress", "url"),
    [
        (DEFAULT, "https://host.example:80/"),
        (DEFAULT, "https://host.example:22/"),
        (Egress(schemes=frozenset({"http"})), "http://host.example/"),
        (Egress(ports=(range(8000, 9000),)), "https://host.example/"),
        (Egress(ports=(range(8000, 9000),)), "https://host.example:7999/"),
        (Egress(ports=(range(8000, 9000),)), "https://host.example:9000/"),
        (ANY_PORT, "https://host.example:0/"),
        (ANY_PORT, "https://host.example:65536/"),
        (ANY_PORT, "https://host.example:99999/"),
    ],
)
def test_another_port_is_refused(egress: Egress, url: str) -> None:
    with pytest.raises(ForbiddenUrl, match=r"^Port [0-9]+ of artifactUrl is not allowed"):
        egress.check_url(url)


# redirects


@pytest.mark.parametrize(("origin", "to"), [("http", "http"), ("http", "https"), ("https", "https")])
def test_a_redirect_may_keep_or_raise_its_security(origin: str, to: str) -> None:
    target = HTTP_TOO.check_redirect(HTTP_TOO.check_url(f"{origin}://a.example/"), f"{to}://b.example/")
    assert target.host == "b.example"


def test_a_redirect_from_https_to_http_is_refused_even_where_http_is_allowed() -> None:
    with pytest.raises(BadRedirect, match="from https to http"):
        HTTP_TOO.check_redirect(Target("https", "a.example", 443), "http://a.example/")


@pytest.mark.parametrize(
    "url",
    ["https://127.0.0.1/", "https://localhost/", "https://u:p@b.example/", "https://b.example:22/", "/relative"],
)
def test_a_redirect_is_checked_like_any_url(url: str) -> None:
    with pytest.raises((ForbiddenAddress, BadRedirect)) as refused:
        DEFAULT.check_redirect(Target("https", "a.example", 443), url)
    assert refused.value.fault == "upstream"
    assert "artifactUrl" not in refused.value.detail


# what the settings spell


@pytest.mark.parametrize(
    ("text", "ports"),
    [
        ("443", (range(443, 444),)),
        ("443,8000-8999", (range(443, 444), range(8000, 9000))),
        (" 80 , 443 ,", (range(80, 81), range(443, 444))),
        ("1-65535", (range(1, 65536),)),
        ("80-80", (range(80, 81),)),
    ],
)
def test_ports_are_numbers_and_ranges(text: str, ports: tuple[range, ...]) -> None:
    assert parse_ports(text) == ports


@pytest.mark.parametrize(
    "text", ["0", "65536", "1-65536", "0-10", "9-8", "-5", "5-", "https", "443;80", "1-2-3", "4.5"]
)
def test_what_is_no_port_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"port|invalid literal"):
        parse_ports(f"443,{text}")


def test_networks_are_cidrs_of_both_families() -> None:
    assert parse_networks("") == ()
    assert parse_networks(" 10.0.0.0/8 ,fd00::/8, 192.168.1.7,") == tuple(
        map(ip_network, ("10.0.0.0/8", "fd00::/8", "192.168.1.7/32"))
    )


@pytest.mark.parametrize(
    "text", ["10.0.0.1/8", "10.0.0.0/33", "host.example", "10.0.0.0-10.0.0.9", "*", "10.0.0.0 8"]
)
def test_what_is_no_network_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"network|host bits|netmask|Only"):
        parse_networks(f"192.168.0.0/16,{text}")
