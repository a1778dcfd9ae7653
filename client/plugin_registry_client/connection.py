"""One request to a registry, its answer, and a sentence for each way in which there is none."""

import json
import socket
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.cookiejar import DefaultCookiePolicy
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import requests
import truststore
from requests.adapters import HTTPAdapter
from urllib3.exceptions import NameResolutionError

from plugin_registry_client.errors import BadSettings, NotARegistry, NoToken, Unreachable, error_of

PATIENCE_S = 70
"""How long an answer is waited for; the registry holds one back for at most 60 s."""
CONNECT_S = 10
MOMENT_S = 0.5
"""What an answer may take even where there is no time left."""


@dataclass(frozen=True)
class Answer:
    """One answer that is no problem: its status and its JSON."""

    status: int
    document: dict[str, Any]


@dataclass(frozen=True)
class Event:
    """One server-sent event (the HTML standard, section 9.2)."""

    id: str
    document: dict[str, Any] | None
    """None where only the id was told: how far the stream has come."""


class Connection:
    """Asks the registry at *url*, with *token*; trusts the certificates of this machine, and those in *ca_file*.

    Proxies are those of the usual environment variables. Nothing else of the environment counts: a ``.netrc`` would
    take the token's place.
    """

    def __init__(self, url: str, token: str, *, ca_file: Path | None = None) -> None:
        token = token.strip()  # what a file or a CI variable leaves around it
        if not token:
            raise NoToken("The token is empty.")
        if not (token.isascii() and token.isprintable()):
            raise NoToken("The token holds characters that no token has.")
        self.url = parsed_url(url)
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self._session.headers["Authorization"] = f"Bearer {token}"
        self._session.headers["User-Agent"] = f"plugin-registry-client/{version('plugin-registry-client')}"
        self.ca_file = ca_file
        self._proxy = _proxy_for(self.url)
        self._proxies = {} if self._proxy is None else {urlsplit(self.url).scheme: self._proxy}
        if self.url.startswith("https:"):
            self._session.mount("https://", _Trusting(_trusted(ca_file)))

    def close(self) -> None:
        """Let go of what is open."""
        self._session.close()

    def get(self, path: str, **query: str | int | None) -> Answer:
        """Return the answer to a GET.

        Raises:
            ProblemAnswered: the registry said no.
            Unreachable: there was no answer.
        """
        return self.ask("GET", path, query=query)

    def post(self, path: str, **query: str | int | None) -> Answer:
        """Return the answer to a POST without a body, as `get` does."""
        return self.ask("POST", path, query=query)

    def ask(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str | int | None] | None = None,
        document: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        within_s: float = PATIENCE_S,
    ) -> Answer:
        """Return the answer to *method* on *path*, as `get` does, if it comes *within_s*."""
        given = {key: value for key, value in (query or {}).items() if value is not None}
        try:
            response = self._session.request(
                method,
                self.url + path,
                params=given,
                json=document,
                headers=headers,
                timeout=(min(CONNECT_S, max(MOMENT_S, within_s)), min(PATIENCE_S, max(MOMENT_S, within_s))),
                proxies=self._proxies,
                allow_redirects=False,
            )
        except (requests.RequestException, OSError, ValueError) as error:
            raise self._unreachable(error) from error
        return self._read(response)

    def events(self, path: str, *, silent_s: float) -> Iterator[Event]:
        """Yield server-sent events as they come.

        It ends when the registry ends it, is not there, or says nothing for *silent_s*: ask it then.
        """
        try:
            with self._session.get(
                self.url + path,
                stream=True,
                timeout=(CONNECT_S, silent_s),
                proxies=self._proxies,
                allow_redirects=False,
            ) as response:
                if response.status_code == 200:
                    yield from _events(response)
        except (requests.RequestException, OSError, ValueError, RecursionError):
            return

    def _read(self, response: requests.Response) -> Answer:
        status = response.status_code
        if response.is_redirect:
            there = urlsplit(response.headers["Location"])
            where = f"{there.scheme}://{there.netloc.rpartition('@')[2]}" if there.netloc else "another path"
            raise NotARegistry(f"{self.url} redirects to {where}: set the registry's URL to where it really is.")
        try:
            document = response.json() if response.content or status != 204 else {}
            if not isinstance(document, dict) or (status >= 400 and not _is_problem(document)):
                raise ValueError("neither an answer nor a problem of ours")  # noqa: TRY301
        except (ValueError, RecursionError) as error:
            kind = response.headers.get("Content-Type", "no type").partition(";")[0]
            raise NotARegistry(
                f"What answers at {self.url} is no plugin registry (status {status}, {kind}): "
                "is the URL right, and is there a proxy or a log-in page before it?"
            ) from error
        if status >= 400:
            refused = error_of({"status": status, **document}, self.url)
            refused.retry_after_s = _seconds(response.headers.get("Retry-After", ""))
            raise refused
        return Answer(status, document)

    def _unreachable(self, error: Exception) -> Unreachable:
        return Unreachable(f"No registry answers at {self.url}: {self._reason(error)}")

    def _reason(self, error: Exception) -> str:  # noqa: PLR0911  # one for each reason
        host = urlsplit(self.url).hostname
        chain = [*_chain(error)]
        if isinstance(error, requests.exceptions.ProxyError):
            where = urlsplit(self._proxy or "").netloc.rpartition("@")[2]
            return (
                f"the proxy {where or 'of the environment'} does not let us through ({_last(chain)}). "
                "Mend HTTP_PROXY or HTTPS_PROXY, or name the registry's host in NO_PROXY."
            )
        for each in chain:
            if isinstance(each, ssl.SSLCertVerificationError):
                return (
                    f"its certificate is not trusted ({each.verify_message or each}). If it is signed by an "
                    "authority of your own, name that one's certificate in REGISTRY_CA_FILE."
                )
            if isinstance(each, ssl.SSLError):
                return f"TLS fails there ({each.reason or each}). Is it http:// that is served at this port?"
            if isinstance(each, NameResolutionError | socket.gaierror):
                return f"there is no host called {host}, as far as this machine can tell. Is the URL right?"
            if isinstance(each, ConnectionRefusedError):
                return "nothing listens there. Is it running, and is the URL right, its port too?"
        if isinstance(error, requests.exceptions.ConnectTimeout):
            return f"no connection within {CONNECT_S} s. Does a firewall stand between, or is the URL another's?"
        if isinstance(error, requests.exceptions.Timeout):
            return f"it took the connection and said nothing for {PATIENCE_S} s. Asking again is safe."
        return f"the connection broke ({_last(chain)}). Asking again is safe."


