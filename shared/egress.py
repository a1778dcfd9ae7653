"""Egress: which URLs and which addresses a worker may fetch from. Pure: no name is resolved here.

The tables are our own because `ipaddress.is_global` answers differently from one Python to the
next. IPv4: everything but the blocks below. IPv6: nothing but global unicast (2000::/3), less the
blocks below; so every form that carries an IPv4 address (mapped, compatible, translated, NAT64,
6to4, Teredo, ISATAP) is refused whatever it carries.

Sources: IANA IPv4 and IPv6 Special-Purpose Address Registries; RFC 5771 and RFC 4291 (multicast);
RFC 5214 section 6.1 (ISATAP); the clouds' own pages for metadata addresses.
"""

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from shared.characters import called
from shared.errors import BadRedirect, ForbiddenAddress, ForbiddenUrl

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

FORBIDDEN_V4 = tuple(
    IPv4Network(block)
    for block in (
        "0.0.0.0/8",  # this network, RFC 791
        "10.0.0.0/8",  # private, RFC 1918
        "100.64.0.0/10",  # shared, RFC 6598; holds Alibaba's metadata, 100.100.100.200
        "127.0.0.0/8",  # loopback, RFC 1122
        "168.63.129.16/32",  # Azure's wire server, in a public range
        "169.254.0.0/16",  # link-local, RFC 3927; holds most clouds' metadata, 169.254.169.254
        "172.16.0.0/12",  # private, RFC 1918
        "192.0.0.0/24",  # IETF protocol assignments, RFC 6890; holds Oracle's metadata, 192.0.0.192
        "192.0.2.0/24",  # documentation, RFC 5737
        "192.31.196.0/24",  # AS112, RFC 7535
        "192.52.193.0/24",  # AMT, RFC 7450
        "192.88.99.0/24",  # 6to4 relay, RFC 7526
        "192.168.0.0/16",  # private, RFC 1918
        "192.175.48.0/24",  # AS112, RFC 7534
        "198.18.0.0/15",  # benchmarking, RFC 2544
        "198.51.100.0/24",  # documentation, RFC 5737
        "203.0.113.0/24",  # documentation, RFC 5737
        "224.0.0.0/4",  # multicast, RFC 5771
        "240.0.0.0/4",  # reserved, RFC 1112; holds the limited broadcast
    )
)
GLOBAL_UNICAST_V6 = IPv6Network("2000::/3")  # RFC 4291 section 2.4, as IANA has allocated it
FORBIDDEN_V6 = tuple(
    IPv6Network(block)
    for block in (
        "2001::/23",  # IETF protocol assignments, RFC 2928: Teredo, benchmarking, ORCHID, AMT ...
        "2001:db8::/32",  # documentation, RFC 3849
        "2002::/16",  # 6to4, RFC 3056
        "2620:4f:8000::/48",  # AS112, RFC 7534
        "3fff::/20",  # documentation, RFC 9637
    )
)
ISATAP = frozenset({0x00005EFE, 0x02005EFE})  # the upper half of the interface identifier

MAX_URL_CHARACTERS = 2048
MAX_LOCATION_CHARACTERS = 16_384  # with what had to be encoded; signed URLs are long
ELSEWHERE = "The artifact's host redirects to where this registry does not go: "
_NEVER_IN_A_URL = re.compile(r"[^\x21-\x7e]|[\\\"<>^`{|}]")
_PORTS = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")
_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/?#]*)(?P<rest>[/?][^#]*)?\Z")
_AUTHORITY = re.compile(r"(?P<host>\[[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*\]|[^:\[\]]*)(?::(?P<port>[0-9]{1,5}))?\Z")
_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\Z")
_NUMBER = re.compile(r"(?:[0-9]+|0[xX][0-9A-Fa-f]*)\Z")  # a last label that makes a host an IPv4 (WHATWG)
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Target:
    """Where a URL that may be fetched leads: *host* is a lower-case name or an address."""

    scheme: str
    host: str
    port: int


