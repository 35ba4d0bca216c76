"""The session's results in metrics: sums over hosts, and over the lives of each host."""

from decimal import Decimal

import msgspec
import pytest

from arb_ray.actors.system_metrics import SystemMetrics
from arb_ray.adapters.telemetry.metrics import PrometheusMetrics
from arb_ray.domain.ledger import PnlParts
from arb_ray.engine.status import HostStatus, SymbolRow
from arb_ray.engine.status_carry import host_after
from arb_ray.engine.topology import Role
from tests.unit.test_supervisor import topology as wanted_topology

PARTS = PnlParts(*map(Decimal, ("3", "0.5", "-1", "-0.25", "0")))


@pytest.fixture
def metrics():
    return PrometheusMetrics(Role.SUPERVISOR, "main")


@pytest.fixture
def system(metrics):
    return SystemMetrics(metrics)


def values(metrics):
    return {
        (one.name, *(value for label, value in one.labels.items() if label != "actor")): one.value
        for one in metrics.readings()
    }


def host(symbol="BTC", **changes):
    row = SymbolRow(symbol, realized_usdt=Decimal("2.25"), mark_usdt=Decimal("-0.5"))
    status = HostStatus(
        True, "", [symbol], [symbol], trades_closed=4, trades_won=3, open_positions=1,
        realized_usdt=Decimal("2.25"), fees_usdt=Decimal(1), parts=PARTS, rows=[row],
    )  # fmt: skip
    return msgspec.structs.replace(status, **changes)


def test_results_are_sums_over_the_hosts(metrics, system):
    system.session("s1", {"a": host(), "b": host("ETH", trades_won=0)})
    told = values(metrics)
    assert told[("arb_pnl_realized_usdt",)] == 4.5
    assert told[("arb_pnl_unrealized_usdt",)] == -1.0
    assert told[("arb_fees_usdt",)] == 2.0
    assert told[("arb_open_positions",)] == 2
    assert told[("arb_symbols_live",)] == 2
    assert told[("arb_win_rate_ratio",)] == 3 / 8
    assert told[("arb_symbol_pnl_usdt", "ETH")] == 2.25
    assert told[("arb_pnl_part_usdt", "slippage")] == -0.5
    parts = [value for (name, *_), value in told.items() if name == "arb_pnl_part_usdt"]
    assert sum(parts) == told[("arb_pnl_realized_usdt",)]


def test_a_host_s_next_life_takes_nothing_away_from_the_session(metrics, system):
    born_again = host(trades_closed=0, trades_won=0, realized_usdt=Decimal(0), parts=PARTS, rows=[
        SymbolRow("BTC")
    ])  # fmt: skip
    system.session("s1", {"a": host()})
    system.session("s1", {})  # silent for a while
    system.session("s1", {"a": host_after(host(), born_again)})
    told = values(metrics)
    assert told[("arb_pnl_realized_usdt",)] == 2.25
    assert told[("arb_symbol_pnl_usdt", "BTC")] == 2.25
    assert told[("arb_win_rate_ratio",)] == 3 / 4


def test_what_a_replaced_host_has_earned_stays_earned_until_the_session_ends(metrics, system):
    system.session("s1", {"host:000@v1": host()})
    system.session("s1", {"host:000@v2": host()})
    told = values(metrics)
    assert told[("arb_pnl_realized_usdt",)] == 4.5
    assert told[("arb_symbol_pnl_usdt", "BTC")] == 4.5
    assert told[("arb_open_positions",)] == 1, "the new one has taken the position over"
    assert told[("arb_pnl_unrealized_usdt",)] == -0.5
    system.session("s2", {"host:000@v3": host("ETH")})
    told = values(metrics)
    assert told[("arb_pnl_realized_usdt",)] == 2.25
    assert ("arb_symbol_pnl_usdt", "BTC") not in told


def test_without_a_closed_trade_the_win_rate_is_zero(metrics, system):
    system.session("s1", {})
    assert values(metrics)[("arb_win_rate_ratio",)] == 0


def test_actors_are_counted_against_what_is_wanted_and_restarts_by_role(metrics, system):
    topology = wanted_topology(groups={"000": ("BTC", "ETH"), "001": ("XRP",)})
    system.actors(topology, missing=2)
    system.restarted("host:000@v1")
    told = values(metrics)
    assert told[("arb_actors_wanted",)] == len(topology.actors)
    assert told[("arb_actors_alive",)] == len(topology.actors) - 2
    assert told[("arb_symbols_wanted",)] == 3
    assert told[("arb_actor_restarts", "host")] == 1
    assert told[("arb_actor_restarts", "risk")] == 0
