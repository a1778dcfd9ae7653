"""What `register` sees from where it runs, before anything is submitted: it warns, and never ends the command."""

from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from plugin_registry_client.command.precheck import look_at_file, look_at_url

from tests.origin import Served

Artifact = Callable[..., tuple[dict[str, str], Served]]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n", "Git LFS pointer"),
        (b"\xef\xbb\xbf\n<!DOCTYPE html><title>Log in", "HTML page"),
    ],
)
def test_a_local_file_that_is_hardly_meant_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, said: str
) -> None:
    copy = tmp_path / "copy"
    copy.write_bytes(content)
    look_at_file(copy)
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("served", "said"),
    [
        ({"status": 404}, "answers 404"),
        ({"body": b"<html>log in"}, "HTML page"),
        ({"body": b"version https://git-lfs.github.com/spec/v1\n"}, "Git LFS pointer"),
        ({"status": 302, "headers": {"Location": "?again"}}, "redirects more than 10 times"),
        ({"headers": {"Content-Encoding": "gzip"}, "body": b"\x1f\x8b"}, "compressed form"),
    ],
)
def test_what_a_url_serves_here_is_told(
    artifact: Artifact, capsys: pytest.CaptureFixture[str], served: dict[str, Any], said: str
) -> None:
    submission, _ = artifact(**served)
    look_at_url(submission["artifactUrl"], None)
    assert said in capsys.readouterr().err


def _endless(handler: BaseHTTPRequestHandler) -> None:
    """Redirect, with a body that does not end."""
    handler.wfile.write(b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\n\r\n")
    with suppress(OSError):
        for _ in range(1000):
            handler.wfile.write(b"x" * 65536)
    handler.close_connection = True


def _broken(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")
    handler.close_connection = True


@pytest.mark.parametrize("handle", [_endless, _broken])
def test_a_host_that_misbehaves_here_is_a_warning(
    artifact: Artifact, capsys: pytest.CaptureFixture[str], handle: Callable[[BaseHTTPRequestHandler], None]
) -> None:
    submission, _ = artifact(handle=handle)
    look_at_url(submission["artifactUrl"], None)
    assert "warning" in capsys.readouterr().err
