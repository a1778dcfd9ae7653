"""Each row of the contract (design, section 4), asked of the running command."""

import sqlite3
import threading
from collections.abc import Callable
from typing import Any

import pytest
import requests

from tests.conftest import a_submission
from tests.origin import Origin, Served
from tests.running import PATIENCE_S, Registry, problem, until

NINE = {
    "id",
    "name",
    "version",
    "pluginType",
    "artifactUrl",
    "checksum",
    "configSchema",
    "pluginRuntime",
    "registeredAt",
}
REGISTRATION_FIELDS = NINE - {"registeredAt"} | {
    "status",
    "attempts",
    "bytesDownloaded",
    "artifactBytes",
    "createdAt",
    "updatedAt",
    "nextAttemptAt",
    "pluginId",
    "retryOf",
    "retriedAs",
    "paused",
    "ahead",
    "estimatedWaitS",
    "problem",
}
Artifact = Callable[..., tuple[dict[str, str], Served]]


# --- verified within the wait -------------------------------------------------------------------


def test_a_verified_plugin_is_answered_with_its_nine_fields(registry: Registry, artifact: Artifact) -> None:
    submission, _ = artifact()
    submission |= {"configSchema": '{"type":"object"}', "pluginRuntime": "go"}
    response = registry.register(submission)
    assert response.status_code == 200
    plugin = response.json()
    assert set(plugin) == NINE
    assert all(isinstance(value, str) for value in plugin.values())
    assert {key: plugin[key] for key in submission} == submission
    assert plugin["id"].startswith("plugin-")
    assert plugin["registeredAt"].endswith("Z")
    assert response.headers["Location"] == f"/api/v1/plugins/{plugin['id']}"
    assert registry.get(response.headers["Location"]).json() == plugin


def test_the_documented_curl_line_answers_200(registry: Registry, artifact: Artifact) -> None:
    served, _ = artifact()
    body = (
        '{"name":"nginx-log-collector","version":"2.1.0","pluginType":"log",'
        f'"artifactUrl":"{served["artifactUrl"]}","checksum":"{served["checksum"]}",'
        '"configSchema":"{}","pluginRuntime":"go"}'
    )
    response = requests.post(
        f"{registry.address}/api/v1/plugins",
        headers={"Authorization": f"Bearer {registry.token}", "Content-Type": "application/json"},
        data=body,
        timeout=PATIENCE_S,
    )
    assert response.status_code == 200
    assert set(response.json()) == NINE


def test_a_checksum_in_upper_case_is_kept_in_lower_case(registry: Registry, artifact: Artifact) -> None:
    submission, _ = artifact()
    shouted = submission | {"checksum": "SHA256:" + submission["checksum"][7:].upper()}
    assert registry.register(shouted).json()["checksum"] == submission["checksum"]


# --- the wait ran out, or was not wanted --------------------------------------------------------


def test_respond_async_is_answered_at_once_with_the_registration(
    registry: Registry, artifact: Artifact, gate: threading.Event
) -> None:
    submission, _ = artifact(gate=gate)
    response = registry.register(submission, prefer="respond-async")
    assert response.status_code == 202
    assert response.headers["Preference-Applied"] == "respond-async"
    assert int(response.headers["Retry-After"]) > 0
    registration = response.json()
    assert response.headers["Location"] == f"/api/v1/registrations/{registration['id']}"
    assert registration["status"] == "queued"
    assert {key: registration[key] for key in submission} == submission
    assert set(registration) == REGISTRATION_FIELDS
    assert registry.get(f"/api/v1/plugins?name={submission['name']}").json()["items"] == []
    gate.set()
    ended = registry.final(registration["id"])
    assert ended["status"] == "registered"
    assert registry.get(f"/api/v1/plugins/{ended['pluginId']}").json()["checksum"] == submission["checksum"]


