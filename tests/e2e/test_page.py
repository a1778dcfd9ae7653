"""The operations page without a browser: who gets in, what is refused, and that strangers' words stay words."""

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
import requests
from starlette.routing import Route

from api.dashboard.pages import ROUTERS
from tests.conftest import a_submission
from tests.e2e.test_operations import accepted, make_token
from tests.origin import Served
from tests.running import PATIENCE_S, Registry, problem, until

Artifact = Callable[..., tuple[dict[str, str], Served]]


class Browser:
    """Keeps a cookie, and presses buttons as a browser without JavaScript does."""

    def __init__(self, registry: Registry, token: str | None = None) -> None:
        self.registry = registry
        self.session = requests.Session()
        self.session.headers["Accept"] = "text/html"
        self.entered = self.post("sign-in", token=registry.token if token is None else token)

    def get(self, query: str = "", **options: Any) -> requests.Response:
        return self.session.get(f"{self.registry.address}/operations{query}", timeout=PATIENCE_S, **options)

    def look(self, path: str) -> requests.Response:
        """Return any page."""
        return self.session.get(self.registry.address + path, timeout=PATIENCE_S)

    def post(self, path: str, *, headers: dict[str, str] | None = None, **fields: str) -> requests.Response:
        url = f"{self.registry.address}/operations/{path}"
        return self.session.post(url, data=fields, headers=headers, timeout=PATIENCE_S, allow_redirects=False)

    def press(self, what: str) -> requests.Response:
        (proof,) = set(re.findall(r'name="form" value="([0-9a-f]{64})"', self.get().text))
        return self.post("act", form=proof, do=what)


@pytest.fixture
def browser(registry: Registry) -> Browser:
    return Browser(registry)


def rejected(registry: Registry, artifact: Artifact) -> dict[str, Any]:
    return registry.final(accepted(registry, artifact(status=404)[0]))


def test_who_has_not_signed_in_sees_a_form_and_nothing_else(registry: Registry) -> None:
    page = requests.get(f"{registry.address}/operations", timeout=PATIENCE_S)
    assert 'action="/operations/sign-in"' in page.text
    assert "Workers" not in page.text
    problem(requests.get(f"{registry.address}/operations/live", timeout=PATIENCE_S), 401, "unauthorized")
    assert (
        requests.post(f"{registry.address}/operations/act", timeout=PATIENCE_S, allow_redirects=False).status_code
        == 303
    )


@pytest.mark.parametrize("token", ["", "prg_nonsense", "register"])
def test_a_token_that_may_not_read_opens_nothing(registry: Registry, token: str) -> None:
    browser = Browser(registry, make_token(registry, "register") if token == "register" else token)
    assert browser.entered.status_code == 403
    assert "does not open this page" in browser.entered.text
    assert not browser.session.cookies
    assert not token or token not in browser.entered.text


def test_the_session_is_a_cookie_that_scripts_and_other_sites_do_not_get(browser: Browser) -> None:
    cookie = browser.entered.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert "Path=/" in cookie
    assert browser.registry.token not in cookie
    assert "Secure" not in cookie, "over http it would not come back"


def test_the_page_may_load_and_send_nothing_elsewhere(browser: Browser) -> None:
    for path in ("", "/static/pages.js", "/static/pages.css"):
        answer = browser.get(path)
        assert answer.status_code == 200
        headers = answer.headers
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
    page = browser.get().text
    assert not re.findall(r"""(?:src|href|action)="(?!/(?!/)|#|data:,")""", page)
    assert " style=" not in page
    assert not re.findall(r"<script>|<style| on[a-z]+=", page)


def test_a_form_without_the_sessions_proof_changes_nothing(
    browser: Browser, registry: Registry, artifact: Artifact
) -> None:
    old = rejected(registry, artifact)
    other = Browser(registry)
    (proof_of_another,) = set(re.findall(r'name="form" value="([0-9a-f]{64})"', other.get().text))
    for fields in ({}, {"form": ""}, {"form": "0" * 64}, {"form": proof_of_another}):
        assert browser.post("act", do=f"retry:{old['id']}", **fields).status_code == 403
    assert browser.post("sign-out").status_code == 403
    assert registry.get(f"/api/v1/actions?registration={old['id']}").json()["items"] == []


FOREIGN = [{"Sec-Fetch-Site": "cross-site"}, {"Origin": "http://evil.example"}, {"Origin": "null"}]


@pytest.mark.parametrize("said", FOREIGN, ids=str)
def test_no_form_of_another_sites_page_changes_anything(
    registry: Registry, artifact: Artifact, said: dict[str, str]
) -> None:
    old = rejected(registry, artifact)
    browser = Browser(registry)
    (proof,) = set(re.findall(r'name="form" value="([0-9a-f]{64})"', browser.get().text))
    routes = [each for router in ROUTERS for each in router.routes if isinstance(each, Route)]
    posts = [each.path for each in routes if "POST" in (each.methods or ())]
    assert len(posts) >= 3
    for path in posts:
        answer = browser.session.post(
            registry.address + path,
            data={"token": registry.token, "form": proof, "do": f"retry:{old['id']}"},
            headers=said,
            timeout=10,
            allow_redirects=False,
        )
        assert (answer.status_code, answer.headers.get("Set-Cookie")) == (403, None), path
        assert "another site" in answer.text
    assert "sign-out" in browser.get().text, "still signed in"
    assert registry.get(f"/api/v1/actions?registration={old['id']}").json()["items"] == []


