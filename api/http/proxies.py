"""Whose request is it? The address that connected, unless that is a proxy which the settings trust.

Every limit by address asks here. Three things could make an address up, and none does:

- *A header.* `X-Forwarded-For` counts only where a trusted proxy connected. Each proxy adds whom it saw at the right,
  so it is read from there: the first that is no trusted proxy is the client, and what stands left of it is its own
  invention. Nor is anything believed left of a value that is no address: the request counts as the proxy's then.
- *The server.* uvicorn, unless told otherwise, puts what that header says in place of an address of this machine. Its
  port is 0 then, or stands in the header behind it; such an address is unknown. All that are unknown share one count.
- *The spelling.* An IPv4 address counts the same however it is written; of an IPv6 one its /64, for a client has all
  of that.
"""

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv6Address, ip_address

from starlette.types import Scope

from shared.egress import Address, Network

MAX_HOPS = 16
"""More proxies than this are not looked through."""
_LONGEST = len("[ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255]:65535")


class Proxies:
    """The proxies that are trusted, and what is believed of what they say."""

    def __init__(self, trusted: Sequence[Network]) -> None:
        self._trusted = trusted
        self._known = lru_cache(4096)(self._look)

    def trusts(self, host: str) -> bool:
        """Whether *host*, an address, is a trusted proxy's."""
        return bool(self._trusted) and self._known(host)

    def _look(self, host: str) -> bool:
        address = _address(host.partition("%")[0])
        return address is not None and any(address in network for network in self._trusted)

    def client(self, scope: Scope) -> str:
        """Return what to count the client of a request by; nothing where that is not known."""
        host, port = scope.get("client") or ("", 0)
        hops = _all(scope, b"x-forwarded-for").rsplit(",", MAX_HOPS)[-MAX_HOPS:]
        if not port or any(_says(hop.strip(), host, port) for hop in hops):
            return ""
        while hops and self.trusts(host):
            hop = hops.pop().strip()
            if hop:  # an empty element of a list is none (RFC 9110 section 5.6.1)
                address = _hop(hop)
                if address is None:
                    break
                host = address
        return counted_as(host)

    def over_tls(self, scope: Scope) -> bool:
        """Whether the client's own connection was encrypted, as far as is known."""
        host, _port = scope.get("client") or ("", 0)
        said = _all(scope, b"x-forwarded-proto").rpartition(",")[2].strip().lower()
        return bool(scope["scheme"] == "https" or (said == "https" and self.trusts(host)))


def counted_as(host: str) -> str:
    """Return the name under which limits count *host*, an address."""
    if ":" not in host:
        return host
    address = _address(host.partition("%")[0])
    return f"{IPv6Address(int(address) >> 64 << 64)}/64" if isinstance(address, IPv6Address) else str(address or "")


def _all(scope: Scope, header: bytes) -> str:
    """Return the list that all fields of a name amount to (RFC 9110 section 5.3)."""
    return ",".join([value.decode("latin-1") for name, value in scope["headers"] if name == header])


def _hop(text: str) -> str | None:
    """Return the address in *text*, as proxies write it: with a port or without, IPv6 with brackets or without."""
    host, port = text, "0"
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        port = rest[1:] if rest.startswith(":") else "0" if bracket and not rest else ""
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    well_formed = len(text) <= _LONGEST and port.isascii() and port.isdigit()
    return host if well_formed and _address(host) is not None else None


def _says(hop: str, host: str, port: int) -> bool:
    """Whether *hop* is that address and port, read as leniently as a server may have read it."""
    said, colon, number = hop.rpartition(":")
    try:
        return bool(colon) and said.strip("[]") == host and int(number) == port
    except ValueError:
        return False


def _address(text: str) -> Address | None:
    """Return the address that *text* is, the IPv4 one where an IPv6 one carries it."""
    try:
        address = ip_address(text) if "%" not in text else None
    except ValueError:
        return None
    return address.ipv4_mapped or address if isinstance(address, IPv6Address) else address
