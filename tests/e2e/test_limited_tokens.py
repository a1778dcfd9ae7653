"""A token that is limited to names reads no other names' registrations, whatever route it takes (decision 0018).

Every operation of the OpenAPI document is asked with all that another team's registrations hold: a route that is new
is asked too, and one that leaks is found. The page's routes, which the document leaves out, are asked likewise.
"""

import base64
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain, product
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
import requests
from starlette.routing import Route

from api.dashboard.pages import ROUTERS
from api.dashboard.visitor import COOKIE
from shared.store.database import open_database
from shared.store.sessions import Sessions
from shared.store.tokens import SCOPES, Scope, Token, Tokens
from tests.conftest import a_submission
from tests.e2e.test_operations import accepted, make_token
from tests.origin import Origin, Served
from tests.running import Registry, problem, until

EVERYTHING: tuple[Scope, ...] = SCOPES
OF_PLUGINS = {"ListPlugins", "GetPlugin"}
"""What is listed is there for every reader: these may show a plugin, and nothing of registrations."""
NOBODYS = "registration-00000000-0000-7000-8000-000000000000"


@dataclass
class Team:
    """What one team has in the registry."""

    name: str
    submissions: list[dict[str, str]] = field(default_factory=list)
    registrations: dict[str, dict[str, Any]] = field(default_factory=dict)
    """As they were at first: what was refused, what was tried again, what is listed, and what is in flight."""
    actions: list[str] = field(default_factory=list)
    plugin: dict[str, str] = field(default_factory=dict)

    @property
    def words(self) -> set[str]:
        """All that could be asked for: ids, cursors, names, checksums, causes, URLs, hosts."""
        ids = [*(each["id"] for each in self.registrations.values()), *self.actions, self.plugin["id"]]
        fields = chain.from_iterable(each.values() for each in self.submissions)
        hosts = {urlsplit(each["artifactUrl"]).netloc for each in self.submissions}
        return {*ids, *(base64.urlsafe_b64encode(each.encode()).decode() for each in ids), *fields, *hosts}

    @property
    def secrets(self) -> set[str]:
        """What only those may see who may read the team's registrations."""
        ids = {each["id"] for each in self.registrations.values()}
        unlisted = [each for each in self.submissions if each["name"] != self.plugin["name"]]
        urls = {part for each in unlisted for part in each["artifactUrl"].split("?")}
        return {*ids, *self.actions, *urls, *(each["checksum"] for each in unlisted), *(n["name"] for n in unlisted)}

    @property
    def listed(self) -> set[str]:
        """What is listed: the plugin's own fields."""
        return {self.plugin[key] for key in ("id", "name", "artifactUrl", "checksum")}


def a_team(name: str, registry: Registry, origin: Origin, gate: threading.Event) -> Team:
    team = Team(name)

    def submit(what: str, **served: Any) -> dict[str, str]:
        artifact = Served(f"{name} {what}".encode() * 9, **served)
        submission = a_submission(name=f"{name} {what}", artifactUrl=f"{origin.serve(artifact)}?key={name}-{what}")
        team.submissions.append(submission | {"checksum": artifact.checksum})
        return team.submissions[-1]

    listed = registry.final(accepted(registry, submit("listed")))
    refused = registry.final(accepted(registry, submit("refused", status=404)))
    again = registry.request("POST", f"/api/v1/registrations/{refused['id']}/retry").json()
    held = accepted(registry, submit("held", gate=gate))
    until(lambda: registry.get(f"/api/v1/registrations/{held}").json()["bytesDownloaded"], what="the download")
    team.registrations = {
        "listed": listed,
        "refused": refused,
        "again": registry.final(again["id"]),
        "held": registry.get(f"/api/v1/registrations/{held}").json(),
    }
    actions = registry.get("/api/v1/actions", params={"registration": refused["id"]}).json()["items"]
    team.actions = [each["id"] for each in actions]
    team.plugin = registry.get(f"/api/v1/plugins/{listed['pluginId']}").json()
    return team


@pytest.fixture(scope="module")
def theirs(registry: Registry, origin: Origin) -> Iterator[Team]:
    gate = threading.Event()
    yield a_team("team-a", registry, origin, gate)
    gate.set()


@pytest.fixture(scope="module")
def ours(registry: Registry, origin: Origin, theirs: Team) -> Iterator[Team]:
    gate = threading.Event()
    yield a_team("team-b", registry, origin, gate)
    gate.set()


@pytest.fixture(scope="module")
def limited(registry: Registry) -> str:
    return make_token(registry, *EVERYTHING, names="team-b*")


