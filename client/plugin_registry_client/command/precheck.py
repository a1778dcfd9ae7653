"""What can be seen from here before anything is submitted: the local file, and the head of the URL.

Nothing here decides: it warns, on stderr. The registry checks for itself, from where it runs.
"""

import time
from http.cookiejar import DefaultCookiePolicy
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import requests
from urllib3.exceptions import HTTPError

from plugin_registry_client.command.terminal import say

TIMEOUT_S = 10
MAX_REDIRECTS = 10
BEGINNING_BYTES = 1024
_POINTER = b"version https://git-lfs.github.com/spec/"


def look_at_file(artifact: Path) -> None:
    """Warn of a local copy that is hardly what was meant."""
    with artifact.open("rb") as file:
        beginning = file.read(BEGINNING_BYTES)
    if not beginning:
        _warn(f"{artifact} is empty: the registry refuses the checksum of nothing.")
    elif beginning.startswith(_POINTER):
        _warn(f"{artifact} is a Git LFS pointer, not the content it stands for: run `git lfs pull` and try again.")
    elif _is_page(beginning):
        _warn(f"{artifact} is an HTML page, perhaps that of a log-in: was it downloaded with one?")


def look_at_url(url: str, artifact: Path | None) -> None:
    """Fetch the head of *url* from here, and warn of what differs from what the registry wants, or from *artifact*.

    The artifact's beginning is read, and nothing else of any body; no cookie is kept and no credential is sent, as by
    the registry. Whatever goes wrong is a warning: the registry decides.
    """
    session = requests.Session()
    session.trust_env = False
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    agent = f"plugin-registry-client/{version('plugin-registry-client')}"
    session.headers.update({"User-Agent": agent, "Accept": "*/*", "Accept-Encoding": "identity"})
    until = time.monotonic() + TIMEOUT_S
    try:
        for _hop in range(MAX_REDIRECTS + 1):
            left_s = max(0.1, until - time.monotonic())
            with session.get(url, stream=True, timeout=left_s, allow_redirects=False) as answer:
                if not answer.is_redirect:
                    _judge(answer, answer.raw.read(BEGINNING_BYTES, decode_content=False), artifact)
                    return
                there = urljoin(url, answer.headers["Location"])
            if urlsplit(url).scheme == "https" and urlsplit(there).scheme == "http":
                _warn("The URL redirects from https to http, which the registry does not follow.")
                return
            url = there
        _warn(f"The URL redirects more than {MAX_REDIRECTS} times, which the registry does not follow.")
    except (requests.RequestException, HTTPError, OSError, ValueError) as error:
        kind = "its certificate is not valid" if isinstance(error, requests.exceptions.SSLError) else "no answer"
        _warn(f"The URL cannot be fetched from here ({kind}). The registry tries it from where it runs.")


def _judge(answer: requests.Response, beginning: bytes, artifact: Path | None) -> None:
    if answer.status_code != 200:
        _warn(f"The URL answers {answer.status_code} from here; the registry wants 200, without a log-in.")
        return
    if _is_page(beginning):
        _warn("The URL serves an HTML page, not a file: use the URL of the file itself.")
    elif beginning.startswith(_POINTER):
        _warn("The URL serves a Git LFS pointer: use the URL of the content itself.")
    if answer.headers.get("Content-Encoding", "").strip().lower() in {"gzip", "x-gzip", "deflate", "br", "zstd"}:
        _warn("The URL serves a compressed form though it was asked not to: the registry hashes what is served.")
    announced = answer.headers.get("Content-Length", "")
    if artifact is not None and announced.isdigit() and int(announced) != artifact.stat().st_size:
        _warn(f"The URL serves {announced} bytes and {artifact} has {artifact.stat().st_size}: they will not match.")


def _is_page(beginning: bytes) -> bool:
    return beginning.removeprefix(b"\xef\xbb\xbf").lstrip().lower().startswith((b"<!doctype html", b"<html"))


def _warn(sentence: str) -> None:
    say(f"plugin-registry: warning: {sentence}", err=True)
