"""The alert rules and the dashboard: each alert fires for its fault and for no other, and names metrics there are."""

import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.core import Metric
from ruamel.yaml import YAML

from api.live.monitor import Snapshot
from api.routes.metrics import _metrics
from shared.registration import Status
from tests.running import PROJECT
from tests.unit.test_monitor import WELL

RULES = PROJECT / "deploy" / "alerts.yml"
DASHBOARD = PROJECT / "deploy" / "grafana.json"
MINUTES = 15
POINTS = 4 * MINUTES  # one every 15 s


def flat(value: int) -> str:
    return f"{value}x{POINTS}"


def rising(value: int, by: int) -> str:
    return f"{value}+{by}x{POINTS}"


WELL_SERIES = {
    "store_up": flat(1),
    "broker_up": flat(1),
    "workers_alive": flat(2),
    "worker_max_downloads": flat(512),
    "workers_lost_total": flat(1),
    "store_timestamp_seconds": rising(1000, 15),
    "sweep_last_run_timestamp_seconds": rising(998, 15),
    "oldest_due_seconds": flat(1),
    "downloads_in_flight": flat(3),
    "downloads_stalled": flat(1),
    'outcomes_total{status="registered",code="",cause="",fault=""}': rising(0, 30),
    'outcomes_total{status="rejected",code="c",cause="html-page",fault="submitter"}': rising(0, 2),
    'outcomes_total{status="failed",code="c",cause="status-503",fault="upstream"}': rising(0, 1),
    'outcomes_total{status="canceled",code="canceled",cause="canceled",fault="registry"}': rising(0, 0),
}
REGISTERED, REJECTED, FAILED, CANCELED = [each for each in WELL_SERIES if each.startswith("outcomes_total")]
GONE = f"_x{POINTS}"
STILL = flat(7)
NOTHING_SETTLES = {REGISTERED: STILL, REJECTED: STILL, FAILED: STILL}

# What happens -> the series that differ from those of a registry that is well, and exactly which alerts fire.
FAULTS: dict[str, tuple[dict[str, str], set[str]]] = {
    "all is well": ({}, set()),
    "nothing to do": ({**NOTHING_SETTLES, "oldest_due_seconds": flat(0), "downloads_in_flight": flat(0)}, set()),
    "no api": (dict.fromkeys(WELL_SERIES, GONE), {"Unseen"}),
    "the store is away": (
        dict.fromkeys(WELL_SERIES, GONE) | {"store_up": flat(0), "broker_up": flat(1)},
        {"StoreAway"},
    ),
    "the broker is away": ({"broker_up": flat(0)}, {"BrokerAway"}),
    "no worker": (
        {"workers_alive": flat(0), "worker_max_downloads": flat(0), "downloads_stalled": flat(0)},
        {"NoWorkers"},
    ),
    "no worker, and work waits": (
        {
            **NOTHING_SETTLES,
            "workers_alive": flat(0),
            "oldest_due_seconds": rising(1, 1),
            "downloads_in_flight": flat(0),
            "downloads_stalled": flat(0),
        },
        {"NoWorkers"},
    ),
    "the workers were killed in the middle of downloads": (
        {
            **NOTHING_SETTLES,
            "workers_alive": flat(0),
            "worker_max_downloads": flat(0),
            "downloads_stalled": flat(3),
            "oldest_due_seconds": rising(1, 15),
            "sweep_last_run_timestamp_seconds": flat(998),
        },
        {"NoWorkers", "SweepSilent", "NothingFlows", "OldestTooOld"},
    ),
    "the broker is away, and work waits for it": (
        {
            **NOTHING_SETTLES,
            "broker_up": flat(0),
            "downloads_in_flight": flat(0),
            "downloads_stalled": flat(0),
            "oldest_due_seconds": rising(1, 15),
            "sweep_last_run_timestamp_seconds": flat(998),
        },
        {"BrokerAway", "SweepSilent", "NothingFlows", "OldestTooOld"},
    ),
    "nothing flows, and somebody cancels": (
        {
            **NOTHING_SETTLES,
            CANCELED: rising(0, 2),
            "oldest_due_seconds": rising(1, 15),
            "downloads_in_flight": flat(1),
        },
        {"NothingFlows", "OldestTooOld"},
    ),
    "all that ends fails, of a cause never seen before": (
        {
            **NOTHING_SETTLES,
            FAILED: f"_x{POINTS - 8} 20x8",
            "oldest_due_seconds": flat(100),
            "downloads_in_flight": flat(1),
        },
        {"FailuresSurge"},
    ),
    "the first that ever end fail": (
        {REGISTERED: flat(0), REJECTED: GONE, CANCELED: GONE, FAILED: f"_x{POINTS - 8} 20x8"},
        {"FailuresSurge"},
    ),
    "the store was away": (
        {
            REGISTERED: "1000+30x20 _x30 1600+30x8",
            REJECTED: "500+2x20 _x30 540+2x8",
            FAILED: "500+1x20 _x30 520+1x8",
            "oldest_due_seconds": "1x20 _x30 400 90 1x8",
        },
        set(),
    ),
    "nothing flows": (
        {**NOTHING_SETTLES, "oldest_due_seconds": rising(1, 15), "downloads_in_flight": flat(1)},
        {"NothingFlows", "OldestTooOld"},
    ),
    "one large download, and others wait": (
        {**NOTHING_SETTLES, "downloads_stalled": flat(0), "oldest_due_seconds": flat(100)},
        set(),
    ),
    "workers are lost, and started again": ({"workers_lost_total": "1x30 2x4 4x26"}, {"WorkersLost"}),
    "one worker was lost": ({"workers_lost_total": "1x30 2x30"}, set()),
    "too much work": ({"oldest_due_seconds": rising(1, 15)}, {"OldestTooOld"}),
    "busy, and not too late": ({"oldest_due_seconds": flat(200)}, set()),
    "many downloads, of which some have stalled": (
        {"downloads_stalled": flat(200), "downloads_in_flight": flat(400)},
        set(),
    ),
    "the sweep is silent": ({"sweep_last_run_timestamp_seconds": flat(998)}, {"SweepSilent"}),
    "the sweep never ran": ({"sweep_last_run_timestamp_seconds": flat(0)}, {"SweepSilent"}),
    "most is rejected": ({REJECTED: rising(0, 40)}, {"FailuresSurge"}),
    "most fails": ({FAILED: rising(0, 40)}, {"FailuresSurge"}),
    "a few fail, and hardly anything else happens": (
        {REGISTERED: STILL, REJECTED: STILL, FAILED: f"0x{POINTS - 16} 4x15"},
        set(),
    ),
    "much is canceled": ({REGISTERED: rising(0, 4), CANCELED: rising(0, 40)}, set()),
    "an upstream holds the workers": (
        {"downloads_stalled": flat(300), "downloads_in_flight": flat(400)},
        {"DownloadsStall"},
    ),
}


