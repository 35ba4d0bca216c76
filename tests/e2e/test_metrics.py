"""
A live run's metrics, as Prometheus reads them: from the Gateway, and from Ray's export.

One run of the embedded exchanges serves all tests; each declared metric must be there with
a value that can be true.
"""

from __future__ import annotations

import math
import time
import urllib.request
from collections import defaultdict

import pytest
from prometheus_client.parser import text_string_to_metric_families

from arb_ray.actors.gateway_metrics import PAGE_AGE_MAX_S
from arb_ray.adapters.storage.process import free_port
from arb_ray.adapters.telemetry.metric_registry import REGISTRY, MetricKind
from tests.e2e.runs import short_folder, submit

pytestmark = pytest.mark.timeout(600)

RAY_REPORT_MS = "2000"
PAGE_TIMEOUT_S = 60.0
COUNTED_EXACTLY = ("arb_frames_total", "arb_trades_opened_total", "arb_risk_grants_total")


def read(url):
    """Return (name, labels, value) of every sample of ours on a page."""
    with urllib.request.urlopen(url, timeout=15) as answer:  # loopback, plain HTTP
        families = text_string_to_metric_families(answer.read().decode())
    return [
        (sample.name, sample.labels, sample.value)
        for family in families
        for sample in family.samples
        if "arb_" in sample.name
    ]


def by_name(samples, prefix=""):
    found = defaultdict(list)
    for name, labels, value in samples:
        found[name.removeprefix(prefix)].append((labels, value))
    return found


def total(page, name):
    return sum(value for _, value in page[name])


def missing(found):
    """Return declared metrics without a sample from a role that sets them."""
    absent = []
    for spec in REGISTRY.values():
        name = spec.exported_name + ("_count" if spec.kind is MetricKind.HISTOGRAM else "")
        roles = {labels["actor"].split(":")[0] for labels, _ in found.get(name, ())}
        if not roles or not roles <= {str(role) for role in spec.roles}:
            absent.append(name)
    return absent


def rays_page(folder):
    """Return the metrics page of the run's node; Ray leaves its port in the session's folder."""
    (port,) = {path.read_text().strip() for path in folder.rglob("metrics_export_port_*")}
    return f"http://127.0.0.1:{port}/metrics"


@pytest.fixture(scope="module")
def pages():
    """The Gateway's page of a run that has traded, Ray's a little later, the Gateway's again."""
    with short_folder() as folder:
        port = free_port()
        run = submit(folder / "d", "--duration", "300s", gateway=port, environment={
            "RAY_metrics_report_interval_ms": RAY_REPORT_MS,
        })  # fmt: skip
        with run:
            run.until_live()
            url = f"http://127.0.0.1:{port}/metrics"

            def has_traded(_):
                closed = by_name(read(url)).get("arb_trades_closed_total", ())
                return any(value for _, value in closed)

            run.until(has_traded, "a closed trade")
            run.until(lambda _: not missing(by_name(read(url))), "every metric", PAGE_TIMEOUT_S)
            gateway = by_name(read(url))

            def of_ray():
                return by_name(read(rays_page(folder)), prefix="ray_")

            def has_caught_up(_):
                ray = of_ray()
                return not missing(ray) and all(
                    total(ray, name) >= total(gateway, name) for name in COUNTED_EXACTLY
                )

            run.until(has_caught_up, "what the Gateway told, behind Ray", PAGE_TIMEOUT_S)
            ray = of_ray()
            time.sleep(2 * PAGE_AGE_MAX_S)  # a page so old is not served again
            yield gateway, ray, by_name(read(url))
            run.interrupt()
            assert run.wait(120) == 0


def test_every_declared_metric_is_on_every_page(pages):
    for page in pages:
        assert missing(page) == []


def test_every_series_carries_its_actor_and_the_declared_labels_and_is_there_once(pages):
    gateway, _, _ = pages
    for spec in REGISTRY.values():
        if spec.kind is MetricKind.HISTOGRAM:
            continue
        samples = gateway[spec.exported_name]
        for labels, value in samples:
            assert set(labels) == set(spec.exported_labels), spec.name
            assert math.isfinite(value), spec.name
        assert len({tuple(sorted(labels.items())) for labels, _ in samples}) == len(samples)


def test_the_values_can_be_true(pages):
    gateway, _, _ = pages
    actors = {labels["actor"] for labels, _ in gateway["arb_loop_time_ms"]}
    assert {"feed:upbit", "feed:binance_spot", "risk:main", "supervisor:main"} <= actors
    assert total(gateway, "arb_actors_alive") == total(gateway, "arb_actors_wanted")
    assert total(gateway, "arb_actors_wanted") + 1 == len(actors)  # the Supervisor itself
    assert total(gateway, "arb_symbols_live") == total(gateway, "arb_symbols_wanted") == 20
    assert total(gateway, "arb_metrics_unanswered_total") == 0
    assert total(gateway, "arb_errors_logged_total") == 0
    assert total(gateway, "arb_decisions_total") > 0
    assert total(gateway, "arb_frames_total") > 0
    assert total(gateway, "arb_postgres_up") == 1
    assert total(gateway, "arb_redis_fallback") == 0
    assert total(gateway, "arb_risk_state") == 0
    assert 0 < total(gateway, "arb_redis_round_trip_ms") < 1_000
    assert all(0 < value <= 1 for _, value in gateway["arb_pool_used_ratio"])
    assert all(1_000 < value < 2_000 for _, value in gateway["arb_fx_krw"])
    assert len({labels["symbol"] for labels, _ in gateway["arb_premium_bps"]}) == 20
    assert all(value > 20e6 for _, value in gateway["arb_process_memory_bytes"])
    opened, closed = (total(gateway, f"arb_trades_{what}_total") for what in ("opened", "closed"))
    assert opened >= closed > 0
    assert total(gateway, "arb_risk_grants_total") >= opened
    assert total(gateway, "arb_orders_total") >= 4 * closed
    assert (
        0 < total(gateway, "arb_tick_to_decision_ms_count") < total(gateway, "arb_decisions_total")
    )
    for name in ("arb_queue_latency_ms", "arb_reserve_ms", "arb_journal_write_ms"):
        assert total(gateway, f"{name}_sum") > 0
    assert total(gateway, "arb_daily_loss_limit_usdt") > total(gateway, "arb_daily_loss_usdt")


def test_ray_s_counts_lie_between_the_gateway_s_before_and_after(pages):
    before, ray, after = pages
    for name in COUNTED_EXACTLY:
        assert total(before, name) <= total(ray, name) <= total(after, name), name


def test_the_parts_of_the_pnl_add_up_to_it(pages):
    gateway, _, _ = pages
    realized = total(gateway, "arb_pnl_realized_usdt")
    assert total(gateway, "arb_pnl_part_usdt") == pytest.approx(realized, abs=1e-6)
    assert total(gateway, "arb_symbol_pnl_usdt") == pytest.approx(realized, abs=1e-6)