@dataclass(frozen=True)
class Egress:
    """The policy: what may be fetched beyond the defaults is exactly what the settings name."""

    schemes: frozenset[str] = frozenset({"https"})
    ports: tuple[range, ...] = (range(443, 444),)
    allow_networks: tuple[Network, ...] = ()

    def check_url(self, url: str, *, what: str = "artifactUrl", at_most: int = MAX_URL_CHARACTERS) -> Target:
        """Return where *url*, exactly as written, leads; *what* is what messages call it, *at_most* its length.

        Only plain spellings pass. What two parsers could read differently (backslashes,
        userinfo, encoded hosts, numbers that are addresses) is refused rather than interpreted.

        Raises:
            ForbiddenUrl: the URL breaks the policy; the message says how, and never repeats the URL.
            ForbiddenAddress: its host is a forbidden address.
        """
        if len(url) > at_most:
            raise ForbiddenUrl(f"{what} is longer than {at_most} characters.")
        if wrong := _NEVER_IN_A_URL.search(url):
            raise ForbiddenUrl(
                f"{what} holds a character that a URL may not, {called(wrong[0])}: percent-encode spaces and "
                "non-ASCII characters, write an international host name in its xn-- form, use no backslash."
            )
        if "#" in url:
            raise ForbiddenUrl(f"{what} has a fragment ('#'), which no server sees: leave it out.")
        parts = _URL.match(url)
        if parts is None:
            raise ForbiddenUrl(f"{what} is not an absolute URL such as https://host.example/path/file.tar.gz.")
        scheme = parts["scheme"].lower()
        if scheme not in self.schemes:
            allowed = ", ".join(sorted(self.schemes))
            raise ForbiddenUrl(f"The scheme of {what} is not allowed here (allowed: {allowed}).")
        if "@" in parts["authority"]:
            raise ForbiddenUrl(f"{what} holds a user name or password: leave it out.")
        authority = _AUTHORITY.match(parts["authority"])
        if authority is None or not authority["host"]:
            raise ForbiddenUrl(f"The host of {what} is missing or malformed.")
        port = int(authority["port"]) if authority["port"] else _DEFAULT_PORTS[scheme]
        if not any(port in allowed_ports for allowed_ports in self.ports):
            raise ForbiddenUrl(f"Port {port} of {what} is not allowed here.")
        return Target(scheme, self._check_host(authority["host"], what), port)

    def check_redirect(self, origin: Target, url: str) -> Target:
        """Return where a redirect from *origin* to *url* leads. Never from https to http.

        Raises:
            BadRedirect, ForbiddenAddress: it may not be followed, which is the fault of the host that sent it.
        """
        try:
            target = self.check_url(url, what="its Location", at_most=MAX_LOCATION_CHARACTERS)
        except ForbiddenUrl as error:
            raise BadRedirect(f"{ELSEWHERE}{error.detail}", cause="forbidden-redirect") from error
        except ForbiddenAddress as error:
            raise error.blamed("upstream", ELSEWHERE) from None
        if origin.scheme == "https" and target.scheme != "https":
            raise BadRedirect("The artifact's host redirects from https to http.", cause="redirect-to-http")
        return target

    def check_address(self, address: str) -> Address:
        """Return *address*, a literal as a resolver or a peer gives it, if it may be reached.

        Raises:
            ForbiddenAddress: it may not. The message does not repeat it.
        """
        try:
            parsed = ip_address(address)
        except ValueError:
            parsed = None
        if parsed is None or not self._may_reach(parsed):
            raise ForbiddenAddress(
                "The host is, or resolves to, an address this registry must not reach "
                "(private, local, reserved or a cloud's metadata service)."
            )
        return parsed

    def _may_reach(self, address: Address) -> bool:
        if isinstance(address, IPv6Address) and address.scope_id is not None:
            return False
        if any(address.version == network.version and address in network for network in self.allow_networks):
            return True
        if isinstance(address, IPv4Address):
            return not any(address in block for block in FORBIDDEN_V4)
        return (
            address in GLOBAL_UNICAST_V6
            and not any(address in block for block in FORBIDDEN_V6)
            and (int(address) >> 32) & 0xFFFFFFFF not in ISATAP
        )

    def _check_host(self, host: str, what: str) -> str:
        if host.startswith("["):
            return str(self.check_address(host[1:-1]))
        host = host.lower().removesuffix(".")
        labels = host.split(".")
        if _NUMBER.match(labels[-1]):  # an IPv4 in some spelling: only the plain one is an address to us
            return str(self.check_address(host))
        if len(host) > 253 or not all(_LABEL.match(label) for label in labels):
            raise ForbiddenUrl(f"The host of {what} is not a valid host name.")
        if len(labels) == 1 or labels[-1] == "localhost":
            raise ForbiddenUrl(f"The host of {what} is a local name: give a fully qualified one, or its address.")
        return host


def parse_networks(text: str) -> tuple[Network, ...]:
    """Return the networks in *text*, CIDRs separated by commas.

    Raises:
        ValueError: one of them is not a network.
    """
    if "%" in text:
        raise ValueError("a network has no zone id")
    return tuple(ip_network(word.strip()) for word in text.split(",") if word.strip())


def parse_ports(text: str) -> tuple[range, ...]:
    """Return the ports in *text*: numbers and ranges such as ``443,8000-8999``.

    Raises:
        ValueError: one of them is not a port.
    """
    return tuple(_parse_port_range(word.strip()) for word in text.split(",") if word.strip())


def _parse_port_range(word: str) -> range:
    found = _PORTS.fullmatch(word)
    ports = range(int(found[1]), int(found[2] or found[1]) + 1) if found else range(0)
    if not ports or ports.start < 1 or ports.stop > 65536:
        raise ValueError(f"{word!r} is not a port or a range of ports between 1 and 65535")
    return ports