def test_a_wait_that_runs_out_is_answered_202_and_the_work_goes_on(
    registry: Registry, artifact: Artifact, gate: threading.Event
) -> None:
    submission, _ = artifact(gate=gate)
    response = registry.register(submission, prefer="wait=1")
    assert response.status_code == 202
    assert response.headers["Preference-Applied"] == "wait=1"
    assert 0.9 < response.elapsed.total_seconds() < 30, "not the 60 s of the setting"
    gate.set()
    assert registry.final(response.json()["id"])["status"] == "registered"


def test_a_registration_can_be_waited_for(registry: Registry, artifact: Artifact, gate: threading.Event) -> None:
    submission, _ = artifact(gate=gate)
    registration = registry.register(submission, prefer="respond-async").json()
    threading.Timer(0.5, gate.set).start()
    waited = registry.get(f"/api/v1/registrations/{registration['id']}", headers={"Prefer": "wait=60"})
    assert waited.json()["status"] == "registered"


def test_progress_is_told_while_a_download_runs(
    registry: Registry, artifact: Artifact, gate: threading.Event
) -> None:
    submission, served = artifact(body=b"x" * 300_000, gate=gate)
    registration = registry.register(submission, prefer="respond-async").json()
    where = f"/api/v1/registrations/{registration['id']}"
    moving = until(lambda: (found := registry.get(where).json())["bytesDownloaded"] and found, what="progress")
    assert moving["status"] == "verifying"
    assert 0 < moving["bytesDownloaded"] < moving["artifactBytes"] == len(served.body)


# --- identical, joining, conflict ---------------------------------------------------------------


def test_the_same_submission_again_returns_the_plugin_and_downloads_nothing(
    registry: Registry, artifact: Artifact
) -> None:
    submission, served = artifact()
    first = registry.register(submission)
    again = registry.register(submission)
    assert (again.status_code, again.json()) == (200, first.json())
    assert registry.register(submission, prefer="respond-async").json() == first.json()
    assert len(served.requests) == 1


def test_the_same_submission_in_flight_is_joined(
    registry: Registry, artifact: Artifact, gate: threading.Event
) -> None:
    submission, served = artifact(gate=gate)
    first = registry.register(submission, prefer="respond-async").json()
    second = registry.register(submission, prefer="respond-async")
    assert (second.status_code, second.json()["id"]) == (202, first["id"])
    gate.set()
    third = registry.register(submission)
    assert third.status_code == 200
    assert len(served.requests) == 1


def test_other_content_under_a_registered_name_is_a_conflict(registry: Registry, artifact: Artifact) -> None:
    submission, _ = artifact()
    plugin = registry.register(submission).json()
    other, served = artifact()
    other |= {"name": submission["name"].upper().replace(" ", "_")}
    found = problem(registry.register(other), 409, "conflict")
    assert (found["pluginId"], found["checksum"]) == (plugin["id"], plugin["checksum"])
    assert served.requests == []


def test_of_two_contents_in_flight_one_gets_the_name(
    registry: Registry, artifact: Artifact, gate: threading.Event
) -> None:
    slow, _ = artifact(gate=gate)
    quick, _ = artifact()
    quick |= {"name": slow["name"]}
    registration = registry.register(slow, prefer="respond-async").json()
    plugin = registry.register(quick).json()
    gate.set()
    ended = registry.final(registration["id"])
    assert ended["status"] == "rejected"
    assert ended["problem"]["code"] == "conflict"
    assert ended["problem"]["pluginId"] == plugin["id"]


# --- the artifact is at fault -------------------------------------------------------------------


def test_a_tampered_artifact_is_refused_with_both_digests(registry: Registry, artifact: Artifact) -> None:
    submission, served = artifact()
    declared = "sha256:" + "0" * 64
    found = problem(registry.register(submission | {"checksum": declared}), 422, "digest-mismatch")
    assert (found["declared"], found["computed"]) == (declared, served.checksum)
    assert (found["fault"], found["retryable"]) == ("submitter", False)
    ended = registry.get(found["instance"]).json()
    assert (ended["status"], ended["problem"]) == ("rejected", found)
    assert registry.get(f"/api/v1/plugins?name={submission['name']}").json()["items"] == []
    assert registry.register(submission).status_code == 200, "a failed registration frees its name"


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_an_artifact_that_is_not_there_is_refused_at_once(
    registry: Registry, artifact: Artifact, status: int
) -> None:
    submission, served = artifact(status=status)
    problem(registry.register(submission), 422, "artifact-missing")
    assert len(served.requests) == 1


