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

PICTURES = PROJECT / "docs" / "pages"
PLACES = {
    "catalogue": "/",
    "plugin": "/plugins/{plugin}",
    "operations": "/operations",
    "registrations": "/registrations",
    "registration": "/registrations/{wrong}",
    "upstreams": "/upstreams",
    "upstream": "/upstreams/{host}",
    "workers": "/workers",
    "actions": "/actions",
    "tokens": "/tokens",
    "webhooks": "/webhooks",
    "webhook": "/webhooks/{hook}",
}
SCREENS = ((1440, 1000, "light"), (390, 1200, "dark"))
"""Width and height in points, and the scheme of colours that is asked for."""
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
        registered = registry.final(submit(name, version, kind))
    wrong = submit("haproxy-logs", checksum=f"sha256:{'5e' * 32}")
    for each in (wrong, submit("kafka-metrics", status=404), submit("disk-metrics", status=503)):
        registry.final(each)
    submit("large-collector", body=b"x" * 900_000, gate=gate)
    registry.request("POST", f"/api/v1/registrations/{wrong}/retry")
    wanted = {"url": "https://hooks.example.com/plugins", "label": "deploy bot"}
    hook = registry.request("POST", "/api/v1/webhooks", json=wanted).json()["id"]
    for _ in range(2):
        registry.request("POST", f"/api/v1/webhooks/{hook}/test")
    return {"hook": hook, "wrong": wrong, "plugin": registered["pluginId"], "host": f"127.0.0.1:{origin.port}"}


def shoot(chrome: Chrome, url: str, name: str) -> None:
    """Write the pictures of the page at *url*, one for each of `SCREENS`, as far down as that screen shows it."""
    for width, height, scheme in SCREENS:
        media = [{"name": "prefers-color-scheme", "value": scheme}]
        chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        chrome.get(url)
        shot = chrome.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})
        (PICTURES / f"{name}-{width}.png").write_bytes(base64.b64decode(shot["data"]))


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
                PICTURES.mkdir(exist_ok=True)
                for name, place in PLACES.items():
                    shoot(chrome, registry.address + place.format(**ids), name)
            finally:
                chrome.quit()
                gate.set()


if __name__ == "__main__":
    main()