class _Trusting(HTTPAdapter):
    """Checks certificates, the registry's and a proxy's, by *context*."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        super().__init__()

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, ssl_context=self._context, **options)

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        if proxy.startswith("https:"):
            options["proxy_ssl_context"] = self._context
        return super().proxy_manager_for(proxy, ssl_context=self._context, **options)

    def cert_verify(self, conn: Any, *_ignored: object, **_options: object) -> None:
        """Let the context decide alone: requests would add a list of authorities of its own."""
        conn.cert_reqs = "CERT_REQUIRED"


def parsed_url(url: str) -> str:
    """Return the address of a registry, without a slash at its end.

    Raises:
        BadSettings: *url* is none; the sentence says why, and repeats nothing that could be secret.
    """
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError:
        raise BadSettings("The registry's URL names a host or a port that is none.") from None
    if parts.scheme not in {"http", "https"}:
        plain = not set(url) & set("@?#:/ ") and "." in url and not url.startswith("prg_")
        guess = f": write https://{url}" if plain else ""
        raise BadSettings(f"The registry's URL must begin with https:// or http://{guess}.")
    if parts.username is not None or parts.password is not None:
        raise BadSettings("The registry's URL may not hold a user or a password: the token is what it asks for.")
    if not parts.hostname or port == 0 or parts.query or parts.fragment or set(url.strip()) & set(" \t\r\n"):
        raise BadSettings("The registry's URL must be like https://HOST, with a port or a path, and nothing behind.")
    return parts._replace(path=parts.path.rstrip("/")).geturl()


def _proxy_for(url: str) -> str | None:
    """Return the proxy that the environment's usual variables name for *url*, if they do.

    Raises:
        BadSettings: it is none; the sentence quotes nothing of it.
    """
    proxy = requests.utils.select_proxy(url, requests.utils.get_environ_proxies(url))
    if not proxy:
        return None
    if "://" not in proxy:
        proxy = f"http://{proxy}"
    try:
        parts = urlsplit(proxy)
        if not parts.hostname or parts.port == 0 or parts.path.strip("/") or parts.query or parts.fragment:
            raise ValueError("it is more or less than a host and a port")  # noqa: TRY301
    except ValueError:
        raise BadSettings(
            "The proxy in HTTP_PROXY, HTTPS_PROXY or ALL_PROXY is none: write http://HOST:PORT; in a user or a "
            "password, '/' is written %2F, '#' %23, '?' %3F, '@' %40."
        ) from None
    return proxy


def _is_problem(document: Mapping[str, Any]) -> bool:
    """Whether *document* is a problem as a registry tells one: others have codes too, but numbers."""
    errors = document.get("errors") or []
    return (
        isinstance(document.get("code"), str)
        and isinstance(errors, list)
        and all(isinstance(each, dict) and "detail" in each for each in errors)
    )


def _seconds(header: str) -> float | None:
    return float(header) if header.isascii() and header.isdigit() and len(header) < 6 else None


def segment(text: str) -> str:
    """Return *text* as one segment of a path, which an id of dots would not be.

    Raises:
        BadSettings: it can be none.
    """
    if text in {"", ".", ".."}:
        raise BadSettings(f"{text!r} is no id.")
    return quote(text, safe="")


def _trusted(ca_file: Path | None) -> ssl.SSLContext:
    """Return what trusts the authorities of this machine, as its other programs do, and those in *ca_file*."""
    context = truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        if ca_file is not None:
            context.load_verify_locations(cafile=str(ca_file))
    except (OSError, ssl.SSLError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else "it holds none in PEM form"
        raise BadSettings(f"REGISTRY_CA_FILE: no certificate can be read from {ca_file} ({why}).") from error
    return context


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield *error* and all that it was made of."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        each = waiting.pop(0)
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        within = [*each.args, getattr(each, "reason", None)]
        waiting += [*(one for one in within if isinstance(one, BaseException)), each.__cause__, each.__context__]


def _last(chain: list[BaseException]) -> str:
    """Return the word for what was at the bottom of it."""
    told = next((each.strerror for each in chain if isinstance(each, OSError) and each.strerror), None)
    if told:
        return told
    texts = [str(each) for each in chain if str(each) and "pool" not in str(each).lower()]
    return texts[-1][:200] if texts else type(chain[-1]).__name__


def _events(response: requests.Response) -> Iterator[Event]:
    number, data, told = "", b"", False
    for line in response.iter_lines(chunk_size=None):
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            data += value
        elif name == b"id" and value.isdigit():
            number, told = value.decode(), True
        elif not line and (data or told):
            yield Event(number, json.loads(data) if data else None)
            data, told = b"", False