@pytest.mark.parametrize("announced", [True, False])
def test_an_artifact_over_the_limit_is_refused(registry: Registry, artifact: Artifact, announced: bool) -> None:
    body = b"x" * (2**20 + 1)

    def unannounced(handler: Any) -> None:
        handler.send_response(200)
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.wfile.write(body)
        handler.close_connection = True

    submission, _ = artifact(body=body, handle=None if announced else unannounced)
    problem(registry.register(submission), 422, "artifact-too-large")


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("https://127.0.0.2/a", "forbidden-address"),
        ("https://169.254.169.254/latest/meta-data/", "forbidden-address"),
        ("https://[::1]/a", "forbidden-address"),
        ("https://0x7f.1/a", "forbidden-address"),
        ("https://localhost/a", "forbidden-url"),
        ("https://user:secret@example.com/a", "forbidden-url"),
        ("ftp://example.com/a", "forbidden-url"),
        ("https://example.com:22/a", "forbidden-url"),
    ],
)
def test_a_forbidden_url_is_refused_at_submission(registry: Registry, url: str, code: str) -> None:
    found = problem(registry.register(a_submission(artifactUrl=url)), 422, code)
    assert "secret" not in str(found)
    assert "instance" not in found, "nothing was accepted"


def test_a_redirect_to_a_forbidden_address_is_refused(registry: Registry, artifact: Artifact) -> None:
    submission, _ = artifact(status=302, headers={"Location": "http://127.0.0.9/secret"})
    found = problem(registry.register(submission), 422, "bad-redirect")  # its port is 80, which is not open either
    assert found["fault"] == "upstream"


def test_a_redirect_to_an_artifact_is_followed(registry: Registry, artifact: Artifact, origin: Origin) -> None:
    submission, _ = artifact()
    behind = submission["artifactUrl"].removeprefix(origin.url)
    hop, _ = artifact(status=302, headers={"Location": behind})
    response = registry.register(submission | {"artifactUrl": hop["artifactUrl"]})
    assert response.status_code == 200
    assert response.json()["artifactUrl"] == hop["artifactUrl"]


# --- upstream kept failing ----------------------------------------------------------------------


def test_an_upstream_that_keeps_failing_is_502_and_retryable(registry: Registry, artifact: Artifact) -> None:
    submission, served = artifact(status=503)
    found = problem(registry.register(submission), 502, "upstream-busy")
    assert (found["fault"], found["retryable"]) == ("upstream", True)
    assert len(served.requests) == 2
    assert registry.get(found["instance"]).json()["status"] == "failed"


def test_an_upstream_that_recovers_is_registered(registry: Registry, artifact: Artifact) -> None:
    submission, served = artifact()

    def recover(handler: Any) -> None:
        handler.send_response(503 if len(served.requests) == 1 else 200)
        handler.send_header("Content-Length", str(len(served.body)))
        handler.end_headers()
        handler.wfile.write(served.body)

    served.handle = recover
    registration = registry.register(submission, prefer="respond-async").json()
    ended = registry.final(registration["id"])
    assert (ended["status"], ended["attempts"], ended["problem"]) == ("registered", 2, None)


# --- the request is at fault --------------------------------------------------------------------


@pytest.mark.parametrize(
    "body", [b"", b"{", b"nonsense", b'{"name": NaN}', b'{"name":"a","name":"b"}', b"\xff\xfe", b"[" * 60_000]
)
def test_malformed_json_is_400(registry: Registry, body: bytes) -> None:
    response = registry.request("POST", "/api/v1/plugins", data=body, headers={"Content-Type": "application/json"})
    problem(response, 400, "malformed-json")


