"""
A live run's metrics, as Prometheus reads them: from the Gateway, and from Ray's export.

Each declared metric must be there with a value that can be true. The run is the one that
test_what_shows looks at too.
"""

from __future__ import annotations

import math

import pytest

from arb_ray.adapters.telemetry.metric_registry import REGISTRY, MetricKind
from tests.e2e.metric_pages import COUNTED_EXACTLY, missing, total

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def pages(shown):
    """The Gateway's page of a run that has traded, Ray's a little later, the Gateway's again."""
    return shown[0].pages


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