@dataclass(frozen=True)
class Asked:
    """One request, and all that was told in answer."""

    operation: str
    url: str
    told: str


def operations(registry: Registry) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield method, path and description of everything that the OpenAPI document has."""
    for path, methods in requests.get(f"{registry.address}/openapi.json", timeout=10).json()["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def ask_everything(registry: Registry, token: str, team: Team, *, only_get: bool = False) -> Iterator[Asked]:
    """Ask every operation for *team* with *token*: with each of its words in each parameter."""
    for method, path, operation in operations(registry):
        if only_get and method != "GET":
            continue
        named = operation.get("parameters", [])
        queries: list[dict[str, str]] = [{}, {"limit": "200"}]
        queries += [
            {each["name"]: word} for each in named if each["in"] == "query" for word in ({"status-404"} | team.words)
        ]
        places = re.findall(r"{(\w+)}", path)
        for words in product(*(team.words for _place in places)):
            filled = path
            for place, word in zip(places, words, strict=True):
                filled = filled.replace(f"{{{place}}}", quote(word, safe=""))
            for query in queries if not places else queries[:1]:
                body = team.submissions[1] if "requestBody" in operation else None
                answer = ask(registry, method, filled, token, params=query, json=body)
                yield Asked(operation.get("operationId", path), f"{filled}?{query}", told(answer))


def ask(registry: Registry, method: str, path: str, token: str | None, **options: Any) -> requests.Response:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return requests.request(
        method,
        registry.address + path,
        headers=headers,
        stream=True,
        timeout=(10, 20),
        allow_redirects=False,
        **options,
    )


def told(answer: requests.Response) -> str:
    """Return all that an answer tells: headers, body, of a stream its first event, and what its cursor says."""
    text = str(dict(answer.headers))
    with answer:
        for chunk in answer.iter_content(chunk_size=None):
            text += chunk.decode()
            if "event-stream" in answer.headers.get("Content-Type", "") and text.endswith("\n\n"):
                break
    cursors = re.findall(r'"nextCursor": ?"([^"]+)"', text)
    return text.lower() + "".join(base64.b64decode(each, altchars=b"-_").decode() for each in cursors)


def traces(asked: Asked, words: set[str]) -> set[str]:
    return {word for word in words if word.lower() in asked.told}


def test_whoever_may_read_all_finds_the_team_on_every_route_that_shows_registrations(
    registry: Registry, theirs: Team, ours: Team
) -> None:
    """That the walk below finds what there is to be found."""
    found = {
        each.operation
        for each in ask_everything(registry, registry.token, theirs, only_get=True)
        if traces(each, theirs.secrets)
    }
    assert found == {
        "GetRegistration",
        "ListAttempts",
        "FollowRegistration",
        "ListRegistrations",
        "ListActions",
        "GetSnapshot",
        "GetUpstream",
        "ListEvents",
    }


def test_no_route_tells_a_limited_token_of_another_teams_registrations(
    registry: Registry, limited: str, theirs: Team, ours: Team
) -> None:
    operations_asked, leaks = set(), []
    for asked in ask_everything(registry, limited, theirs):
        operations_asked.add(asked.operation)
        secrets = theirs.secrets if asked.operation in OF_PLUGINS else theirs.secrets | theirs.listed | {theirs.name}
        leaks += [(asked.operation, asked.url, word) for word in traces(asked, secrets)]
    assert leaks == []
    assert operations_asked > {"GetRegistration", "RetryRegistration", "RetryRegistrations", "RegisterPlugin"}
    for each in theirs.registrations.values():
        assert registry.get(f"/api/v1/registrations/{each['id']}").json()["status"] == each["status"], "untouched"
    acted = registry.get("/api/v1/actions?limit=200").json()["items"]
    on_theirs = {each["id"] for each in theirs.registrations.values()}
    assert [each["id"] for each in acted if each["registrationId"] in on_theirs] == theirs.actions


def test_another_teams_registration_is_told_as_if_it_did_not_exist(
    registry: Registry, limited: str, theirs: Team
) -> None:
    by_id = [each for each in operations(registry) if "{registration_id}" in each[1]]
    assert len(by_id) >= 4
    for method, path, _operation in by_id:
        nobodys = ask(registry, method, path.replace("{registration_id}", NOBODYS), limited)
        problem(nobodys, 404, "not-found")
        for each in theirs.registrations.values():
            for prefer in ({}, {"Prefer": "wait=20"}):
                headers = {"Authorization": f"Bearer {limited}", **prefer}
                url = registry.address + path.replace("{registration_id}", each["id"])
                answer = requests.request(method, url, headers=headers, timeout=10)
                assert (answer.status_code, answer.content) == (404, nobodys.content)


def test_a_limited_token_reads_lists_and_acts_on_what_is_of_its_names(
    registry: Registry, limited: str, theirs: Team, ours: Team
) -> None:
    refused, held = ours.registrations["refused"], ours.registrations["held"]
    found = registry.get(f"/api/v1/registrations/{refused['id']}", token=limited).json()
    assert found | {"retriedAs": None} == refused
    everything = every_page(registry, "registrations", registry.token, limit=200)
    listed = every_page(registry, "registrations", limited, limit=1)
    assert [each["id"] for each in listed] == [each["id"] for each in everything if ours.name in each["name"]]
    ids = {each["id"] for each in listed}
    assert ids >= {each["id"] for each in ours.registrations.values()}
    acted = every_page(registry, "actions", registry.token, limit=200)
    assert every_page(registry, "actions", limited, limit=1) == [
        each for each in acted if each["registrationId"] in ids
    ]

    registry.final(registry.get("/api/v1/registrations", params={"name": refused["name"]}).json()["items"][0]["id"])
    retried = registry.request("POST", "/api/v1/registrations/retry?cause=status-404&limit=200", token=limited).json()
    (again,) = retried["retried"]
    assert registry.final(again)["name"] == refused["name"]
    canceled = registry.request("POST", f"/api/v1/registrations/{held['id']}/cancel", token=limited).json()
    assert canceled["status"] == "canceled"


def every_page(registry: Registry, what: str, token: str, *, limit: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor = ""
    while True:
        answer = registry.get(f"/api/v1/{what}?limit={limit}{cursor}", token=token).json()
        found += answer["items"]
        if answer["nextCursor"] is None:
            return found
        cursor = f"&cursor={answer['nextCursor']}"


# --- what shows every name, by its nature -------------------------------------------------------


def test_what_shows_every_name_is_refused_and_says_why(registry: Registry, limited: str) -> None:
    found = problem(registry.get("/api/v1/snapshot", token=limited), 403, "forbidden")
    assert "limited to: team-b*" in found["detail"]
    assert "without --names" in found["detail"]
    shown = registry.cli("queue", token=limited)
    assert (shown.returncode, shown.stdout) == (4, "")
    assert "without --names" in shown.stderr
    entered = requests.post(
        f"{registry.address}/operations/sign-in",
        data={"token": limited},
        headers={"Accept": "text/html"},
        timeout=10,
        allow_redirects=False,
    )
    assert entered.status_code == 403
    assert "limited to: team-b*" in entered.text
    assert not entered.cookies


def test_a_session_that_a_limited_token_has_opens_nothing(
    registry: Registry, limited: str, theirs: Team, ours: Team
) -> None:
    """Sessions could be opened by limited tokens once, and live for hours."""
    database = open_database(f"sqlite:///{registry.state / 'registry.db'}")
    tokens = Tokens(database)
    secrets = {each: Sessions(database, tokens).open(known(tokens, each)) for each in (limited, registry.token)}
    database.close()

    def walk(token: str) -> Iterator[Asked]:
        for route in chain.from_iterable(router.routes for router in ROUTERS):
            assert isinstance(route, Route)
            for method in route.methods or ():
                for word in ("", *theirs.words):
                    answer = requests.request(
                        method,
                        registry.address + re.sub("{.*?}", quote(word, safe=""), route.path),
                        params={"q": word},
                        data={"do": f"retry:{word}", "form": "0" * 64},
                        cookies={COOKIE: secrets[token]},
                        stream=True,
                        timeout=(10, 20),
                        allow_redirects=False,
                    )
                    yield Asked(route.path, word, told(answer))
                    if method == "POST" or "{name}" in route.path:
                        break

    found = {each.operation for each in walk(registry.token) if traces(each, unasked(theirs.secrets, each))}
    one = "/registrations/{registration_id}"
    assert found == {
        *("/operations", "/operations/live", "/registrations", one, f"{one}/live", "/actions", "/actions.csv"),
        *("/upstreams/{host}", "/workers", "/plugins/{plugin_id}"),
    }
    words = theirs.secrets | theirs.listed
    assert [(each.operation, each.url) for each in walk(limited) if traces(each, unasked(words, each))] == []


def unasked(words: set[str], asked: Asked) -> set[str]:
    """Return those of *words* that a page could not repeat because it was asked for them."""
    return {each for each in words if each.lower() not in asked.url.lower()}


def known(tokens: Tokens, text: str) -> Token:
    token = tokens.authenticate(text)
    assert token is not None
    return token