def test_every_alert_has_a_fault_that_fires_it() -> None:
    named = {each["alert"].removeprefix("PluginRegistry") for each in _rules()}
    assert named == set().union(*(fired for _series, fired in FAULTS.values()))


@pytest.mark.promtool
def test_each_alert_fires_for_its_fault_and_for_no_other(tmp_path: Path) -> None:
    tests = [
        {
            "name": fault,
            "interval": "15s",
            "input_series": [
                {"series": _of(instance, series), "values": values}
                for instance in ("one", "other")  # two api processes tell the same, and it counts once
                for series, values in (WELL_SERIES | changed).items()
            ],
            "promql_expr_test": [
                {
                    "expr": 'sum by (alertname) (ALERTS{alertstate="firing"})',
                    "eval_time": f"{MINUTES}m",
                    "exp_samples": [
                        {"labels": f'{{alertname="PluginRegistry{each}"}}', "value": 1} for each in sorted(fired)
                    ],
                }
            ],
        }
        for fault, (changed, fired) in FAULTS.items()
    ]
    file = tmp_path / "test.yml"
    file.write_text(json.dumps({"rule_files": [str(RULES)], "evaluation_interval": "15s", "tests": tests}))
    done = subprocess.run(["promtool", "test", "rules", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


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


def _of(instance: str, series: str) -> str:
    name, _, labels = series.partition("{")
    return f'plugin_registry_{name}{{instance="{instance}"{"," + labels if labels else "}"}'


def test_rules_their_tests_and_the_dashboard_name_metrics_and_labels_that_there_are() -> None:
    exposed = _exposed()
    tested = (f"plugin_registry_{series}" for changed, _fired in FAULTS.values() for series in WELL_SERIES | changed)
    for expression in (*(each["expr"] for each in _rules()), *tested, *_dashboard_expressions()):
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
    families: list[Metric] = list(_metrics(Snapshot(replace(WELL, counters=counters, retrying={"truncated": 1}), 0)))
    return {sample.name: set(sample.labels) for family in families for sample in family.samples}