def test_all_bad_fields_are_listed_at_once(registry: Registry) -> None:
    body = {
        "name": "-x-",
        "version": "v1",
        "pluginType": "logs",
        "checksum": "sha256:abc123def456",
        "configSchema": "{",
        "extra": 1,
    }
    found = problem(registry.register(body), 422, "invalid-fields")
    assert {each["pointer"] for each in found["errors"]} == {
        "#/name",
        "#/version",
        "#/pluginType",
        "#/artifactUrl",
        "#/checksum",
        "#/configSchema",
        "#/extra",
    }
    assert "12 hex digits" in next(each["detail"] for each in found["errors"] if each["pointer"] == "#/checksum")


@pytest.mark.parametrize("body", [[], "text", 1, None])
def test_json_that_is_no_object_is_422(registry: Registry, body: object) -> None:
    found = problem(registry.request("POST", "/api/v1/plugins", json=body or [], headers={}), 422, "invalid-fields")
    assert found["errors"] == [{"pointer": "#", "detail": "must be a JSON object"}]


def test_a_body_that_is_too_large_is_413_announced_or_not(registry: Registry) -> None:
    def chunks() -> Any:
        yield b'{"name": "'
        for _ in range(100):
            yield b"x" * 1000
        yield b'"}'

    for data in (b" " * 70_000, chunks()):
        response = registry.request(
            "POST", "/api/v1/plugins", data=data, headers={"Content-Type": "application/json"}
        )
        problem(response, 413, "body-too-large")


@pytest.mark.parametrize(
    "media_type", ["text/plain", "application/x-www-form-urlencoded", "", "application/json; charset=latin-1"]
)
def test_a_body_that_is_not_json_is_415(registry: Registry, media_type: str) -> None:
    response = registry.request("POST", "/api/v1/plugins", data=b"{}", headers={"Content-Type": media_type})
    problem(response, 415, "unsupported-media-type")


@pytest.mark.parametrize("path", ["plugins", "registrations"])
def test_a_query_parameter_given_twice_is_refused(registry: Registry, path: str) -> None:
    document = problem(registry.get(f"/api/v1/{path}?name=one&name=two"), 422, "invalid-fields")
    assert document["errors"] == [{"parameter": "name", "detail": "must be given once"}]


def test_an_unknown_query_parameter_is_refused(registry: Registry) -> None:
    for path in ("/api/v1/plugins?nmae=x", "/api/v1/registrations?limit=0", "/api/v1/plugins?cursor=%21"):
        problem(registry.get(path), 422, "invalid-fields")
    response = registry.register(a_submission(), params={"dryrun": "true"})
    assert problem(response, 422, "invalid-fields")["errors"][0]["parameter"] == "dryrun"


def test_what_is_not_there_is_404_and_a_wrong_method_405(registry: Registry) -> None:
    problem(registry.get("/api/v1/plugins/plugin-none"), 404, "not-found")
    problem(registry.get("/api/v1/registrations/registration-none"), 404, "not-found")
    problem(registry.get("/nowhere"), 404, "not-found")
    assert "GET" in registry.request("DELETE", "/api/v1/plugins/plugin-none").headers["Allow"]


# --- tokens -------------------------------------------------------------------------------------


def make_token(registry: Registry, *options: str) -> str:
    made = registry.cli("token", "create", "--state", str(registry.state), *options)
    assert made.returncode == 0, made.stderr
    return made.stdout.strip()


