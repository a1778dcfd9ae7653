"""What can be seen from here before anything is submitted: the local file, and the head of the URL.

Nothing here decides: it warns, on stderr. The registry checks for itself, from where it runs.
"""

from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from urllib.parse import urlsplit

import requests

from cli.terminal import say
from shared.settings import read_settings

TIMEOUT_S = 10
BEGINNING_BYTES = 1024
_POINTER = b"version https://git-lfs.github.com/spec/"
_PAGES = (b"<!doctype html", b"<html", b"<head", b"<meta", b"<body")


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

    The body's beginning is read and the rest is not; no cookie is kept and no credential is sent, as by the registry.
    """
    session = requests.Session()
    session.trust_env = False
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    session.max_redirects = 10
    headers = {"User-Agent": read_settings().user_agent, "Accept": "*/*", "Accept-Encoding": "identity"}
    try:
        with session.get(url, headers=headers, stream=True, timeout=TIMEOUT_S) as answer:
            _judge(answer, answer.raw.read(BEGINNING_BYTES, decode_content=False), artifact)
    except requests.TooManyRedirects:
        _warn("The URL redirects more than 10 times, or in a circle, which the registry does not follow.")
    except (requests.RequestException, ValueError) as error:
        kind = "its certificate is not valid" if isinstance(error, requests.exceptions.SSLError) else "no answer"
        _warn(f"The URL cannot be fetched from here ({kind}). The registry tries it from where it runs.")


def _judge(answer: requests.Response, beginning: bytes, artifact: Path | None) -> None:
    if answer.status_code != 200:
        _warn(f"The URL answers {answer.status_code} from here; the registry wants 200, without a log-in.")
        return
    schemes = [urlsplit(each.url).scheme for each in (*answer.history, answer)]
    if "https" in schemes and "http" in schemes[schemes.index("https") :]:
        _warn("The URL redirects from https to http, which the registry does not follow.")
    if _is_page(beginning):
        _warn("The URL serves an HTML page, not a file: use the URL of the file itself.")
    elif beginning.startswith(_POINTER):
        _warn("The URL serves a Git LFS pointer: use the URL of the content itself.")
    if answer.headers.get("Content-Encoding", "identity") != "identity":
        _warn("The URL serves a compressed form though it was asked not to: the registry hashes what is served.")
    announced = answer.headers.get("Content-Length", "")
    if artifact is not None and announced.isdigit() and int(announced) != artifact.stat().st_size:
        _warn(f"The URL serves {announced} bytes and {artifact} has {artifact.stat().st_size}: they will not match.")


def _is_page(beginning: bytes) -> bool:
    return beginning.removeprefix(b"\xef\xbb\xbf").lstrip().lower().startswith(_PAGES)


def _warn(sentence: str) -> None:
    say(f"plugin-registry: warning: {sentence}", err=True)
