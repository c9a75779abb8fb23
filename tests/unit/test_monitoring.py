"""The alert rules, the dashboard and docs/monitoring.md name what there is, and the alerts fire when they should."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from app import metrics
from tests.promtool import RULES, promtool
from tools import metrics_table

DASHBOARD = RULES.with_name("dashboard.json")
OF_PROMETHEUS = {"le", "instance", "job", "alertname"}
OF_THE_CLIENT = {"up": {"job"}, "process_cpu_seconds_total": set(), "process_resident_memory_bytes": set()}


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def expressions() -> Iterator[str]:
    yield from (rule["expr"] for rule in rules())
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"]
            # Labels of a legend are labels of its expression.
            yield f"{target['expr']} by ({', '.join(re.findall(r'{{(.*?)}}', target['legendFormat']))})"


def test_the_alerts_and_the_dashboard_name_only_metrics_and_labels_that_exist() -> None:
    known = dict(metrics_table.series()) | OF_THE_CLIENT
    named = set()
    for expression in expressions():
        names = re.findall(r"\b(?:ringback_\w+|process_\w+_(?:total|bytes)|up)\b", expression)
        assert names, expression
        assert set(names) <= known.keys(), expression
        named.update(names)
        for name, matchers in re.findall(r"(\w+)\{(.*?)\}", expression, re.DOTALL):
            assert set(re.findall(r"(\w+)\s*[=!]", matchers)) <= known[name], expression
        grouped = re.findall(r"\b(?:by|on|group_left) \((.*?)\)", expression)
        labels = {label.strip() for found in grouped for label in found.split(",") if label.strip()}
        assert labels <= set().union(*(known[name] for name in names)) | OF_PROMETHEUS, expression
    # What nobody looks at need not be counted.
    counted = {
        metrics_table.name_of(metric) for facts in (False, True) for metric in metrics_table.declared(facts=facts)
    }
    assert {metric for metric in counted if not any(name.startswith(metric) for name in named)} == set()


def test_each_alert_says_what_to_do() -> None:
    for rule in rules():
        assert rule["labels"]["severity"] in ("critical", "warning"), rule["alert"]
        assert rule["annotations"].keys() == {"summary", "action"}, rule["alert"]


def test_the_page_names_every_metric() -> None:
    page = metrics_table.PAGE.read_text()
    assert page == metrics_table.fill(page), "run `.venv/bin/python -m tools.metrics_table`"


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "rules", RULES),
        ("check", "config", RULES.with_name("prometheus.yml")),
        ("test", "rules", RULES.with_name("alerts_test.yml")),
    ],
)
def test_promtool_accepts_the_rules(arguments: tuple[str | Path, ...]) -> None:
    done = promtool(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_fires_in_the_test_of_the_rules() -> None:
    tested = RULES.with_name("alerts_test.yml").read_text()
    for rule in rules():
        assert f'alertname="{rule["alert"]}"' in tested, rule["alert"]


def test_a_method_that_a_client_made_up_is_no_label() -> None:
    metrics.http_request("BREW", "-", 405, 0.1)
    methods = {sample.labels.get("method") for metric in metrics._HTTP.collect() for sample in metric.samples}
    assert "other" in methods
    assert "BREW" not in methods
