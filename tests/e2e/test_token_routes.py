"""Tokens over the API and, by the command line, from afar: who may make, see and revoke them, and what is told."""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import requests

from shared.store.database import open_database
from shared.store.tokens import MAX_LIFETIME_S, MAX_PATTERNS, Tokens
from tests.e2e.test_operations import make_token
from tests.running import PATIENCE_S, Registry, problem, running_api

TOKENS = "/api/v1/tokens"
FIELDS = {"id", "label", "scopes", "names", "createdAt", "expiresAt", "revokedAt"}
ROUTES = (("POST", TOKENS), ("GET", TOKENS), ("POST", f"{TOKENS}/{'a' * 12}/revoke"))


def create(registry: Registry, **wanted: Any) -> dict[str, Any]:
    answer = registry.request("POST", TOKENS, json={"label": "ci", "scopes": ["read"], **wanted})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def listed(registry: Registry) -> dict[str, dict[str, Any]]:
    return {each["id"]: each for each in registry.get(TOKENS).json()["items"]}


def recorded(registry: Registry, token_id: str) -> list[tuple[str, str, str]]:
    items = registry.get("/api/v1/actions", params={"subject": token_id}).json()["items"]
    return [(each["what"], each["by"], each["note"]) for each in items]


# --- making one ---------------------------------------------------------------------------------


def test_a_token_is_made_shown_once_and_good_for_what_it_says(registry: Registry) -> None:
    answer = registry.request("POST", TOKENS, json={"label": "team a", "scopes": ["register", "read"]})
    assert (answer.status_code, answer.headers["Cache-Control"]) == (201, "no-store")
    made = answer.json()
    assert set(made) == FIELDS | {"token"}
    assert (made["label"], made["scopes"], made["names"]) == ("team a", ["read", "register"], [])
    assert (made["expiresAt"], made["revokedAt"]) == (None, None)
    assert registry.get("/api/v1/plugins", token=made["token"]).status_code == 200
    problem(registry.request("POST", "/api/v1/registrations/x/cancel", token=made["token"]), 403, "forbidden")
    again = registry.get(TOKENS)
    assert made["token"][16:] not in again.text
    assert again.json()["items"][-1] == {key: made[key] for key in FIELDS}
    assert recorded(registry, made["id"]) == [("create-token", "made with the state folder", "team a")]


def test_a_token_is_limited_in_names_and_in_time(registry: Registry) -> None:
    made = create(registry, names=["nginx-*", "apache"], expiresInS=3600)
    assert made["names"] == ["nginx-*", "apache"]
    assert made["createdAt"][:10] <= made["expiresAt"][:10]
    assert made["createdAt"] < made["expiresAt"]
    problem(registry.get("/api/v1/snapshot", token=made["token"]), 403, "forbidden")
    assert create(registry, expiresInS=float(MAX_LIFETIME_S))["expiresAt"] > "4000", "a whole number is an integer"


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({}, {"#/label", "#/scopes"}),
        ([], {"#"}),
        ({"label": "", "scopes": []}, {"#/label", "#/scopes"}),
        ({"label": "ci\u202e", "scopes": ["root"], "names": ["[a]"], "expiresInS": 0, "more": 1}, None),
        ({"label": "x" * 201, "scopes": ["read"]}, {"#/label"}),
        ({"label": "\ud800", "scopes": ["read"]}, {"#/label"}),
        ({"label": 7, "scopes": "read"}, {"#/label", "#/scopes"}),
        ({"label": "ci", "scopes": ["read", "read"]}, {"#/scopes"}),
        ({"label": "ci", "scopes": ["read"], "names": []}, {"#/names"}),
        ({"label": "ci", "scopes": ["read"], "names": None}, {"#/names"}),
        ({"label": "ci", "scopes": ["read"], "names": ["ok", "a\nb", ""]}, {"#/names/1", "#/names/2"}),
        ({"label": "ci", "scopes": ["read"], "names": ["x" * 101]}, {"#/names/0"}),
        ({"label": "ci", "scopes": ["read"], "names": ["x"] * (MAX_PATTERNS + 1)}, {"#/names"}),
        ({"label": "ci", "scopes": ["read"], "expiresInS": MAX_LIFETIME_S + 1}, {"#/expiresInS"}),
        ({"label": "ci", "scopes": ["read"], "expiresInS": True}, {"#/expiresInS"}),
        ({"label": "ci", "scopes": ["read"], "expiresInS": 1.5}, {"#/expiresInS"}),
        ({"label": "ci", "scopes": ["read"], "expiresInS": "60"}, {"#/expiresInS"}),
        ({"label": "ci", "scopes": ["read"], "expires_in_s": 60}, {"#/expires_in_s"}),
    ],
)
def test_every_bad_field_is_named_and_no_token_made(registry: Registry, body: Any, pointers: set[str] | None) -> None:
    before = listed(registry)
    found = problem(registry.request("POST", TOKENS, json=body), 422, "invalid-fields")
    told = {each["pointer"]: each["detail"] for each in found["errors"]}
    assert set(told) == (pointers or {"#/label", "#/scopes/0", "#/names/0", "#/expiresInS", "#/more"})
    if pointers is None:
        assert "U+202E (RIGHT-TO-LEFT OVERRIDE)" in told["#/label"]
        assert told["#/more"] == "is not a field of a token"
    assert listed(registry) == before


