"""Every page, without a browser: what it shows, to whom, what its buttons ask first, and where they lead back."""

import csv
import html
import re
import subprocess
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
import requests

from api.dashboard.catalogue import ByHand
from api.dashboard.session import back_of
from shared.registration import Plugin, PluginId
from tests.e2e.test_operations import accepted, make_token
from tests.e2e.test_page import Browser, rejected
from tests.origin import Served
from tests.running import PATIENCE_S, Registry, running_registry, until

Artifact = Callable[..., tuple[dict[str, str], Served]]


@pytest.fixture
def browser(registry: Registry) -> Browser:
    return Browser(registry)


def send(browser: Browser, page: str, do: str, **fields: str) -> requests.Response:
    """Press a button of *page*, which has a form of its session; follow where that leads."""
    proofs = set(re.findall(r'name="form" value="([0-9a-f]{64})"', browser.look(page).text))
    (proof,) = proofs
    url = f"{browser.registry.address}/operations/act"
    return browser.session.post(url, data={"form": proof, "do": do, "back": page, **fields}, timeout=PATIENCE_S)


def test_the_catalogue_finds_plugins_by_a_part_of_their_name_and_by_type(
    browser: Browser, registry: Registry, artifact: Artifact
) -> None:
    for name, kind in (("catalogued alpha", "log"), ("catalogued beta", "metric"), ("other", "log")):
        registry.final(accepted(registry, artifact()[0] | {"name": name, "pluginType": kind}))
    by_part = browser.look("/?q=CATALOGUED_").text
    assert "catalogued alpha" in by_part
    assert "catalogued beta" in by_part
    by_name = browser.look("/?q=catalogued&order=name").text
    assert by_name.index("catalogued alpha") < by_name.index("catalogued beta")
    assert by_part.index("catalogued beta") < by_part.index("catalogued alpha"), "the newest first"
    only = browser.look("/?q=catalogued&type=metric").text
    assert "catalogued alpha" not in only
    assert "catalogued beta" in only
    assert "No plugin is like that" in browser.look("/?q=%25").text, "what SQL means by it is not meant"


