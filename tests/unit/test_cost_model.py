"""Costs that were put in come out, and nothing costs less than nothing."""

import pytest

from arb_ray.engine.latency import LatencyHistogram
from arb_ray.engine.status import HostStatus, SystemStatus
from benchmarks.cost_model import fit
from benchmarks.latencies import gained
from benchmarks.scale import group_of

POINTS = [(10, 400.0), (50, 900.0), (300, 1700.0), (300, 1100.0)]


def test_costs_that_were_put_in_come_out():
    cost = fit(POINTS, [0.2 + 0.001 * symbols + 0.0003 * updates for symbols, updates in POINTS])
    assert cost.per_node == pytest.approx(0.2)
    assert cost.per_symbol == pytest.approx(0.001)
    assert cost.per_update == pytest.approx(0.0003)
    assert cost.of(1000, 5000) == pytest.approx(2.7)
    assert cost.residuals == pytest.approx([0.0] * 4, abs=1e-9)


def test_no_cost_is_negative():
    cost = fit(POINTS, [1.0 - 0.0005 * symbols for symbols, _ in POINTS])
    assert min(cost.per_node, cost.per_symbol, cost.per_update) >= 0
    assert any(cost.residuals)


def test_memory_is_fitted_by_symbols_alone():
    cost = fit(POINTS, [updates for _, updates in POINTS], by_updates=False)
    assert cost.per_update == 0.0


def status(counts: dict[int, int], born_ns: int = 1) -> SystemStatus:
    host = HostStatus(True, "", [], [], latency_counts=counts, latency_max_ns=10**9)
    host.born_ns = born_ns
    return SystemStatus(
        *("s", "t", False, ["h"], {"h": host}, {}),
        *({}, {}, {}, {}, []),
    )


def test_delays_between_two_statuses_are_those_that_were_added():
    delays = LatencyHistogram()
    delays.add(900_000_000)
    before = delays.sparse()
    delays.add(2_000_000, times=3)
    gain = gained(status(before), status(delays.sparse()))
    assert gain.count == 3
    assert 2.0 <= gain.max_ns / 1e6 <= 2.1


def test_a_host_that_was_born_meanwhile_is_taken_whole():
    gain = gained(status({5: 7}), status({5: 7, 6: 1}, born_ns=2))
    assert gain.count == 8


def test_processes_belong_to_one_group_each():
    assert group_of("ray::SourceActor") == "exchanges"
    assert group_of("ray::RiskGuardActor") == group_of("submit") == "singletons"
    assert group_of("postgres") == "stores"
    assert group_of("ray gcs_server") == group_of("ray::IDLE") == "ray"
