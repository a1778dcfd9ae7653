"""The pages in a real browser, against the running registry."""

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from importlib.resources import files
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException
from selenium.webdriver import ActionChains, Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.e2e.test_operations import accepted
from tests.origin import Origin, Served
from tests.running import Registry, until

pytestmark = pytest.mark.browser

Artifact = Callable[..., tuple[dict[str, str], Served]]
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1280,1600",
    "--host-resolver-rules=MAP *.test 127.0.0.1",  # names over http that a browser does not trust as it does loopback
)


@pytest.fixture
def chrome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    options = ChromeOptions()
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.binary_location = str(shutil.which("chromium"))
    options.set_capability("goog:loggingPrefs", {"browser": "WARNING", "performance": "ALL"})
    chrome = Chrome(options, ChromeService(str(shutil.which("chromedriver"))))
    yield chrome
    chrome.quit()


@pytest.fixture
def page(chrome: Chrome, registry: Registry) -> Iterator[Chrome]:
    """The page, signed in; afterwards: no error on its console, and no request to any other host."""
    chrome.get(f"{registry.address}/operations")
    chrome.find_element(By.ID, "token").send_keys(registry.token, Keys.ENTER)
    until(lambda: _text(chrome, "connection") == "Live", what="the live page")
    yield chrome
    assert chrome.get_log("browser") == []  # type: ignore[no-untyped-call]
    elsewhere = [each for each in _requested(chrome) if not each.startswith((registry.address, "data:", "chrome:"))]
    assert elsewhere == []


def _requested(chrome: Chrome) -> Iterator[str]:
    for entry in chrome.get_log("performance"):  # type: ignore[no-untyped-call]
        message: dict[str, Any] = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            yield message["params"]["request"]["url"]


def _text(chrome: Chrome, element_id: str) -> str | None:
    """Return what an element says; None while it is not there, or is being replaced."""
    try:
        return str(chrome.find_element(By.ID, element_id).text)
    except (NoSuchElementException, StaleElementReferenceException):
        return None


def _press(chrome: Chrome, element_id: str) -> None:
    until(lambda: _text(chrome, element_id) is not None, what=f"the button {element_id}")
    chrome.find_element(By.ID, element_id).click()


def _progress(chrome: Chrome, name: str) -> float:
    script = (
        "return document.querySelector(`progress[aria-label='Progress of ${arguments[0]} 1.0.0']`)?.position ?? -1"
    )
    return float(chrome.execute_script(script, name))


def test_a_download_is_seen_to_move_and_is_canceled(
    page: Chrome, registry: Registry, artifact: Artifact, gate: threading.Event
) -> None:
    submission, _served = artifact(body=b"x" * 400_000, gate=gate)
    registration_id = accepted(registry, submission)
    # Half of it, but for a piece that is not full yet.
    until(lambda: 0.3 < _progress(page, submission["name"]) <= 0.5, what="almost half of it")
    assert until(lambda: "stalled" in str(_text(page, "downloads")), what="that it stalled")
    assert "stalled" in str(_text(page, "alerts"))
    _press(page, f"downloads-cancel-{registration_id}")
    until(lambda: _text(page, "said") == "It is canceled.", what="what was done")
    until(lambda: registration_id not in str(_text(page, "downloads")), what="its end")
    assert registry.get(f"/api/v1/registrations/{registration_id}").json()["status"] == "canceled"


def test_a_failure_appears_by_itself_and_is_retried(page: Chrome, registry: Registry, artifact: Artifact) -> None:
    submission, served = artifact(status=404)
    old = registry.final(accepted(registry, submission))
    until(lambda: old["id"] in str(_text(page, "failures")), what="the failure")
    assert "at fault: submitter" in str(_text(page, "failures"))
    served.status = 200
    _press(page, f"failures-retry-{old['id']}")
    until(lambda: "tried again" in str(_text(page, "said")), what="what was done")
    page.find_element(By.ID, "q").send_keys(submission["name"], Keys.ENTER)
    until(lambda: "registered" in str(_text(page, "found")), what="the plugin")
    assert f"again for {old['id']}" in str(_text(page, "found"))


def test_focus_stays_where_it_was_while_rows_come_and_go(
    page: Chrome, registry: Registry, artifact: Artifact, gate: threading.Event
) -> None:
    def download() -> str:
        return accepted(registry, artifact(body=b"x" * 400_000, gate=gate)[0])

    above, focused = download(), download()
    button = f"downloads-cancel-{focused}"
    until(lambda: _text(page, button), what="the button")
    page.execute_script("document.getElementById(arguments[0]).focus()", button)
    below = download()
    until(lambda: below in str(_text(page, "downloads")), what="another download")
    registry.request("POST", f"/api/v1/registrations/{above}/cancel")
    until(lambda: above not in str(_text(page, "downloads")), what="the end of the one above")
    assert page.execute_script("return document.activeElement.id") == button