def test_a_plugins_page_says_how_to_have_and_check_it_by_hand(
    browser: Browser, registry: Registry, artifact: Artifact, tmp_path: Path
) -> None:
    submission, _ = artifact(b"what is checked by hand")
    plugin_id = registry.final(accepted(registry, submission))["pluginId"]
    page = browser.look(f"/plugins/{plugin_id}").text
    for value in registry.get(f"/api/v1/plugins/{plugin_id}").json().values():
        assert value[:19].replace("T", " ") in page or value in page.replace("&#34;", '"'), value
    (copied,) = re.findall(r'data-copy="(curl[^"]*)"', page)
    lines = html.unescape(copied)
    done = subprocess.run(
        ["bash", "-c", lines], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{submission['name'].replace(' ', '-')}-1.0.0.tar.gz: OK\n"
    assert [each.read_bytes() for each in tmp_path.iterdir()] == [b"what is checked by hand"]
    assert "attempt 1" in page
    assert "submitted by made with the state folder" in page


@pytest.mark.parametrize(
    ("url", "file"),
    [
        ("https://a.example/x/.bashrc", "my-plugin-1.0.0.bashrc"),
        ("https://a.example/-", "my-plugin-1.0.0"),
        ("https://a.example/a.tar.gz?x=.sh", "my-plugin-1.0.0.tar.gz"),
        ("https://a.example/a.$(id)", "my-plugin-1.0.0"),
        ("https://a.example/", "my-plugin-1.0.0"),
    ],
)
def test_no_submitter_chooses_which_file_is_overwritten(url: str, file: str) -> None:
    plugin = Plugin.model_construct(
        id=PluginId("plugin-1"),
        name="My Plugin",
        version="1.0.0",
        plugin_type="log",
        artifact_url=url,
        checksum="sha256:" + "0" * 64,
        config_schema="{}",
        plugin_runtime="",
        registered_at=datetime.now(UTC),
    )
    by_hand = ByHand.of(plugin, url)
    assert f" --output {file} " in by_hand.fetch
    assert by_hand.verify.endswith(f"  {file}' | sha256sum --check")


def test_a_registrations_page_shows_both_digests_and_each_attempt(
    browser: Browser, registry: Registry, artifact: Artifact
) -> None:
    submission, _ = artifact(b"served")
    digits = submission["checksum"][-64:]
    declared = "sha256:" + ("0" if digits[0] != "0" else "1") + digits[1:]
    found = registry.final(accepted(registry, submission | {"checksum": declared}))
    page = browser.look(f"/registrations/{found['id']}").text
    assert f"sha256:<mark>{declared[7]}</mark>{digits[1:]}" in page
    assert f"sha256:<mark>{digits[0]}</mark>{digits[1:]}" in page
    assert 'id="attempt-1"' in page
    assert "data-live" not in page, "it has ended"


def test_a_page_that_is_asked_for_by_a_stranger_is_shown_once_they_have_signed_in(
    registry: Registry, artifact: Artifact
) -> None:
    found = rejected(registry, artifact)
    place = f"/registrations/{found['id']}?done=retry"
    session = requests.Session()
    asked = session.get(registry.address + place, timeout=PATIENCE_S)
    assert found["name"] not in asked.text
    assert f'name="back" value="{place}"' in asked.text
    sent = {"token": registry.token, "back": place}
    entered = session.post(f"{registry.address}/operations/sign-in", data=sent, timeout=PATIENCE_S)
    assert entered.url == registry.address + place
    assert found["name"] in entered.text


@pytest.mark.parametrize(
    "back",
    [
        "//evil.example",
        "https://evil.example",
        "/\\evil.example",
        "/?x\r\nSet-Cookie: a",
        "javascript:1",
        "/docs",
        "x",
        "",
    ],
)
def test_no_form_leads_back_to_anywhere_but_a_page_of_ours(back: str) -> None:
    assert back_of({"back": back}) == "/operations"


@pytest.mark.parametrize("back", ["/", "/?q=a%20b", "/registrations?status=failed&host=a%3A1", "/upstreams/a:1"])
def test_a_form_leads_back_to_where_it_was(back: str) -> None:
    assert back_of({"back": back}) == back


def test_many_are_asked_about_with_their_number_before_anything_is_done(
    browser: Browser, registry: Registry, artifact: Artifact
) -> None:
    old = [rejected(registry, artifact) for _ in range(3)]
    page = "/registrations?status=rejected"
    ticked = " ".join(each["id"] for each in old)
    asked = send(browser, page, "ask-retry-many:", id=ticked)
    assert "3 registrations will be tried again" in asked.text
    assert registry.get(f"/api/v1/actions?registration={old[0]['id']}").json()["items"] == []
    done = send(browser, page, "retry-many:", id=ticked)
    assert done.url == f"{registry.address}{page}&done=retry-many"
    for each in old:
        (action,) = registry.get(f"/api/v1/actions?registration={each['id']}").json()["items"]
        assert action["what"] == "retry"
    assert "Tick some registrations first" in send(browser, page, "ask-cancel-many:").text


def test_many_are_canceled(browser: Browser, registry: Registry, artifact: Artifact, gate: threading.Event) -> None:
    held = [accepted(registry, artifact(body=b"x" * 100_000, gate=gate)[0]) for _ in range(2)]
    ticked = " ".join([held[0], "registration-01a22c8e-b220-7388-bf9a-e8d8b3caba28", held[1]])
    assert "3 registrations will be canceled" in send(browser, "/registrations", "ask-cancel-many:", id=ticked).text
    assert "They are canceled" in send(browser, "/registrations", "cancel-many:", id=ticked).text
    assert {registry.get(f"/api/v1/registrations/{each}").json()["status"] for each in held} == {"canceled"}


def test_a_host_is_paused_with_a_word_and_resumed(browser: Browser, registry: Registry, artifact: Artifact) -> None:
    submission, _ = artifact()
    registry.final(accepted(registry, submission))
    host = urlsplit(submission["artifactUrl"]).netloc
    page = f"/upstreams/{quote(host, safe=':')}"
    asked = send(browser, page, f"ask-pause:{host}")
    assert "0 of its registrations are in flight" in asked.text
    try:
        paused = send(browser, page, f"pause:{host}", note="on <fire>")
        assert "on &lt;fire&gt;" in paused.text
        waiting = accepted(registry, artifact()[0])
        assert "It waits until somebody resumes it" in browser.look(f"/registrations/{waiting}").text
        seen = registry.get(f"/api/v1/registrations/{waiting}").json()
        assert (seen["paused"], seen["ahead"], seen["estimatedWaitS"]) == (True, None, None)
        assert [each["host"] for each in registry.get("/api/v1/snapshot").json()["paused"]] == [host]
    finally:
        resumed = send(browser, page, f"resume:{host}")
    assert "It is fetched from again" in resumed.text
    assert registry.final(waiting)["status"] == "registered"
    assert f"{host}</a>: <q>on &lt;fire&gt;</q>" in browser.look("/actions?what=pause").text


def test_an_alert_is_acknowledged_on_the_page(browser: Browser, registry: Registry) -> None:
    asked = send(browser, "/operations", "ask-acknowledge:oldest-too-old")
    assert 'name="hours"' in asked.text
    send(browser, "/operations", "acknowledge:oldest-too-old", hours="4", note="being seen to")
    known = registry.request("POST", "/api/v1/alerts/oldest-too-old/withdraw").json()
    assert known["acknowledged"] is None
    assert "There is no such alert" in send(browser, "/operations", "acknowledge:nonsense").text


def test_actions_are_filtered_and_had_as_csv(browser: Browser, registry: Registry, artifact: Artifact) -> None:
    old = rejected(registry, artifact)
    registry.request("POST", f"/api/v1/registrations/{old['id']}/retry")
    text = browser.look("/actions.csv?what=retry").text
    rows = list(csv.DictReader(text.splitlines()))
    send(browser, "/operations", "acknowledge:downloads-stall", note='=HYPERLINK("x")')
    registry.request("POST", "/api/v1/alerts/downloads-stall/withdraw")
    noted = list(
        csv.DictReader(browser.look("/actions.csv?what=acknowledge&subject=downloads-stall").text.splitlines())
    )
    assert noted[0]["note"] == '\'=HYPERLINK("x")', "no spreadsheet takes it for a formula"
    assert old["id"] in {each["registration"] for each in rows}
    assert {each["what"] for each in rows} == {"retry"}
    assert old["id"] not in browser.look("/actions?what=pause").text
    assert "can match nothing" in browser.look("/actions?what=nonsense").text


def test_filters_leave_what_they_name(browser: Browser, registry: Registry, artifact: Artifact) -> None:
    old = rejected(registry, artifact)
    host = urlsplit(old["artifactUrl"]).netloc
    for query, found in (
        (f"status=rejected&host={quote(host)}", True),
        ("status=canceled", False),
        ("cause=busy", False),
    ):
        assert (old["id"] in browser.look(f"/registrations?{query}").text) is found, query
    assert "can match nothing" in browser.look("/registrations?status=nonsense").text
    newer = rejected(registry, artifact)
    ordered = [browser.look(f"/registrations?status=rejected{more}").text for more in ("", "&order=oldest")]
    assert newer["id"] in ordered[0]
    oldest = re.findall(r'<tr id="found-(registration-[^"]*)"', ordered[1])
    assert oldest == sorted(oldest)


def test_workers_and_upstreams_are_shown(browser: Browser, registry: Registry, artifact: Artifact) -> None:
    until(lambda: "alive" in browser.look("/workers").text, what="a worker")
    submission, _ = artifact()
    registry.final(accepted(registry, submission))
    host = urlsplit(submission["artifactUrl"]).netloc
    until(lambda: host in browser.look("/upstreams").text, what="the host")
    for unknown in ("never-seen.example.com", "exam%00ple", "x" * 300):
        assert browser.look(f"/upstreams/{unknown}").status_code == 404
    missing = browser.look("/registrations/registration-01a22c8e-b220-7388-bf9a-e8d8b3caba28")
    assert (missing.status_code, missing.headers["Content-Type"]) == (404, "text/html; charset=utf-8")


def test_who_may_only_read_finds_no_button_on_any_page(registry: Registry, artifact: Artifact) -> None:
    old = rejected(registry, artifact)
    reader = Browser(registry, make_token(registry, "read"))
    host = urlsplit(old["artifactUrl"]).netloc
    for page in ("/operations", "/registrations", f"/registrations/{old['id']}", f"/upstreams/{host}", "/actions"):
        shown = reader.look(page)
        assert shown.status_code == 200
        assert 'name="do"' not in shown.text, page
    assert send(reader, "/operations", f"retry:{old['id']}").status_code == 403


@pytest.mark.parametrize(
    "page", ["/", "/registrations", "/upstreams", "/workers", "/actions", "/actions.csv", "/tokens", "/webhooks"]
)
def test_no_page_is_shown_to_strangers(registry: Registry, artifact: Artifact, page: str) -> None:
    found = registry.final(accepted(registry, artifact()[0]))
    pages = [page, f"/plugins/{found['pluginId']}", f"/registrations/{found['id']}"] if page == "/" else [page]
    for each in pages:
        text = requests.get(registry.address + each, timeout=PATIENCE_S).text
        assert "Token of scope" in text, each
        assert found["name"] not in text, each


def test_an_open_catalogue_is_read_by_anybody_and_nothing_else_is(tmp_path: Path) -> None:
    with running_registry(tmp_path / "state", env={"REGISTRY_CATALOGUE_OPEN": "true"}) as open_one:
        for page, shown in (("/", True), ("/registrations", False), ("/operations", False), ("/actions.csv", False)):
            text = requests.get(open_one.address + page, timeout=PATIENCE_S).text
            assert ("plugins are registered" in text) is shown, page
            assert ("Token of scope" in text) is not shown, page
        assert requests.get(f"{open_one.address}/api/v1/plugins", timeout=PATIENCE_S).status_code == 401


def test_a_token_is_made_shown_once_and_revoked_on_the_page(browser: Browser, registry: Registry) -> None:
    (proof,) = set(re.findall(r'name="form" value="([0-9a-f]{64})"', browser.look("/tokens").text))
    fields = {
        "form": proof,
        "label": "a <team>",
        "scope": ["register", "read"],
        "names": "team-*\r\nours ?",
        "days": "7",
    }
    made = browser.session.post(f"{registry.address}/tokens", data=fields, timeout=PATIENCE_S)
    (text,) = re.findall(r'<code id="made">(prg_\w+)</code>', made.text)
    assert registry.get("/api/v1/plugins", token=text).status_code == 200
    shown = browser.look("/tokens").text
    assert text not in shown
    assert "a &lt;team&gt;" in shown
    assert "team-*, ours ?" in shown
    token_id = text[4:16]
    assert f"The token {token_id} will be revoked" in send(browser, "/tokens", f"ask-revoke:{token_id}").text
    assert "It is revoked" in send(browser, "/tokens", f"revoke:{token_id}").text
    assert registry.get("/api/v1/plugins", token=text).status_code == 401
    assert token_id not in browser.look("/tokens").text
    assert token_id in browser.look("/tokens?over=1").text
    assert f"create-token {token_id}" in browser.look("/actions?what=create-token").text
    forged = browser.session.post(f"{registry.address}/tokens", data=fields | {"form": "0" * 64}, timeout=PATIENCE_S)
    assert (forged.status_code, "prg_" in forged.text) == (403, False)
    fields["label"] = ""
    refused = browser.session.post(f"{registry.address}/tokens", data=fields, timeout=PATIENCE_S)
    assert (refused.status_code, "Correct label" in refused.text) == (422, True)


def test_a_webhook_is_seen_tried_enabled_and_removed_on_its_page(browser: Browser, registry: Registry) -> None:
    wanted = {"url": "https://hooks.example.invalid/a?key=hunter2", "label": "<bot>"}
    hook = registry.request("POST", "/api/v1/webhooks", json=wanted).json()
    page = f"/webhooks/{hook['id']}"
    listed = browser.look("/webhooks").text
    assert "&lt;bot&gt;" in listed
    assert "hunter2" not in listed
    assert f'href="{page}"' in listed
    assert "A test is sent" in send(browser, page, f"test-webhook:{hook['id']}").text
    (delivery,) = registry.get(f"/api/v1{page}/deliveries").json()["items"]
    until(lambda: "hooks.example.invalid" in browser.look(page).text and "given" not in page, what="the page")
    until(lambda: registry.get(f"/api/v1{page}/deliveries").json()["items"][0]["error"], what="that it failed")
    shown = browser.look(page).text
    assert delivery["id"] in shown
    assert "tried again" in shown
    assert "hunter2" not in shown
    assert "It is tried once more" in send(browser, page, f"redeliver:{hook['id']}:{delivery['id']}").text
    assert "It is told again" in send(browser, page, f"enable-webhook:{hook['id']}").text
    asked = send(browser, page, f"ask-remove-webhook:{hook['id']}").text
    assert "will be told nothing more" in asked
    assert "hunter2" not in asked
    assert "It is forgotten" in send(browser, page, f"remove-webhook:{hook['id']}").text
    assert send(browser, "/webhooks", f"redeliver:{hook['id']}:x").status_code == 404
    reader = Browser(registry, make_token(registry, "read"))
    assert reader.look("/webhooks").status_code == 403
    assert 'href="/webhooks"' not in reader.look("/operations").text


def test_tokens_are_for_whoever_has_scope_admin(registry: Registry) -> None:
    operator = Browser(registry, make_token(registry, "operate", "read"))
    assert operator.look("/tokens").status_code == 403
    assert 'href="/tokens"' not in operator.look("/operations").text
    (proof,) = set(re.findall(r'name="form" value="([0-9a-f]{64})"', operator.look("/operations").text))
    fields = {"form": proof, "label": "mine", "scope": "admin"}
    answer = operator.session.post(f"{registry.address}/tokens", data=fields, timeout=PATIENCE_S)
    assert (answer.status_code, "prg_" in answer.text) == (403, False)
    assert operator.session.post(f"{registry.address}/tokens", data={}, timeout=PATIENCE_S).status_code == 403
    assert send(operator, "/operations", f"revoke:{registry.token[4:16]}").status_code == 403
