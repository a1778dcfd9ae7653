"""An api behind a path prefix, and under plain uvicorn: its URLs work, and a request is one line of its log."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urljoin

import pytest
import requests

from tests.conftest import a_submission
from tests.running import OUR_WIRE, PATIENCE_S, PLAIN_UVICORN, Registry, problem, running_api, until

PREFIX = "/tools/registry"
WITH_SETTING = (OUR_WIRE, {"REGISTRY_ROOT_PATH": PREFIX})
WITH_OPTION = ((*PLAIN_UVICORN, "--root-path", PREFIX), {"REGISTRY_SYNC_WAIT_S": "1"})


@contextmanager
def nginx_in_front(folder: Path, api: Registry, port: int) -> Iterator[str]:
    """Yield the address under which nginx passes requests on, without the prefix."""
    folder.mkdir()
    (folder / "nginx.conf").write_text(
        f"""daemon off; pid {folder}/pid; error_log {folder}/error.log; worker_processes 1; user root;
        events {{ worker_connections 64; }}
        http {{ access_log off; client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2;
        fastcgi_temp_path {folder}/t3; uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
        server {{ listen 127.0.0.1:{port}; location {PREFIX}/ {{ proxy_pass {api.address}/; proxy_buffering off;
        proxy_set_header Host $http_host; }} }} }}"""
    )
    command = ["nginx", "-e", f"{folder}/error.log", "-c", f"{folder}/nginx.conf"]
    with subprocess.Popen(command) as process:
        try:
            address = f"http://127.0.0.1:{port}"
            until(lambda: answers(f"{address}{PREFIX}/healthz"), what="nginx")
            yield address
        finally:
            process.terminate()
            process.wait(PATIENCE_S)
            shutil.rmtree(folder)


def answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).status_code == 200
    except requests.RequestException:
        return False


@pytest.mark.program("nginx")
@pytest.mark.parametrize(("served_by", "env"), [WITH_SETTING, WITH_OPTION], ids=["our wire", "uvicorn"])
def test_behind_a_path_prefix_every_url_that_is_handed_out_carries_it(
    tmp_path: Path, free_tcp_port: int, served_by: tuple[str, ...], env: dict[str, str]
) -> None:
    with (
        running_api(tmp_path / "state", served_by=served_by, env=env) as api,
        nginx_in_front(tmp_path / "nginx", api, free_tcp_port) as origin,
        requests.Session() as browser,
    ):
        browser.headers["Accept"] = "text/html"
        bearer = {"Authorization": f"Bearer {api.token}"}
        links, seen = ["/operations", "/docs", "/problems", "/problems/digest-mismatch"], set()
        entered = browser.post(
            f"{origin}{PREFIX}/operations/sign-in",
            data={"token": api.token},
            allow_redirects=False,
            timeout=PATIENCE_S,
        )
        assert (entered.status_code, entered.headers["Location"]) == (303, f"{PREFIX}/operations")
        assert f"Path={PREFIX}" in entered.headers["Set-Cookie"]
        pages = [f"{origin}{PREFIX}{each}" for each in links]
        while pages:
            url = pages.pop()
            answer = browser.get(url, timeout=PATIENCE_S, stream=url.endswith("/live"))
            assert answer.status_code == 200, url
            seen.add(url)
            if "text/html" in answer.headers["Content-Type"]:
                found = re.findall(r"""(?:href|src|action|data-live|url)(?:=|: )['"]?([^'" >]+)""", answer.text)
                ours = {urljoin(url, each) for each in found if not each.startswith("data:")}
                assert all(each.startswith(f"{origin}{PREFIX}/") for each in ours), ours
                pages += ours - seen - {each for each in ours if re.search("sign-|/act$", each)} - set(pages)
            answer.close()
        assert f"{origin}{PREFIX}/operations/live" in seen
        assert f"{origin}{PREFIX}/openapi.json" in seen
        assert requests.get(f"{origin}{PREFIX}/openapi.json", timeout=PATIENCE_S).json()["servers"] == [
            {"url": PREFIX}
        ]

        accepted = requests.post(
            f"{origin}{PREFIX}/api/v1/plugins",
            json=a_submission(),
            headers={**bearer, "Prefer": "respond-async"},
            timeout=PATIENCE_S,
        )
        assert accepted.status_code == 202
        followed = requests.get(urljoin(origin, accepted.headers["Location"]), headers=bearer, timeout=PATIENCE_S)
        assert followed.json()["id"] == accepted.json()["id"]
        refused = requests.post(
            f"{origin}{PREFIX}/api/v1/plugins", json={}, headers=bearer, timeout=PATIENCE_S
        ).json()
        assert refused["type"] == f"{PREFIX}/problems/invalid-fields"
        assert answers(urljoin(origin, refused["type"]))


def test_a_wire_that_refuses_hands_out_the_prefix_too(tmp_path: Path) -> None:
    with running_api(
        tmp_path / "state", env={"REGISTRY_ROOT_PATH": PREFIX, "REGISTRY_MAX_HEAD_BYTES": "4096"}
    ) as api:
        answer = requests.get(f"{api.address}/healthz", headers={"X": "x" * 5000}, timeout=PATIENCE_S)
        assert answer.json()["type"] == f"{PREFIX}/problems/head-too-large"
        problem(api.get("/nothing"), 404, "not-found", prefix=PREFIX)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), 1),
        (("--no-access-log",), 0),
        (("--log-level", "warning"), 0),
    ],
)
def test_under_uvicorn_a_request_is_one_line_a_probe_none_and_options_keep_their_meaning(
    tmp_path: Path, options: tuple[str, ...], expected: int
) -> None:
    with running_api(tmp_path / "state", served_by=(*PLAIN_UVICORN, *options), env={"REGISTRY_LEASE_S": "20"}) as api:
        assert api.get("/api/v1/plugins").status_code == 200
        assert requests.get(f"{api.address}/readyz", timeout=PATIENCE_S).status_code == 200
        assert requests.get(f"{api.address}/healthz", timeout=PATIENCE_S).status_code == 200
        written = api.output.read_text()
        assert written.count("/api/v1/plugins") == expected, written
        assert "readyz" not in written
        assert "healthz" not in written
