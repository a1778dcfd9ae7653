"""Ten situations of somebody on call, with a telephone in the hand: each is over in fewer than five actions.

Each begins with what the pager, a colleague or a ticket says, at the operations page; a ticket at its link. An action
is a tap, or a word that is typed. The faults are real ones of a running registry.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By

from tests.e2e.test_browser import _text, chrome
from tests.e2e.test_operations import accepted, make_token
from tests.origin import Served
from tests.running import Registry, running_registry, until

pytestmark = pytest.mark.browser
__all__ = ["chrome"]  # the fixture

Artifact = Callable[..., tuple[dict[str, str], Served]]
ENOUGH = 5
TELEPHONE = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}


@contextmanager
def told(what: Callable[[], str]) -> Iterator[None]:
    """Have who fails in here say *what* was there instead."""
    try:
        yield
    except AssertionError as error:
        error.add_note(what())
        raise


class Telephone:
    """A browser in which every tap and every word is counted."""

    def __init__(self, chrome: Chrome, registry: Registry) -> None:
        self.chrome = chrome
        self.registry = registry
        self.actions = 0
        chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", TELEPHONE)
        chrome.get(f"{registry.address}/operations")
        chrome.find_element(By.ID, "token").send_keys(registry.token)
        chrome.find_element(By.CSS_SELECTOR, "form button").click()
        until(lambda: not chrome.find_elements(By.ID, "token"), what="that the session is open")

    def begin(self, place: str = "/operations") -> None:
        """Forget what was done, and be at *place*."""
        self.chrome.get(self.registry.address + place)
        self.actions = 0

    def tap(self, what: str, kind: str = "*") -> None:
        """Tap what says *what*, or the element of that id."""
        said = f"//{kind}[normalize-space(text())='{what}'][self::a or self::button]"
        by, value = (By.ID, what[1:]) if what.startswith("#") else (By.XPATH, said)
        until(lambda: self._tapped(by, value), what=what)
        self.actions += 1

    def _tapped(self, by: str, value: str) -> bool:
        """Tap what is there, if it is; the page may put another in its place at any moment."""
        try:
            for found in self.chrome.find_elements(by, value)[:1]:
                box = found.rect
                assert 0 <= box["x"] <= box["x"] + box["width"] <= TELEPHONE["width"], f"{value} is beside the screen"
                self.chrome.execute_script("arguments[0].scrollIntoView({block: 'center'})", found)
                found.click()
                return True
        except StaleElementReferenceException:
            pass
        return False

    def type(self, field: str, word: str) -> None:
        def typed() -> bool:
            for found in self.chrome.find_elements(By.ID, field):
                found.send_keys(word)
                return True
            return False

        until(typed, what=f"the field {field}")
        self.actions += 1

    def sees(self, text: str) -> None:
        shown = "return document.body ? document.body.innerText : ''"
        with told(lambda: str(self.chrome.execute_script(shown))):
            until(lambda: text in self.chrome.execute_script(shown), what=text)

    @property
    def quick(self) -> bool:
        return self.actions < ENOUGH


@pytest.fixture
def telephone(chrome: Chrome, registry: Registry) -> Iterator[Telephone]:
    telephone = Telephone(chrome, registry)
    yield telephone
    assert telephone.quick


def workers(registry: Registry) -> list[dict[str, Any]]:
    """Return those that were heard of, dead or alive."""
    found: list[dict[str, Any]] = registry.get("/api/v1/snapshot").json()["workers"]
    return found


def final(registry: Registry, submission: dict[str, str]) -> dict[str, Any]:
    return registry.final(accepted(registry, submission))


def test_a_team_asks_why_its_plugin_was_rejected(
    telephone: Telephone, registry: Registry, artifact: Artifact
) -> None:
    found = final(registry, artifact(status=404)[0])
    telephone.begin()
    telephone.tap(f"{found['name']} {found['version']}")
    telephone.sees("The artifact's host answered 404")


def test_the_artifact_is_there_by_now(telephone: Telephone, registry: Registry, artifact: Artifact) -> None:
    submission, served = artifact(status=404)
    found = final(registry, submission)
    served.status = 200
    telephone.begin()
    telephone.tap(f"#failures-retry-{found['id']}")
    telephone.sees("It is tried again")


def test_an_upstream_that_failed_is_well_again(telephone: Telephone, registry: Registry, artifact: Artifact) -> None:
    submission, served = artifact(status=503)
    found = final(registry, submission)
    served.status = 200
    telephone.begin()
    telephone.tap("Retry all of status-503")
    telephone.sees("failed for status-503 in the last 24 hours")
    telephone.tap("#asked-retry-cause:status-503")
    telephone.sees("They are tried again")
    page = f"/api/v1/registrations?name={found['name'].replace(' ', '%20')}"
    until(lambda: registry.get(page).json()["items"][0]["status"] == "registered", what="that it is registered")


def test_a_ticket_says_the_checksum_is_right(telephone: Telephone, registry: Registry, artifact: Artifact) -> None:
    found = final(registry, artifact()[0] | {"checksum": "sha256:" + "ab" * 32})
    telephone.begin(f"/registrations/{found['id']}")
    for each in (found["problem"]["declared"], found["problem"]["computed"]):
        telephone.sees(each)
    telephone.tap(urlsplit(found["artifactUrl"]).netloc)
    telephone.sees("Why its artifacts failed")


def test_an_upstream_is_on_fire_and_well_again(telephone: Telephone, registry: Registry, artifact: Artifact) -> None:
    found = final(registry, artifact(status=503)[0])
    host = urlsplit(found["artifactUrl"]).netloc
    telephone.begin(f"/registrations/{found['id']}")
    try:
        telephone.tap(host)
        telephone.tap("Pause")
        telephone.type("note", "on fire")
        telephone.tap(f"Pause {host}")
        telephone.sees("Nothing new is fetched from there")
        assert telephone.quick
        telephone.begin()
        telephone.tap(f"#note-resume-{host}")
        telephone.sees("It is fetched from again")
    finally:
        registry.request("POST", f"/api/v1/upstreams/{host}/resume")  # others fetch from there


def test_a_download_has_stalled(
    telephone: Telephone, registry: Registry, artifact: Artifact, gate: threading.Event
) -> None:
    registration_id = accepted(registry, artifact(body=b"x" * 400_000, gate=gate)[0])
    telephone.begin()
    telephone.sees("stalled for")
    telephone.tap(f"#downloads-cancel-{registration_id}")
    telephone.sees("It is canceled")


def test_many_were_submitted_by_mistake(
    telephone: Telephone, registry: Registry, artifact: Artifact, gate: threading.Event
) -> None:
    held = [accepted(registry, artifact(body=b"x" * 400_000, gate=gate)[0]) for _ in range(2)]
    for each in held:
        where = f"/api/v1/registrations/{each}"
        until(lambda: registry.get(where).json()["status"] == "verifying", what="that it is verified")  # noqa: B023
    telephone.begin("/registrations?status=verifying")
    for each in held:
        telephone.chrome.find_element(By.CSS_SELECTOR, f"input[value='{each}']").click()
        telephone.actions += 1
    telephone.tap("Cancel the chosen")
    telephone.tap("Cancel 2")
    telephone.sees("They are canceled")


def test_workers_are_lost_and_somebody_knows_why(chrome: Chrome, tmp_path: Path) -> None:
    with running_registry(tmp_path / "state", env={"REGISTRY_SWEEP_INTERVAL_S": "0.3"}) as registry:
        for killed in range(1, 3):
            until(lambda: len(workers(registry)) == killed, what="a worker")  # noqa: B023  # it is called at once
            registry.child("worker.main").kill()
        telephone = Telephone(chrome, registry)
        telephone.begin()
        telephone.sees("2 workers went without a word")
        telephone.tap("#alert-ask-acknowledge-workers-lost")
        telephone.type("note", "a larger machine comes")
        telephone.tap("Acknowledge it")
        telephone.sees("Acknowledged by")
        assert telephone.quick
        shown = registry.cli("queue")
        assert "a larger machine comes" in shown.stdout
        assert shown.returncode == 0, "it wakes nobody"


def test_a_token_has_leaked(telephone: Telephone, registry: Registry) -> None:
    leaked = make_token(registry, "read")
    telephone.begin()
    telephone.tap("Tokens")
    telephone.tap(f"#tokens-ask-revoke-{leaked[4:16]}")
    telephone.tap("Revoke it")
    telephone.sees("It is revoked")
    assert registry.get("/api/v1/plugins", token=leaked).status_code == 401


def test_somebody_asks_whether_a_plugin_is_registered_and_with_which_checksum(
    telephone: Telephone, registry: Registry, artifact: Artifact
) -> None:
    submission, _ = artifact()
    final(registry, submission)
    telephone.begin()
    telephone.tap("Catalogue")
    telephone.type("q", submission["name"])
    telephone.tap("Show")
    telephone.tap(submission["name"])
    telephone.sees(submission["checksum"])


def test_somebody_asks_who_did_that(telephone: Telephone, registry: Registry, artifact: Artifact) -> None:
    found = final(registry, artifact(status=404)[0])
    registry.request("POST", f"/api/v1/registrations/{found['id']}/retry")
    telephone.begin(f"/registrations/{found['id']}")
    telephone.sees("made with the state folder: retry")
    assert _text(telephone.chrome, "done")
