"""What operators are shown: the page, the metrics, the snapshot and the command."""

import re
from collections.abc import Callable
from typing import Any

import requests

from tests.faults.cluster import Cluster
from tests.running import PATIENCE_S, run, until


class Shown:
    """The ways to look."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._browser = requests.Session()
        signed_in = self._browser.post(
            f"{cluster.address}/operations/sign-in", data={"token": cluster.token}, timeout=PATIENCE_S
        )
        assert signed_in.status_code == 200, "after the redirect"

    def metric(self, name: str, **labels: str) -> float:
        """Return the sum of a metric's samples that have *labels*."""
        answer = requests.get(f"{self._cluster.address}/metrics", headers=self._bearer, timeout=PATIENCE_S)
        return sum(
            float(value)
            for given, value in re.findall(rf"^plugin_registry_{name}(?:{{(.*)}})? (\S+)$", answer.text, re.MULTILINE)
            if labels.items() <= dict(re.findall(r'(\w+)="([^"]*)"', given)).items()
        )

    def snapshot(self) -> dict[str, Any]:
        answer = requests.get(f"{self._cluster.address}/api/v1/snapshot", headers=self._bearer, timeout=PATIENCE_S)
        document: dict[str, Any] = answer.json()
        return document

    def page(self) -> str:
        accepted = {"Accept": "text/html"}
        return self._browser.get(f"{self._cluster.address}/operations", headers=accepted, timeout=PATIENCE_S).text

    def command(self) -> tuple[int, str]:
        env = {"REGISTRY_URL": self._cluster.address, "REGISTRY_TOKEN": self._cluster.token}
        done = run("queue", env=env)
        return done.returncode, done.stdout

    @property
    def _bearer(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._cluster.token}"}

    def all_say(self, sentence: str, metric: Callable[[], bool]) -> None:
        """Wait until all three say it: page and command *sentence*, the metrics what *metric* asks of them."""
        until(lambda: metric() and sentence in self.page() and sentence in self.command()[1], what=f"'{sentence}'")
