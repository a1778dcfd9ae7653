"""The rules for Prometheus and the dashboard: they are those of the table of alerts, and name metrics there are."""

import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client.core import Metric
from ruamel.yaml import YAML

from api.live.alerts import prometheus_rules
from api.live.monitor import Snapshot
from api.routes.metrics import _always, _metrics
from shared.registration import Status
from tests.running import PROJECT
from tests.unit.test_monitor import WELL

RULES = PROJECT / "deploy" / "alerts.yml"
DASHBOARD = PROJECT / "deploy" / "grafana.json"


def test_the_rules_for_prometheus_are_those_of_the_table() -> None:
    assert YAML(typ="safe").load(RULES.read_text()) == prometheus_rules()


@pytest.mark.promtool
def test_promtool_finds_nothing_wrong_with_the_rules() -> None:
    done = subprocess.run(["promtool", "check", "rules", RULES], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_says_what_happened_what_to_do_and_how_urgent_it_is_and_the_guide_lists_it() -> None:
    guide = (PROJECT / "docs" / "operations.md").read_text()
    for each in _rules():
        assert each["annotations"].keys() == {"summary", "description"}, each["alert"]
        assert each["labels"]["severity"] in {"page", "warn"}, each["alert"]
        assert f"`{each['alert']}`" in guide, each["alert"]


def test_rules_and_the_dashboard_name_metrics_and_labels_that_there_are() -> None:
    exposed = _exposed()
    for expression in (*(each["expr"] for each in _rules()), *_dashboard_expressions()):
        for name, labels in re.findall(r"(plugin_registry_\w+)(?:\{([^}]*)\})?", expression):
            assert name in exposed, f"{name} in {expression}"
            assert set(re.findall(r"(\w+)\s*[=!]~?", labels)) <= exposed[name], expression
        for by in re.findall(r"by \(([^)]*)\)", expression):
            known = set().union(*exposed.values())
            assert {each.strip() for each in by.split(",")} <= known, expression


def test_the_dashboard_asks_only_the_data_source_that_is_chosen() -> None:
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        if panel["type"] == "row":
            continue
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, panel["title"]
        assert panel["targets"], panel["title"]
        assert all(each["datasource"] == panel["datasource"] for each in panel["targets"]), panel["title"]
        assert all("plugin_registry_" in each["expr"] for each in panel["targets"]), panel["title"]
    assert "://" not in DASHBOARD.read_text()


def _rules() -> list[dict[str, Any]]:
    (group,) = YAML(typ="safe").load(RULES.read_text())["groups"]
    rules: list[dict[str, Any]] = group["rules"]
    return rules


def _dashboard_expressions() -> Iterator[str]:
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        yield from (target["expr"] for target in panel.get("targets", ()))


def _exposed() -> dict[str, set[str]]:
    """Return each name that `GET /metrics` can tell, and its labels."""
    outcome = (Status.REJECTED, "digest-mismatch", "html-page", "submitter")
    counters = {("outcomes", outcome): 1, ("http_requests", ("GET", "/", "200")): 1}
    families: list[Metric] = [
        *_always([]),
        *_metrics(Snapshot(replace(WELL, counters=counters, retrying={"truncated": 1}), 0)),
    ]
    return {sample.name: set(sample.labels) for family in families for sample in family.samples}