def test_over_plain_http_one_can_sign_in_act_and_sign_out(
    chrome: Chrome, registry: Registry, artifact: Artifact
) -> None:
    """There a browser sends no Sec-Fetch-Site, and the Origin that the page's policy of referrers allows."""
    old = registry.final(accepted(registry, artifact(status=404)[0]))
    chrome.get(f"http://registry.test:{urlsplit(registry.address).port}/operations")
    chrome.find_element(By.ID, "token").send_keys(registry.token, Keys.ENTER)
    _press(chrome, f"failures-retry-{old['id']}")
    until(lambda: "tried again" in str(_text(chrome, "said")), what="what was done")
    chrome.find_element(By.CSS_SELECTOR, "#sign-out button").click()
    until(lambda: _text(chrome, "token") is not None, what="the form to sign in")


def test_another_sites_page_cannot_sign_a_browser_in(chrome: Chrome, registry: Registry, origin: Origin) -> None:
    port = urlsplit(registry.address).port
    for policy in ("unsafe-url", "no-referrer"):  # the one tells its Origin, the other null
        page = (
            f"<!doctype html><meta name=referrer content={policy}>"
            f"<form method=post action=http://registry.test:{port}/operations/sign-in>"
            f"<input name=token value={registry.token}><button id=go>Go</button></form>"
        )
        trap = origin.serve(Served(page.encode(), headers={"Content-Type": "text/html"}))
        chrome.get(trap.replace("127.0.0.1", "evil.test"))
        _press(chrome, "go")
        until(lambda: "another site" in chrome.page_source, what="the refusal")
        assert chrome.get_cookies() == []


AXE = (files("axe_core_python") / "axe.min.js").read_text()
"""axe-core, by Deque: what of WCAG 2.1 a program can see."""
SIZES = ((390, 844), (768, 1024), (1440, 900))


@pytest.fixture
def places(registry: Registry, artifact: Artifact, gate: threading.Event) -> Iterator[list[str]]:
    """Pages of every kind, with something on each."""
    registered = registry.final(accepted(registry, artifact()[0]))
    wrong = registry.final(accepted(registry, artifact()[0] | {"checksum": "sha256:" + "0" * 64}))
    verifying = accepted(registry, artifact(body=b"x" * 400_000, gate=gate)[0])
    registry.request("POST", f"/api/v1/registrations/{wrong['id']}/retry")
    host = quote(urlsplit(wrong["artifactUrl"]).netloc, safe="")
    url = f"https://hooks.example.com/{'a-long-path/' * 20}"
    hook = registry.request("POST", "/api/v1/webhooks", json={"url": url, "names": ["none of these"]}).json()
    registry.request("POST", f"/api/v1/webhooks/{hook['id']}/test")
    yield [
        *("/", "/operations", "/registrations", "/upstreams", "/workers", "/actions", "/tokens", "/webhooks"),
        f"/webhooks/{hook['id']}",
        *(f"/plugins/{registered['pluginId']}", f"/upstreams/{host}"),
        *(f"/registrations/{each}" for each in (registered["id"], wrong["id"], verifying)),
    ]
    registry.request("POST", f"/api/v1/registrations/{verifying}/cancel")
    registry.request("POST", f"/api/v1/webhooks/{hook['id']}/remove")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_can_be_used_by_everybody_on_every_screen(
    page: Chrome, registry: Registry, places: list[str], scheme: str
) -> None:
    page.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    for width, height in SIZES:
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        for place in places:
            page.get(registry.address + place)
            assert page.execute_script("return document.documentElement.scrollWidth") <= width, (place, width)
            page.execute_script(AXE)
            found = page.execute_async_script("axe.run().then(arguments[arguments.length - 1])")
            said = [(each["id"], [node["html"] for node in each["nodes"]]) for each in found["violations"]]
            assert said == [], (place, width)
            assert found["passes"], place


def test_a_telephone_shows_what_why_and_the_button_of_a_failure(
    page: Chrome, registry: Registry, artifact: Artifact
) -> None:
    old = registry.final(accepted(registry, artifact(status=404)[0]))
    screen = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    page.get(f"{registry.address}/registrations?status=rejected")
    row = page.find_element(By.ID, f"found-{old['id']}")
    assert old["name"] in row.text
    assert "status-404" in row.text
    for each in (row, page.find_element(By.ID, f"found-retry-{old['id']}")):
        box = each.rect
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 390
        assert box["height"] > 30, "a thumb finds it"


