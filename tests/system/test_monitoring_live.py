"""
A live run under Ray's token, watched by a real Prometheus and Alertmanager with deploy/'s files.

One run serves all tests. While it trades every metric is there, every panel shows something
and no alert fires; when it has ended, somebody is told.
"""

import contextlib
import itertools
import json
import secrets
import time
import urllib.error
import urllib.request

import msgspec
import psutil
import pytest

from arb_ray.adapters.storage.process import free_port
from arb_ray.adapters.telemetry.metric_registry import REGISTRY, MetricKind
from tests.e2e.runs import short_folder, submit
from tests.metric_ranges import range_of
from tests.promql import filled, rules
from tests.system.monitoring import DEPLOY, alertmanager, program, prometheus, wait_until, webhook

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

WATCHED_S = 70.0
"""Longer than the minute that a rate looks back."""

TOLD_S = 150.0
"""Scrape, evaluation and the minute that an alert waits, with room for a slow machine."""

PREFIXES = ("ray_", "")
"""By Ray's export, and on the Gateway's page."""

END_ALERTS = {"ArbNoData", "ArbGatewayDown"}


def dashboard_address(run, token):
    """Return host:port of the run's dashboard, which takes the first free port."""
    for process in run.family.processes():
        try:
            if "dashboard.py" not in " ".join(process.cmdline()):
                continue
            ports = [c.laddr.port for c in process.net_connections() if c.status == "LISTEN"]
        except psutil.Error:
            continue
        for port in ports:
            if discovery(f"127.0.0.1:{port}", token) == 200:
                return f"127.0.0.1:{port}"
    return None


def discovery(address, token=None):
    """Return how Ray's discovery answers; 0 where nobody does, or no node is listed yet."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(f"http://{address}/api/prometheus/sd", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=2) as answer:
            return answer.status if any(group["targets"] for group in json.load(answer)) else 0
    except urllib.error.HTTPError as error:
        return error.code
    except (urllib.error.URLError, OSError, ValueError):
        return 0


class Watched(msgspec.Struct):
    """What was seen of one run: while it traded, and after its end."""

    without_token: int = 0  # how the discovery answered
    targets: list = []
    values: dict = {}  # samples by name
    panels: dict = {}  # samples by (panel, expression)
    records: dict = {}  # samples by recording rule
    alerts: list = []  # firing or about to, while it traded
    told_early: list = []  # what the webhook had got until then
    exit_code: int | None = None
    told: list = []  # what the webhook had got at last


@pytest.fixture(scope="module")
def watched():
    """A run that has traded and was watched for longer than a rate's window, and its end."""
    for name in ("prometheus", "prometheus-alertmanager"):
        program(name)
    with short_folder() as folder, webhook() as hook, alertmanager(folder, hook.url) as manager:
        gateway = free_port()
        token = secrets.token_hex(32)
        token_file = folder / "token"
        token_file.write_text(token)
        token_file.chmod(0o600)
        run = submit(
            folder / "d",
            "--duration",
            "500s",
            "--set",
            "ray.dashboard=true",
            "--set",
            "ray.auth_mode=token",
            gateway=gateway,
            environment={
                "RAY_metrics_report_interval_ms": "1000",
                "RAY_AUTH_TOKEN_PATH": str(token_file),
            },
        )
        with run:
            run.until_live()
            dashboard = run.until(lambda _: dashboard_address(run, token), "discovery by Ray")
            addresses = {
                "ray-head:8265": dashboard,
                "ray-head:8790": f"127.0.0.1:{gateway}",
                "alertmanager:9093": manager,
                "/run/secrets/ray_auth_token": str(token_file),
            }
            with prometheus(folder, addresses) as prom:
                began = time.monotonic()
                run.until(lambda _: tells_of_a_closed_trade(prom), "a closed trade", 150)
                run.until(lambda _: time.monotonic() > began + WATCHED_S, "data", WATCHED_S + 10)
                seen = look(prom)
                seen.without_token = discovery(dashboard)
                seen.told_early = list(hook.alerts)
                run.interrupt()
                seen.exit_code = run.wait(120)
                with contextlib.suppress(AssertionError):  # the test tells what is missing
                    wait_until(lambda: names(hook.alerts) >= END_ALERTS, "alerts", TOLD_S)
                seen.told = list(hook.alerts)
                return seen


def look(prom):
    """Ask everything at about one moment."""
    seen = Watched(targets=prom.targets(), alerts=prom.query("ALERTS"))
    for prefix, spec in itertools.product(PREFIXES, REGISTRY.values()):
        name = series_of(spec, prefix)
        seen.values[name] = prom.query(name)
    seen.panels = {asked: prom.query(filled(asked[1])) for asked in queries()}
    seen.records = {rule["record"]: prom.query(rule["record"]) for rule in rules("record")}
    return seen


def tells_of_a_closed_trade(prom):
    """A host counts the trade; what it earned comes with the supervisor's next look at it."""
    closed = any(value for _, value in prom.query("sum(ray_arb_trades_closed_total)"))
    return closed and all(prom.query(f"{prefix}arb_symbol_pnl_usdt") for prefix in PREFIXES)


def names(alerts):
    return {alert["labels"]["alertname"] for alert in alerts}


def series_of(spec, prefix):
    suffix = "_count" if spec.kind is MetricKind.HISTOGRAM else ""
    return prefix + spec.exported_name + suffix


def queries():
    """Return (panel, expression) of both dashboards."""
    for path in sorted((DEPLOY / "grafana/dashboards").glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel.get("targets", ()):
                yield f"{path.stem}: {panel['title']}", target["expr"]


def test_all_targets_are_found_by_the_committed_configuration_and_answer(watched):
    assert {target["labels"]["job"] for target in watched.targets} == {"ray", "arb_gateway"}
    assert {target["health"] for target in watched.targets} == {"up"}


def test_the_discovery_tells_nobody_who_lacks_the_token(watched):
    assert watched.without_token == 401


@pytest.mark.parametrize("prefix", PREFIXES)
def test_every_declared_metric_is_there_with_a_value_that_can_be_true(watched, prefix):
    problems = []
    for spec in REGISTRY.values():
        name = series_of(spec, prefix)
        low, high = range_of(spec)
        samples = watched.values[name]
        if not samples:
            problems.append(f"{name} is missing")
        problems += [
            f"{name} {labels} is {value}, not in {low}..{high}"
            for labels, value in samples
            if not low <= value <= high
        ]
        roles = {labels["actor"].split(":")[0] for labels, _ in samples}
        if not roles <= set(spec.roles):
            problems.append(f"{name} is set by {roles}")
    assert problems == []


def test_every_query_of_every_panel_shows_something(watched):
    assert watched.panels
    assert [asked for asked, samples in watched.panels.items() if not samples] == []


def test_every_recording_rule_gives_a_value(watched):
    assert [name for name, samples in watched.records.items() if not samples] == []


def test_no_alert_fires_or_is_about_to_while_all_is_well(watched):
    assert watched.alerts == []
    assert watched.told_early == []


def test_the_end_of_the_run_is_told_to_the_webhook_and_no_warning_beside_it(watched):
    assert watched.exit_code == 0
    assert names(watched.told) == END_ALERTS  # no warning: without data none is believed
    for alert in watched.told:
        name = alert["labels"]["alertname"]
        assert alert["status"] == "firing"
        assert alert["labels"]["environment"] == "dev"
        assert alert["annotations"]["runbook_url"] == f"docs/RUNBOOK.md#{name.lower()}"