def test_every_bad_token_is_told_the_same(registry: Registry) -> None:
    revoked = make_token(registry, "--scope", "register")
    assert registry.cli("token", "revoke", revoked[4:16], "--state", str(registry.state)).returncode == 0
    expired = make_token(registry, "--scope", "register", "--expires-in", "1s")
    unknown = make_token(registry, "--scope", "register")
    with sqlite3.connect(registry.state / "registry.db") as connection:
        connection.execute("DELETE FROM tokens WHERE id = ?", (unknown[4:16],))
        connection.execute("UPDATE tokens SET expires_at = created_at - 1 WHERE id = ?", (expired[4:16],))
    connection.close()
    mistyped = registry.token[:-7] + ("a" if registry.token[-7] != "a" else "b") + registry.token[-6:]
    answers = [
        requests.post(f"{registry.address}/api/v1/plugins", json=a_submission(), timeout=PATIENCE_S, headers=headers)
        for headers in (
            {},
            {"Authorization": "Bearer"},
            {"Authorization": f"Basic {registry.token}"},
            *({"Authorization": f"Bearer {token}"} for token in ("nonsense", mistyped, revoked, expired, unknown)),
        )
    ]
    for answer in answers:
        problem(answer, 401, "unauthorized")
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
        assert answer.json() == answers[0].json()
        assert answer.headers["WWW-Authenticate"] == answers[0].headers["WWW-Authenticate"]


def test_a_revoked_token_is_refused_from_then_on(registry: Registry) -> None:
    token = make_token(registry, "--scope", "read")
    assert registry.get("/api/v1/plugins", token=token).status_code == 200
    registry.cli("token", "revoke", token[4:16], "--state", str(registry.state))
    problem(registry.get("/api/v1/plugins", token=token), 401, "unauthorized")


def test_a_scope_allows_what_it_says(registry: Registry, artifact: Artifact) -> None:
    submission, _ = artifact()
    reader, registrar = make_token(registry, "--scope", "read"), make_token(registry, "--scope", "register")
    refused = registry.register(submission, token=reader)
    problem(refused, 403, "forbidden")
    assert 'scope="register"' in refused.headers["WWW-Authenticate"]
    problem(registry.get("/api/v1/plugins", token=registrar), 403, "forbidden")
    accepted = registry.register(submission, token=registrar)
    assert accepted.status_code == 200
    assert registry.get(accepted.headers["Location"], token=registrar).status_code == 200
    assert registry.get(accepted.headers["Location"], token=reader).status_code == 200


def test_a_token_for_some_names_registers_no_other(registry: Registry, artifact: Artifact) -> None:
    token = make_token(registry, "--scope", "register", "--names", "nginx-*")
    submission, _ = artifact()
    problem(registry.register(submission, token=token), 403, "forbidden")
    assert registry.register(submission | {"name": "Nginx access log"}, token=token).status_code == 200


def test_only_a_hash_of_a_token_is_kept(registry: Registry) -> None:
    token = make_token(registry, "--scope", "read")
    for file in registry.state.glob("registry.db*"):
        assert token[16:56].encode() not in file.read_bytes()
        assert token.encode() not in file.read_bytes()


# --- lists, dry run, health ---------------------------------------------------------------------


def test_lists_are_paged_by_cursor_and_filtered(registry: Registry, artifact: Artifact) -> None:
    name = "Paged over HTTP"
    made = []
    for patch in range(5):
        submission, _ = artifact()
        made.append(registry.register(submission | {"name": name, "version": f"1.0.{patch}"}).json())
    for kind in ("plugins", "registrations"):
        seen: list[str] = []
        cursor = ""
        while True:
            page = registry.get(f"/api/v1/{kind}?name=paged_OVER-http&limit=2{cursor}").json()
            assert set(page) == {"items", "nextCursor"}
            assert len(page["items"]) <= 2
            seen += [each["version"] for each in page["items"]]
            if page["nextCursor"] is None:
                break
            cursor = f"&cursor={page['nextCursor']}"
        assert seen == [f"1.0.{patch}" for patch in reversed(range(5))]
    by_checksum = registry.get(f"/api/v1/plugins?checksum={made[2]['checksum'].upper()}").json()["items"]
    assert by_checksum == [made[2]]
    assert registry.get("/api/v1/plugins?pluginType=trace").json()["items"] == []
    assert registry.get("/api/v1/registrations?status=registered&name=Paged over HTTP").json()["items"]