def test_what_is_read_and_chosen_stays_where_it_is_while_the_page_changes(
    page: Chrome, registry: Registry, artifact: Artifact
) -> None:
    old = registry.final(accepted(registry, artifact(status=404)[0]))
    row = f"failures-{old['id']}"
    until(lambda: _text(page, row), what="the failure")
    page.set_window_size(1280, 500)  # there is more of the page than of the window
    page.execute_script("document.getElementById(arguments[0]).scrollIntoView({block: 'center'})", row)
    ActionChains(page).move_to_element(page.find_element(By.ID, row)).perform()  # what is under the pointer is read
    where = "return document.getElementById(arguments[0]).getBoundingClientRect().top"
    before = page.execute_script(where, row)
    newer = registry.final(accepted(registry, artifact(status=404)[0]))
    until(lambda: _text(page, f"failures-{newer['id']}"), what="another failure, above it")
    assert abs(page.execute_script(where, row) - before) < 2

    page.execute_script("getSelection().selectAllChildren(document.getElementById(arguments[0]))", row)
    chosen = page.execute_script("return getSelection().toString()")
    assert old["id"] in chosen
    third = registry.final(accepted(registry, artifact(status=404)[0]))
    held = "return waiting !== null && waiting.includes(arguments[0])"
    until(lambda: page.execute_script(held, third["id"]), what="that the page knows of it")
    assert page.execute_script("return getSelection().toString()") == chosen
    assert _text(page, f"failures-{third['id']}") is None, "nothing is moved under what somebody has chosen"
    page.execute_script("getSelection().removeAllRanges()")
    until(lambda: _text(page, f"failures-{third['id']}"), what="the third, afterwards")
    assert abs(page.execute_script(where, row) - before) < 2


def test_an_id_is_copied_with_a_button(page: Chrome, registry: Registry, artifact: Artifact) -> None:
    found = registry.final(accepted(registry, artifact()[0]))
    page.get(f"{registry.address}/registrations?q={quote(found['name'])}")
    page.find_element(By.CSS_SELECTOR, "button.copy").click()
    until(lambda: page.find_element(By.CSS_SELECTOR, "button.copy").text == "Copied", what="that it is said")
    field = page.find_element(By.ID, "cause")
    field.send_keys(Keys.CONTROL, "v")
    assert field.get_attribute("value") == found["id"]


def test_a_registration_is_seen_to_end_on_its_page(
    page: Chrome, registry: Registry, artifact: Artifact, gate: threading.Event
) -> None:
    registration_id = accepted(registry, artifact(body=b"x" * 400_000, gate=gate)[0])
    page.get(f"{registry.address}/registrations/{registration_id}")
    until(lambda: "verifying" in str(_text(page, "outcome")), what="that it is verified")
    gate.set()
    until(lambda: "registered" in str(_text(page, "outcome")), what="its end, by itself")
    until(lambda: "registered" in str(_text(page, "attempts")), what="the attempt")
    until(lambda: _text(page, "connection") == "It has ended.", what="that there is no more to come")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_can_be_read_in_light_and_in_dark(page: Chrome, scheme: str) -> None:
    page.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    script = (
        "const lum = (c) => { const [r, g, b] = c.match(/[\\d.]+/g).map(Number); return (r + g + b) / 765 };"
        "const style = getComputedStyle(document.body);"
        "const probe = document.createElement('div'); probe.className = 'quiet'; document.body.append(probe);"
        "const canvas = document.createElement('div'); canvas.style.color = 'canvas'; document.body.append(canvas);"
        "return [lum(style.color), lum(getComputedStyle(probe).color), lum(getComputedStyle(canvas).color)]"
    )
    text, quiet, ground = page.execute_script(script)
    assert abs(text - ground) > 0.7
    assert abs(quiet - ground) > 0.4
    assert (ground > 0.5) == (scheme == "light")


def test_keyboard_and_screen_readers_find_their_way(page: Chrome) -> None:
    script = """
        const unnamed = [...document.querySelectorAll("button, input:not([type=hidden]), progress, svg")]
            .filter((each) => !(each.textContent.trim() || each.ariaLabel || each.labels?.length))
            .map((each) => each.outerHTML);
        const levels = [...document.querySelectorAll("h1, h2, h3")].map((each) => Number(each.tagName[1]));
        return {unnamed, levels, lang: document.documentElement.lang,
                headless: [...document.querySelectorAll("table")].filter((each) => !each.tHead).length};
    """
    found = page.execute_script(script)
    assert found["unnamed"] == []
    assert found["levels"][0] == 1
    assert set(found["levels"][1:]) == {2}
    assert (found["lang"], found["headless"]) == ("en", 0)