@pytest.mark.parametrize(
    ("body", "kind", "status", "code"),
    [
        (b'{"label": "ci", "label": "x", "scopes": ["read"]}', "application/json", 400, "malformed-json"),
        (b'{"label": "ci", "scopes": ["read"]}', "text/plain", 415, "unsupported-media-type"),
        (b'{"label": "' + b"x" * 70_000 + b'", "scopes": ["read"]}', "application/json", 413, "body-too-large"),
        (b'{"label": "' + b"x" * 60_000 + b'", "scopes": ["read"]}', "application/json", 422, "invalid-fields"),
    ],
)
def test_a_body_is_held_to_what_a_submissions_is(
    registry: Registry, body: bytes, kind: str, status: int, code: str
) -> None:
    problem(registry.request("POST", TOKENS, data=body, headers={"Content-Type": kind}), status, code)


# --- revoking one -------------------------------------------------------------------------------


def test_a_token_is_revoked_at_once_and_for_good(registry: Registry) -> None:
    made = create(registry, label="to be revoked")
    answers = [registry.request("POST", f"{TOKENS}/{made['id']}/revoke") for _ in range(2)]
    problem(registry.get("/api/v1/plugins", token=made["token"]), 401, "unauthorized")
    assert [each.status_code for each in answers] == [200, 200], "twice does no harm"
    assert answers[0].json() == answers[1].json() == listed(registry)[made["id"]]
    assert answers[0].json()["revokedAt"] >= made["createdAt"]
    assert [what for what, _by, _note in recorded(registry, made["id"])] == ["revoke-token", "create-token"]


@pytest.mark.parametrize("token_id", ["a" * 12, "nobody", "a" * 12 + "%00", "a%2Fb", "%F0%9F%92%A9"])
def test_a_token_that_is_not_there_is_not_found(registry: Registry, token_id: str) -> None:
    problem(registry.request("POST", f"{TOKENS}/{token_id}/revoke"), 404, "not-found")


def test_a_token_may_revoke_itself(registry: Registry) -> None:
    made = create(registry, label="leaving", scopes=["admin"])
    revoked = registry.request("POST", f"{TOKENS}/{made['id']}/revoke", token=made["token"])
    assert revoked.status_code == 200
    problem(registry.get(TOKENS, token=made["token"]), 401, "unauthorized")


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[tuple[Registry, str]]:
    """An api whose one token of scope admin is not limited to names, and that token."""
    state = tmp_path / "state"
    with running_api(state, env={}) as api, closing(open_database(f"sqlite:///{state / 'registry.db'}")) as database:
        tokens = Tokens(database)
        tokens.create("of some names", ["admin"], names=["nginx-*"])
        yield api, tokens.create("the last", ["admin", "read"]).text


def test_the_last_token_that_could_make_another_is_not_revoked_over_the_api(alone: tuple[Registry, str]) -> None:
    api, last = alone
    found = problem(api.request("POST", f"{TOKENS}/{last[4:16]}/revoke", token=last), 409, "wrong-state")
    assert "make one first, and revoke this one with that" in found["detail"]
    told = api.cli("token", "revoke", last[4:16], token=last)
    assert (told.returncode, told.stdout) == (6, "")
    assert "make one first" in told.stderr
    other = api.request("POST", TOKENS, json={"label": "b", "scopes": ["admin"]}, token=last).json()["token"]
    assert api.request("POST", f"{TOKENS}/{last[4:16]}/revoke", token=other).status_code == 200
    problem(api.get(TOKENS, token=last), 401, "unauthorized")


