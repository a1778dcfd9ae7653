"""The registry as a client of its own API sees it."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import click
import requests

from cli.refusal import CANCELED, CONFLICT, NOT_AUTHORISED, REFUSED, UNREACHABLE, UPSTREAM_FAILED, USAGE, Refusal
from cli.state import StateFolder
from shared.explained import explained
from shared.settings import BadSettings, read_settings

DEFAULT_URL = "http://127.0.0.1:8080"


@dataclass(frozen=True)
class Answer:
    """One answer: its status and its JSON."""

    status: int
    document: dict[str, Any]


class Client:
    """Talks to the registry at *url* with *token*."""

    def __init__(self, url: str, token: str) -> None:
        token = token.strip()  # what a file or a CI variable leaves around it
        if not (token.isascii() and token.isprintable()):
            raise Refusal("REGISTRY_TOKEN holds characters that no token has.", NOT_AUTHORISED)
        self.url = url.rstrip("/")
        self._session = requests.Session()
        self._session.trust_env = False  # a netrc entry must not take our token's place
        self._session.headers["Authorization"] = f"Bearer {token}"

    def get(self, path: str, **query: str | int | None) -> Answer:
        """Return the answer to a GET.

        Raises:
            Refusal: there was none.
        """
        given = {key: value for key, value in query.items() if value is not None}
        return self._ask("GET", path, params=given)

    def post(self, path: str, **query: str | int | None) -> Answer:
        """Return the answer to a POST without a body, as `get` does."""
        return self._ask("POST", path, params={key: value for key, value in query.items() if value is not None})

    def send(self, path: str, document: Mapping[str, Any]) -> Answer:
        """Return the answer to a POST of *document*, as `get` does."""
        return self._ask("POST", path, json=document)

    def events(self, path: str, *, silent_s: float) -> Iterator[dict[str, Any]]:
        """Yield the documents of server-sent events as they come (the HTML standard's section 9.2).

        It ends when the registry ends it, is not there, or says nothing for *silent_s*: ask it then.
        """
        try:
            with self._session.get(self.url + path, stream=True, timeout=(10, silent_s)) as response:
                if response.status_code != 200:
                    return
                for line in response.iter_lines(chunk_size=None):
                    if line.startswith(b"data: "):
                        yield json.loads(line.removeprefix(b"data: "))
        except (requests.RequestException, ValueError, RecursionError):
            return

    def submit(self, submission: Mapping[str, str], *, dry_run: bool = False) -> Answer:
        """Return the answer to a submission whose outcome is not waited for.

        Raises:
            Refusal: there was none.
        """
        query = {"dryRun": "true"} if dry_run else {}
        return self._ask(
            "POST", "/api/v1/plugins", params=query, json=submission, headers={"Prefer": "respond-async"}
        )

    def _ask(self, method: str, path: str, **options: Any) -> Answer:
        try:
            response = self._session.request(method, self.url + path, timeout=70, **options)
        except requests.RequestException as error:
            raise Refusal(
                f"No registry answers at {self.url}: is it running, and is REGISTRY_URL right?", UNREACHABLE
            ) from error
        try:
            document = response.json() if response.content else {}
            if not isinstance(document, dict) or (response.status_code >= 400 and "code" not in document):
                raise ValueError("neither an answer nor a problem of ours")  # noqa: TRY301
            return Answer(response.status_code, document)
        except (ValueError, RecursionError) as error:
            raise Refusal(
                f"What answers at {self.url} is no plugin registry (status {response.status_code}).", UNREACHABLE
            ) from error


def client_from_environment() -> Client:
    """Return a client for REGISTRY_URL and REGISTRY_TOKEN.

    Where neither is set, the embedded registry that runs on the state folder is meant. Its token
    is never sent anywhere else.
    """
    try:
        settings = read_settings()
    except BadSettings as error:
        raise Refusal(f"{error}.", USAGE) from error
    if settings.url is None and settings.token is None:
        state = StateFolder(settings.state_dir)
        address, token = state.running_address(), state.token()
        if address and token:
            return _noted(Client(address, token))
    if settings.token is None:
        raise Refusal("Set REGISTRY_TOKEN to a token made by `plugin-registry token create`.", NOT_AUTHORISED)
    return _noted(Client(settings.url or DEFAULT_URL, settings.token.get_secret_value()))


def _noted(client: Client) -> Client:
    """Return *client*, once `cli.main` knows of it: a stumble of the command is then over what it was answered."""
    click.get_current_context().find_root().obj = client
    return client


def refusal_of(answer: Answer) -> Refusal:
    """Return the refusal that a problem document amounts to, with its exit status."""
    problem = answer.document
    details = [problem["detail"]] if "detail" in problem else []
    details += [
        f"{(each.get('pointer') or each.get('parameter', '')).removeprefix('#/')}: {each['detail']}"
        for each in problem.get("errors", ())
    ]
    details += [
        f"{label:<9} {problem[key]}"
        for label, key in (
            ("declared", "declared"),
            ("computed", "computed"),
            ("plugin", "pluginId"),
            ("checksum", "checksum"),
            ("fault", "fault"),
        )
        if key in problem
    ]
    details += _explained(problem)
    title = f"{problem.get('title', 'The registry refused')} ({problem.get('code', answer.status)})."
    return Refusal(title, exit_status(answer), details=details)


def _explained(problem: Mapping[str, Any]) -> list[str]:
    """Return the first sentence of the page that explains *problem*, and its address; nothing where there is none."""
    words = [str(problem.get(key, "")) for key in ("cause", "code")]
    found = next((each for each in map(explained, words) if each and each.code == problem.get("code")), None)
    client = click.get_current_context().find_root().obj
    if found is None or not isinstance(client, Client):
        return []
    return [found.to_do, f"more: {client.url}/problems/{found.word}"]


def exit_status(answer: Answer) -> int:
    """Return the exit status for an answer that is a problem."""
    code = answer.document.get("code", "")
    if answer.status in {401, 403}:
        return NOT_AUTHORISED
    if code == "canceled":
        return CANCELED
    if answer.status == 409:
        return CONFLICT
    if answer.status in {429, 500, 503}:
        return UNREACHABLE
    if answer.status == 502:
        return UNREACHABLE if answer.document.get("fault") == "registry" else UPSTREAM_FAILED
    return REFUSED if answer.status == 422 and code != "invalid-fields" else USAGE
