"""Whose page sent a form, by the headers that browsers send."""

import pytest
from starlette.datastructures import Headers

from api.http.origin import from_our_page

HOST = "registry.example:8080"


def ours(*headers: tuple[str, str]) -> bool:
    return from_our_page(Headers(raw=[(name.lower().encode(), value.encode("latin-1")) for name, value in headers]))


@pytest.mark.parametrize(
    ("site", "its_ours"),
    [
        ("same-origin", True),
        ("none", True),
        ("same-site", False),
        ("cross-site", False),
        ("", False),
        ("Same-Origin", False),
        ("same-origin, cross-site", False),
    ],
)
@pytest.mark.parametrize("origin", [None, "http://registry.example:8080", "https://evil.example", "null"])
def test_what_a_browser_says_of_the_site_decides(site: str, its_ours: bool, origin: str | None) -> None:
    """Also where a proxy changed the Host header, so that it does not agree with the Origin."""
    said = [("Host", HOST), ("Sec-Fetch-Site", site)]
    assert ours(*said, *([("Origin", origin)] if origin else [])) is its_ours


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://registry.example:8080", "registry.example:8080"),
        ("http://registry.example", "registry.example"),
        ("https://registry.example", "registry.example"),  # TLS ends at a proxy
        ("https://registry.example", "registry.example:443"),
        ("http://registry.example", "registry.example:80"),
        ("https://registry.example:8443", "registry.example:8443"),
        ("http://REGISTRY.example", "registry.EXAMPLE"),
        ("http://10.1.2.3:8080", "10.1.2.3:8080"),
        ("http://[2001:db8::80]:8080", "[2001:db8::80]:8080"),
        ("http://[2001:db8::80]", "[2001:db8::80]"),
        ("http://registry", "registry"),
        ("http://registry.example.", "registry.example."),
    ],
)
def test_a_form_of_this_server_is_ours_over_http(origin: str, host: str) -> None:
    assert ours(("Host", host), ("Origin", origin))


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "",
        "http://evil.example",
        "http://evil.example:8080",
        "http://registry.example",  # another port of the same host is another server
        "http://registry.example:8081",
        "https://registry.example",
        "http://other.registry.example:8080",
        "http://registry.example:8080.evil.example",
        "http://registry.example:8080/",
        "http://registry.example:8080@evil.example",
        "http://evil.example#registry.example:8080",
        "ftp://registry.example:8080",
        "registry.example:8080",
        "://registry.example:8080",
        "http://",
        "http:registry.example:8080",
        "http://registry.example:8080 http://evil.example",
        "chrome-extension://registry.example:8080",
        "file://",
    ],
)
def test_a_form_of_any_other_page_is_not(origin: str) -> None:
    assert not ours(("Host", HOST), ("Origin", origin))


def test_a_port_is_left_out_for_its_own_scheme_alone() -> None:
    assert not ours(("Host", "registry.example:443"), ("Origin", "http://registry.example"))
    assert not ours(("Host", "registry.example:80"), ("Origin", "https://registry.example"))


def test_what_is_said_twice_or_of_nobody_is_not_ours() -> None:
    origin = ("Origin", f"http://{HOST}")
    assert not ours(("Host", HOST), origin, origin)
    assert not ours(("Host", HOST), origin, ("Origin", "null"))
    assert not ours(("Host", HOST), ("Host", "other"), origin)
    assert not ours(origin)
    assert not ours(("Host", ""), ("Origin", "http://"))
    assert not ours(("Host", HOST), ("Sec-Fetch-Site", "same-origin"), ("Sec-Fetch-Site", "cross-site"))


def test_what_says_neither_was_sent_by_no_browser() -> None:
    assert ours(("Host", HOST))
    assert ours()