# --- who may ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_only_a_token_of_scope_admin_that_is_not_limited_to_names_may(
    registry: Registry, method: str, path: str
) -> None:
    body = {"label": "no", "scopes": ["admin"]} if path == TOKENS and method == "POST" else None
    before = listed(registry)
    problem(requests.request(method, registry.address + path, json=body, timeout=PATIENCE_S), 401, "unauthorized")
    others = make_token(registry, "register", "read", "operate")
    refused = registry.request(method, path, token=others, json=body)
    assert "scope admin" in problem(refused, 403, "forbidden")["detail"]
    assert refused.headers["WWW-Authenticate"] == 'Bearer error="insufficient_scope", scope="admin"'
    limited = make_token(registry, "admin", names="nginx-*")
    refused = registry.request(method, path, token=limited, json=body)
    assert problem(refused, 403, "forbidden")["detail"] == (
        "Tokens are made, shown and revoked for every name, and this token is limited to: nginx-*. "
        "Use a token that was made without --names."
    )
    assert set(listed(registry)) - set(before) == {others[4:16], limited[4:16]}


def test_a_token_of_scope_admin_alone_makes_tokens_and_does_nothing_else(registry: Registry) -> None:
    token = make_token(registry, "admin")
    assert registry.get(TOKENS, token=token).status_code == 200
    for method, path in (
        ("GET", "/api/v1/plugins"),
        ("GET", "/api/v1/registrations"),
        ("GET", "/api/v1/snapshot"),
        ("GET", "/api/v1/actions"),
        ("GET", "/metrics"),
        ("POST", "/api/v1/plugins"),
        ("POST", "/api/v1/registrations/retry?cause=status-404"),
    ):
        problem(registry.request(method, path, token=token), 403, "forbidden")


# --- the command line ---------------------------------------------------------------------------


def test_from_afar_the_command_says_the_same_as_on_the_machine_itself(registry: Registry) -> None:
    here = ("--state", str(registry.state))
    wanted = (
        "--scope",
        "register",
        "--scope",
        "read",
        "--names",
        "nginx-*",
        "--expires-in",
        "90d",
        "--label",
        "afar",
    )
    made = registry.cli("token", "create", *wanted)
    assert (made.returncode, made.stderr) == (
        0,
        f"A token for the registry at {registry.address}, shown this once:\n",
    )
    token = made.stdout.strip()
    assert made.stdout == f"{token}\n"
    assert registry.get("/api/v1/plugins", token=token).status_code == 200
    for words in (
        ("list",),
        ("list", "--json"),
        ("revoke", token[4:16]),
        ("revoke", token[4:16], "--json"),
        ("list",),
    ):
        afar, on_it = (registry.cli("token", *words, *where) for where in ((), here))
        assert (afar.returncode, afar.stdout, afar.stderr) == (on_it.returncode, on_it.stdout, on_it.stderr), words
    assert afar.stdout.splitlines()[-1] == f"{token[4:16]}  {'revoked':<30}  {'read,register':<28}  nginx-*  afar"
    problem(registry.get("/api/v1/plugins", token=token), 401, "unauthorized")
    assert recorded(registry, token[4:16])[-1] == ("create-token", "made with the state folder", "afar")
    documents = [
        json.loads(registry.cli("token", "create", "--scope", "read", "--json", *where).stdout)
        for where in ((), here)
    ]
    for each in documents:
        assert set(each) == FIELDS | {"token"}
        assert each["label"].startswith("made ")
        assert registry.get("/api/v1/plugins", token=each["token"]).status_code == 200


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (("create", "--scope", "read", "--label", "ci\u202e"), 2),
        (("create", "--scope", "read", "--names", "[a.z]*"), 2),
        (("create", "--scope", "read", "--expires-in", "soon"), 2),
        (("revoke", "nobody"), 2),
        (("revoke", "../tokens"), 2),
    ],
)
def test_from_afar_what_is_refused_ends_as_on_the_machine_itself(
    registry: Registry, words: tuple[str, ...], status: int
) -> None:
    for where in ((), ("--state", str(registry.state))):
        done = registry.cli("token", *words, *where)
        assert (done.returncode, done.stdout) == (status, ""), done.stderr


def test_from_afar_a_token_is_needed_that_may(registry: Registry) -> None:
    reader = make_token(registry, "read")
    for words in (("create", "--scope", "admin"), ("list",), ("revoke", reader[4:16])):
        done = registry.cli("token", *words, token=reader)
        assert (done.returncode, done.stdout) == (4, "")
        assert "This needs a token of scope admin." in done.stderr
    assert registry.cli("token", "list", REGISTRY_URL="http://127.0.0.1:9").returncode == 7
