"""Whose page sent a form: nothing is changed by another site's, signing in included.

A browser says it in `Sec-Fetch-Site` where it trusts the connection (https, loopback), and over http in `Origin`
alone, which every posted form carries (Fetch standard, "append a request Origin header"). What carries neither was
sent by no browser, and so by nobody's page.
"""

from starlette.datastructures import Headers

_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


def from_our_page(headers: Headers) -> bool:
    """Whether no other site's page sent the request that has *headers*."""
    if sites := headers.getlist("Sec-Fetch-Site"):
        return sites in (["same-origin"], ["none"])
    origins, hosts = headers.getlist("Origin"), headers.getlist("Host")
    return not origins or (len(origins) == len(hosts) == 1 and _leads_to(origins[0], hosts[0]))


def _leads_to(origin: str, host: str) -> bool:
    """Whether *origin* is this server, which was asked for as *host*.

    Host and port are compared and no scheme: behind a proxy that ends TLS ours is http while the page's is https.
    """
    scheme, _, place = origin.lower().partition("://")
    port = _DEFAULT_PORTS.get(scheme)
    return port is not None and bool(place) and place.removesuffix(port) == host.lower().removesuffix(port)
