"""What Alertmanager holds back with the committed rules, asked of a real one."""

import json
import urllib.request
from datetime import UTC, datetime, timedelta

import pytest

from tests.promql import rules
from tests.system.monitoring import alertmanager, wait_until, webhook

pytestmark = pytest.mark.system

SEVERITIES = {rule["alert"]: rule["labels"]["severity"] for rule in rules("alert")}


@pytest.fixture
def manager(tmp_path):
    """An Alertmanager of its own: an alert of one test would hold back that of another."""
    with webhook() as hook, alertmanager(tmp_path, hook.url) as address:
        yield f"http://{address}/api/v2/alerts"


def fire(url, *alerts):
    """Send alerts: a name, or a name with further labels."""
    now = datetime.now(UTC)
    body = [
        {
            "labels": {
                "alertname": name,
                "severity": SEVERITIES[name],
                "environment": "prod",
                **labels,
            },
            "startsAt": now.isoformat(),
            "endsAt": (now + timedelta(minutes=5)).isoformat(),
        }
        for name, labels in alerts
    ]
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    urllib.request.urlopen(request, timeout=10).close()


def held_back(url, count):
    """Return the names of what is held back, once all alerts have arrived."""

    def arrived():
        with urllib.request.urlopen(url, timeout=10) as answer:
            alerts = json.load(answer)
        return alerts if len(alerts) == count else None

    alerts = wait_until(arrived, f"{count} alerts", 20)
    return sorted(
        (alert["labels"]["alertname"], alert["labels"].get("venue", ""))
        for alert in alerts
        if alert["status"]["state"] == "suppressed"
    )


U, B = {"venue": "upbit"}, {"venue": "binance_spot"}


@pytest.mark.parametrize(
    ("firing", "expected"),
    [
        pytest.param(
            [("ArbHalted", {}), ("ArbDailyLossNearLimit", {}), ("ArbClockOff", U)],
            [("ArbDailyLossNearLimit", "")],
            id="halted holds back what it brings about, not a clock",
        ),
        pytest.param(
            [("ArbHalted", {}), ("ArbGapLoss", {}), ("ArbPostgresDown", {})],
            [],
            id="nothing holds back what is critical",
        ),
        pytest.param(
            [("ArbNoData", {}), ("ArbNodeSilent", {}), ("ArbGatewayDown", {})],
            [("ArbNodeSilent", "")],
            id="without data no warning is believed",
        ),
        pytest.param(
            [("ArbFeedDown", U), ("ArbSymbolsStale", U), ("ArbSymbolsStale", B)],
            [("ArbSymbolsStale", "upbit")],
            id="a venue that is away says nothing of the other's books",
        ),
        pytest.param(
            [("ArbPostgresDown", {}), ("ArbSnapshotsFailing", {}), ("ArbRedisFallback", {})],
            [("ArbSnapshotsFailing", "")],
            id="snapshots fail where nothing can be written",
        ),
        pytest.param(
            [("ArbHalted", {"environment": "staging"}), ("ArbOrderFailures", U)],
            [],
            id="a halt of staging holds back nothing of prod",
        ),
    ],
)
def test_what_is_held_back(manager, firing, expected):
    fire(manager, *firing)
    assert held_back(manager, len(firing)) == expected
