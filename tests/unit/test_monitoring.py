"""Dashboards, rules and runbook agree with the metric registry and with each other."""

import json
import re
from collections import Counter

import pytest
import yaml

from arb_ray.adapters.telemetry.metric_registry import REGISTRY
from deploy.grafana.build import DASHBOARDS, FOLDER, main, text
from tests.e2e.runs import ROOT
from tests.metric_ranges import RANGES, range_of
from tests.promql import EXPORTED, RULE_TESTS, grouped_by, parse, rules, selectors

DEPLOY = ROOT / "deploy"
ALERTS = {rule["alert"]: rule for rule in rules("alert")}
RECORDS = {rule["record"]: rule for rule in rules("record")}
OF_PROMETHEUS = {"up": {"job", "instance"}}
SERIES = EXPORTED | OF_PROMETHEUS | {name: grouped_by(r["expr"]) for name, r in RECORDS.items()}


def panels(name):
    return [p for p in json.loads((FOLDER / name).read_text())["panels"] if p["type"] != "row"]


PANELS = [
    pytest.param(panel, id=f"{name}: {panel['title']}")
    for name in DASHBOARDS
    for panel in panels(name)
]
EXPRESSIONS = [
    *(pytest.param(rule["expr"], id=name) for name, rule in (ALERTS | RECORDS).items()),
    *(
        pytest.param(target["expr"], id=f"{param.id} {target['refId']}")
        for param in PANELS
        for target in param.values[0]["targets"]
    ),
]


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_an_expression_parses_and_reads_only_what_is_exported(expression):
    parse(expression)
    read = selectors(expression)
    assert read
    known = set()
    for name, labels in read:
        assert name in SERIES, f"{name} is no series of ours behind Ray"
        assert labels <= SERIES[name], f"{name} has no label {labels - SERIES[name]}"
        known |= SERIES[name]
    assert grouped_by(expression) <= known


def test_a_name_that_is_not_declared_would_be_found():
    assert "ray_arb_no_such_metric" not in SERIES
    assert "arb_risk_state" not in SERIES, "the Gateway's names would count everything twice"


def test_the_committed_dashboards_are_what_the_code_makes(capsys):
    assert main(["--check"]) == 0, capsys.readouterr().err
    assert {path.name for path in FOLDER.glob("*.json")} == set(DASHBOARDS)


def test_a_dashboard_that_is_not_current_is_named(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("deploy.grafana.build.FOLDER", tmp_path)
    assert main([]) == 0
    assert main(["--check"]) == 0
    (tmp_path / "actors.json").write_text("{}")
    assert main(["--check"]) == 1
    assert "actors.json is not current" in capsys.readouterr().err


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_has_a_title_a_meaning_a_datasource_and_different_queries(panel):
    assert panel["title"]
    assert panel["description"].endswith(".")
    datasources = yaml.safe_load(
        (DEPLOY / "grafana/provisioning/datasources/prometheus.yaml").read_text()
    )["datasources"]
    assert panel["datasource"]["uid"] in {source["uid"] for source in datasources}
    expressions = [target["expr"] for target in panel["targets"]]
    assert len(set(expressions)) == len(expressions)
    assert len({target["refId"] for target in panel["targets"]}) == len(expressions)


@pytest.mark.parametrize("name", DASHBOARDS)
def test_panels_lie_beside_each_other_inside_the_grid(name):
    taken = Counter(
        (x, y)
        for panel in panels(name)
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    )
    assert max(taken.values()) == 1
    assert max(x for x, _ in taken) < 24


def test_every_declared_metric_is_on_a_dashboard():
    shown = " ".join(text(name) for name in DASHBOARDS)
    assert [
        spec.name for spec in REGISTRY.values() if f"ray_{spec.exported_name}" not in shown
    ] == []


@pytest.mark.parametrize("spec", REGISTRY.values(), ids=lambda spec: spec.name)
def test_a_declared_metric_has_values_that_can_be_true_of_it_in_a_live_run(spec):
    low, high = range_of(spec)
    assert low <= high


def test_a_range_is_that_of_a_metric_which_is_declared():
    assert set(RANGES) - set(REGISTRY) == set()


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_how_bad_it_is_what_it_means_and_where_to_read_on(name):
    rule = ALERTS[name]
    assert name.startswith("Arb")
    assert rule["labels"]["severity"] in {"critical", "warning"}
    notes = rule["annotations"]
    assert set(notes) == {"summary", "description", "runbook_url"}
    assert notes["summary"]
    assert notes["description"].endswith(".")
    assert notes["runbook_url"] == f"docs/RUNBOOK.md#{name.lower()}"


def test_every_alert_has_its_section_in_the_runbook_and_every_such_section_its_alert():
    page = (ROOT / "docs/RUNBOOK.md").read_text()
    sections = re.findall(r"^### (Arb\w+)$", page, re.MULTILINE)
    assert sorted(sections) == sorted(ALERTS)
    for body in re.split(r"^##", page, flags=re.MULTILINE):
        if body.startswith("# Arb"):
            name = body.split()[1]
            assert f"**{ALERTS[name]['labels']['severity'].capitalize()}.**" in body, name
            for part in ("**Look:**", "**Mend:**", "**Escalate:**"):
                assert part in body, f"{name} lacks {part}"


def test_every_alert_has_a_case_that_fires_and_one_that_does_not():
    cases = {name: set() for name in ALERTS}
    for path in RULE_TESTS.glob("*.yml"):
        for test in yaml.safe_load(path.read_text())["tests"]:
            for asked in test["promql_expr_test"]:
                name = re.search(r'alertname="(\w+)"', asked["expr"]).group(1)
                cases[name].add(bool(asked["exp_samples"]))
    assert {name: found for name, found in cases.items() if found != {True, False}} == {}


def test_recording_rules_are_used():
    read = {name for rule in ALERTS.values() for name, _ in selectors(rule["expr"])}
    assert set(RECORDS) <= read


def test_jobs_that_alerts_name_are_scraped_by_both_configurations():
    named = {job for rule in ALERTS.values() for job in re.findall(r'job="(\w+)"', rule["expr"])}
    assert named
    for name in ("prometheus.yml", "prometheus.file_sd.yml"):
        config = yaml.safe_load((DEPLOY / "prometheus" / name).read_text())
        assert named == {scrape["job_name"] for scrape in config["scrape_configs"]}
        assert config["rule_files"] == ["rules/*.yml"]


def test_alertmanager_names_alerts_and_severities_that_exist():
    config = yaml.safe_load((DEPLOY / "alertmanager/alertmanager.yml").read_text())
    severities = {rule["labels"]["severity"] for rule in ALERTS.values()}
    routed = {
        re.search('"(.*)"', m).group(1) for r in config["route"]["routes"] for m in r["matchers"]
    }
    assert routed == severities
    for rule in config["inhibit_rules"]:
        for matcher in (*rule["source_matchers"], *rule["target_matchers"]):
            label, values = re.fullmatch(r'(\w+) !?=?~?=? ?"(.*)"', matcher).groups()
            known = set(ALERTS) if label == "alertname" else severities
            assert set(values.split("|")) <= known, matcher
    (hook,) = config["receivers"][0]["webhook_configs"]
    assert "url" not in hook, "the address is a secret and comes from a file"