def test_a_form_of_our_own_page_is_taken_over_http(registry: Registry, artifact: Artifact) -> None:
    """There a browser sends Origin alone; and with another policy of referrers it would send null."""
    old = rejected(registry, artifact)
    browser = Browser(registry)
    assert browser.entered.headers["Referrer-Policy"] == browser.get().headers["Referrer-Policy"] == "same-origin"
    browser.session.headers["Origin"] = registry.address
    assert browser.post("sign-in", token=registry.token).status_code == 303
    assert browser.press(f"retry:{old['id']}").status_code == 303


def test_a_failure_is_retried_without_javascript(browser: Browser, registry: Registry, artifact: Artifact) -> None:
    old = rejected(registry, artifact)
    until(lambda: _shows(browser, f'value="retry:{old["id"]}"'), what="the failure, and its button")
    done = browser.press(f"retry:{old['id']}")
    assert (done.status_code, done.headers["Location"]) == (303, "/operations?done=retry")
    assert "It is tried again" in browser.get("?done=retry").text
    (action,) = registry.get(f"/api/v1/actions?registration={old['id']}").json()["items"]
    assert action["what"] == "retry"
    asked = browser.press("ask-retry-cause:status-404")
    assert asked.status_code == 200
    assert re.search(r"[1-9][0-9]* failed for status-404 in the last 24 hours", asked.text)
    assert 'value="retry-cause:status-404"' in asked.text
    assert "There is nothing to try again" in browser.press("ask-retry-cause:nonsense").text
    assert browser.press("retry-cause:status-404").status_code == 303
    refused = browser.press(f"cancel:{old['id']}")
    assert refused.status_code == 409
    assert "It is rejected already" in refused.text
    assert browser.press("nonsense:x").status_code == 400


def _shows(browser: Browser, text: str) -> str | None:
    page = browser.get().text
    return page if text in page else None


def test_who_may_only_read_sees_no_buttons_and_presses_none(registry: Registry, artifact: Artifact) -> None:
    old = rejected(registry, artifact)
    reader = Browser(registry, make_token(registry, "read"))
    page = until(lambda: _shows(reader, old["id"]), what="the failure")
    assert 'name="do"' not in page
    assert reader.press(f"retry:{old['id']}").status_code == 403
    assert registry.get(f"/api/v1/actions?registration={old['id']}").json()["items"] == []


def test_a_strangers_words_are_escaped(browser: Browser, registry: Registry) -> None:
    hostile = 'https://evil.invalid/"><script>alert(1)</script>'
    named = a_submission(artifactUrl="https://nowhere.invalid/x")
    registry.final(accepted(registry, named))
    page = browser.look("/registrations?q=" + quote(hostile)).text
    assert "<script>alert" not in page
    assert "&lt;script&gt;" in page
    assert "<i>" not in browser.get("?done=<i>").text


def test_search_finds_by_name_and_by_id(browser: Browser, registry: Registry, artifact: Artifact) -> None:
    submission, _served = artifact()
    found = registry.final(accepted(registry, submission))
    assert found["id"] in browser.look(f"/registrations?q={quote(submission['name'].upper())}").text
    for query, place in ((found["id"], "registrations"), (found["pluginId"], "plugins")):
        answer = browser.look(f"/registrations?q={quote(query)}")
        assert answer.url == f"{registry.address}/{place}/{query}"
        assert answer.status_code == 200
    assert "Nothing is called that" in browser.look("/registrations?q=no-such-name").text


def test_signing_out_and_revoking_end_the_session(registry: Registry) -> None:
    browser = Browser(registry)
    cookie = browser.session.cookies["plugin_registry_session"]
    (proof,) = set(re.findall(r'name="form" value="([0-9a-f]{64})"', browser.get().text))
    assert browser.post("sign-out", form=proof).status_code == 303
    stale = requests.get(
        f"{registry.address}/operations", cookies={"plugin_registry_session": cookie}, timeout=PATIENCE_S
    )
    assert "sign-in" in stale.text
    token = make_token(registry, "read")
    other = Browser(registry, token)
    assert "sign-out" in other.get().text
    with other.get("/live", stream=True, headers={"Accept": "text/event-stream"}) as watching:
        revoked = registry.cli("token", "revoke", token[4:16], "--state", str(registry.state))
        assert revoked.returncode == 0, revoked.stderr
        assert "sign-in" in other.get().text
        assert list(watching.iter_lines()), "what it showed; and it ends by itself"


def test_the_live_stream_carries_what_the_page_shows(browser: Browser) -> None:
    with browser.get("/live", stream=True, headers={"Accept": "text/event-stream"}) as stream:
        assert stream.headers["Content-Type"].startswith("text/event-stream")
        first = next(stream.iter_lines(decode_unicode=True))
    assert first == "event: live"