def test_a_dry_run_says_what_would_be_refused_and_changes_nothing(registry: Registry, artifact: Artifact) -> None:
    submission, served = artifact()
    dry: dict[str, Any] = {"params": {"dryRun": "true"}}
    assert registry.register(submission, **dry).status_code == 204
    assert served.requests == []
    assert registry.get(f"/api/v1/registrations?name={submission['name']}").json()["items"] == []
    problem(registry.register(submission | {"version": "x"}, **dry), 422, "invalid-fields")
    problem(registry.register(submission | {"artifactUrl": "https://10.0.0.1/"}, **dry), 422, "forbidden-address")
    problem(registry.register(submission, token="none", **dry), 401, "unauthorized")
    plugin = registry.register(submission).json()
    assert registry.register(submission, **dry).json() == plugin
    problem(registry.register(submission | {"pluginRuntime": "other"}, **dry), 409, "conflict")


def test_health_needs_no_token(registry: Registry) -> None:
    for path in ("/healthz", "/readyz"):
        assert requests.get(registry.address + path, timeout=PATIENCE_S).status_code == 200


# --- the store or the broker is away ------------------------------------------------------------


def test_a_store_that_cannot_take_it_is_503_and_nothing_is_lost_later(registry: Registry, artifact: Artifact) -> None:
    submission, _ = artifact()
    locker = sqlite3.connect(registry.state / "registry.db", isolation_level=None)
    locker.execute("BEGIN IMMEDIATE")
    refused = registry.register(submission)
    locker.execute("ROLLBACK")
    locker.close()
    found = problem(refused, 503, "store-unavailable")
    assert (found["fault"], found["retryable"]) == ("registry", True)
    assert int(refused.headers["Retry-After"]) > 0
    assert registry.get(f"/api/v1/registrations?name={submission['name']}").json()["items"] == []
    assert registry.register(submission).status_code == 200


def test_a_broker_that_is_away_does_not_change_the_answer(registry: Registry, artifact: Artifact) -> None:
    submission, _ = artifact()
    broker = registry.child("valkey-server")
    broker.suspend()
    try:
        response = registry.register(submission, prefer="respond-async")
    finally:
        broker.resume()
    assert response.status_code == 202
    assert response.elapsed.total_seconds() < 4, "whoever waits for the broker waits for 5 s"
    assert registry.final(response.json()["id"])["status"] == "registered"


def test_a_lost_broker_loses_nothing(registry: Registry, artifact: Artifact) -> None:
    registry.child("valkey-server").kill()
    submissions = [artifact()[0] for _ in range(5)]
    accepted = [registry.register(each, prefer="respond-async") for each in submissions]
    assert [each.status_code for each in accepted] == [202] * 5
    for each in accepted:
        assert registry.final(each.json()["id"])["status"] == "registered"


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("plugins?version=1.0.0+a", "%2B"),
        ("plugins?version=v1.0.0", "no leading 'v'"),
        ("plugins?checksum=" + "ab" * 32, "sha256:" + "ab" * 32),
        ("plugins?checksum=sha256:abc", "3 hex digits"),
        ("plugins?name=a/b", "matches nothing"),
        ("registrations?version=1.0", "matches nothing"),
        ("registrations?name=-", "matches nothing"),
        ("registrations?cause=Status 404", "one word"),
        ("actions?registration=plugin-1", "not the id"),
    ],
)
def test_a_filter_that_can_match_nothing_is_refused(registry: Registry, query: str, told: str) -> None:
    found = problem(registry.get(f"/api/v1/{query}"), 422, "invalid-fields")
    assert told in found["errors"][0]["detail"]


def test_a_filter_that_is_spelled_as_told_finds(registry: Registry, artifact: Artifact) -> None:
    submission, _ = artifact()
    submission["version"] = "1.0.0+a.b"
    assert registry.register(submission).status_code == 200
    for query in ("version=1.0.0%2Ba.b", f"checksum={submission['checksum'].upper().replace('SHA256', 'sha256')}"):
        items = registry.get(f"/api/v1/plugins?{query}&name={submission['name']}").json()["items"]
        assert [each["name"] for each in items] == [submission["name"]]
