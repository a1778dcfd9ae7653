"""No answer of ours repeats what a client sent as `Host`, and no redirect leads anywhere but here."""

import re
from collections.abc import Iterator

import pytest
import requests
from fastapi.routing import APIRoute

from api.dashboard.pages import ROUTERS
from api.routes import alerts, metrics, operations, plugins, registrations, upstreams
from tests.running import Registry, problem

FOREIGN = "evil.example"
ROUTES = [
    *(
        (method, re.sub(r"\{.*?\}", "some", route.path))
        for router in (
            *(each.router for each in (alerts, metrics, operations, plugins, registrations, upstreams)),
            *ROUTERS,
        )
        for route in router.routes
        if isinstance(route, APIRoute)
        for method in sorted(route.methods or ())
    ),
    *(
        ("GET", path)
        for path in (
            *("/healthz", "/readyz", "/docs", "/docs/oauth2-redirect", "/openapi.json", "/nothing-here"),
            *("/static-offline-docs", "/static-offline-docs/swagger-ui.css"),
        )
    ),
]


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        yield session


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_no_answer_repeats_the_host(registry: Registry, session: requests.Session, method: str, path: str) -> None:
    for address in (path, f"{path}/", f"/{path}", f"{path}//", f"{path}?a=1", f"{path}/?a=1", f"//{FOREIGN}{path}/"):
        for token in ("", registry.token):
            headers = {"Host": FOREIGN, "X-Forwarded-Host": FOREIGN, "Accept": "text/html"}
            headers |= {"Authorization": f"Bearer {token}"} if token else {}
            url = registry.address + address
            answer = session.request(method, url, headers=headers, timeout=20, allow_redirects=False)
            assert FOREIGN not in str(answer.headers) + answer.text, address
            assert re.fullmatch(r"/(?!/).*|", answer.headers.get("Location", "")), address


@pytest.mark.parametrize(
    "path", ["/api/v1/plugins/", "/operations/", "/docs/", "/static-offline-docs", "/registrations/"]
)
def test_a_path_that_is_none_of_ours_is_not_found(registry: Registry, path: str) -> None:
    problem(registry.request("GET", path, allow_redirects=False), 404, "not-found")
    assert registry.request("POST", "/api/v1/plugins/", json={}, allow_redirects=False).status_code == 404


@pytest.mark.parametrize("host", ["[", "[::", "a b", "evil.example:99999999", "\xff", "@", "http://"])
def test_a_host_that_is_none_disturbs_nobody(registry: Registry, host: str) -> None:
    for method, path in (("GET", "/operations"), ("POST", "/operations/sign-in"), ("GET", "/operations/live")):
        answer = registry.request(method, path, headers={"Host": host.encode("latin-1"), "Accept": "text/html"})
        assert answer.status_code in {200, 401, 403}
