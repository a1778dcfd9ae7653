"""The pictures of the pages that docs/ shows: ``make screenshots``, where Chromium and its driver are installed."""

import base64
import shutil
import tempfile
import threading
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.conftest import open_loopback
from tests.origin import Origin, Served
from tests.running import PROJECT, Registry, running_registry, until

DOCS = PROJECT / "docs"
SHOTS = (
    ("operations", "/operations", 1280, "light"),
    ("operations-telephone", "/operations", 390, "dark"),
    ("registration", "/registrations/{wrong}", 1280, "light"),
    ("catalogue", "/", 1280, "light"),
)
PLUGINS = (
    *(("nginx-log-collector", version, "log") for version in ("2.0.0", "2.0.1", "2.1.0")),
    *((name, "1.4.2", "metric") for name in ("postgres-metrics", "valkey-metrics", "jvm-metrics")),
    *((name, "0.9.0", "trace") for name in ("envoy-traces", "php-traces")),
)


def fill(registry: Registry, origin: Origin, gate: threading.Event) -> dict[str, str]:
    """Have something of every kind in *registry*; return the ids that pages are asked for by."""
    numbers = count(1)

    def submit(name: str, version: str = "1.0.0", kind: str = "log", checksum: str = "", **served: Any) -> str:
        body = served.pop("body", f"artifact {next(numbers)}".encode() * 1000)
        artifact = Served(body, **served)
        submission = {
            "name": name,
            "version": version,
            "pluginType": kind,
            "artifactUrl": origin.serve(artifact),
            "checksum": checksum or artifact.checksum,
        }
        return str(registry.register(submission, prefer="respond-async").json()["id"])

    for name, version, kind in PLUGINS:
        registry.final(submit(name, version, kind))
    wrong = submit("haproxy-logs", checksum=f"sha256:{'5e' * 32}")
    for each in (wrong, submit("kafka-metrics", status=404), submit("disk-metrics", status=503)):
        registry.final(each)
    submit("large-collector", body=b"x" * 900_000, gate=gate)
    return {"wrong": wrong}


def shoot(chrome: Chrome, name: str, width: int, scheme: str) -> None:
    """Write the picture *name* in docs/pages/: the page on a screen of *width* points, as far down as is worth it."""
    media = [{"name": "prefers-color-scheme", "value": scheme}]
    chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})
    chrome.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 1000 if width > 500 else 1400, "deviceScaleFactor": 1, "mobile": width < 500},
    )
    shot = chrome.execute_cdp_cmd("Page.captureScreenshot", {"format": "png", "captureBeyondViewport": False})
    (DOCS / f"{name}.png").write_bytes(base64.b64decode(shot["data"]))


def main() -> None:
    """Start a registry, fill it, and take the pictures."""
    gate = threading.Event()
    with tempfile.TemporaryDirectory() as folder, closing(Origin()) as origin:
        env = {**open_loopback(origin.port), "REGISTRY_MAX_ATTEMPTS": "2", "REGISTRY_RETRY_BASE_S": "0.1"}
        with running_registry(Path(folder) / "state", env=env) as registry:
            ids = fill(registry, origin, gate)
            options = ChromeOptions()
            for flag in ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"):
                options.add_argument(flag)
            options.binary_location = str(shutil.which("chromium"))
            chrome = Chrome(options, ChromeService(str(shutil.which("chromedriver"))))
            try:
                chrome.get(f"{registry.address}/operations")
                chrome.find_element(By.ID, "token").send_keys(registry.token, Keys.ENTER)
                until(lambda: chrome.find_elements(By.ID, "live"), what="the page")
                for name, place, width, scheme in SHOTS:
                    chrome.get(registry.address + place.format(**ids))
                    shoot(chrome, name, width, scheme)
            finally:
                chrome.quit()
                gate.set()


if __name__ == "__main__":
    main()
