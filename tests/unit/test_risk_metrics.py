"""RiskGuard's figures: every answer counted, its loss against its limit, its state as a code."""

from decimal import Decimal

import pytest

from arb_ray.actors.risk_metrics import STATE_CODES, RiskMetrics
from arb_ray.adapters.telemetry.metrics import PrometheusMetrics
from arb_ray.domain.risk_intent import RiskState
from arb_ray.engine.topology import Role
from tests.risk_world import LIMITS
from tests.shell_world import Counts
from tests.unit.test_risk_guard import GuardWorld, ask, end


@pytest.fixture
async def world():
    return await GuardWorld().start()


def values(metrics):
    return {
        (one.name, *(value for label, value in one.labels.items() if label != "actor")): one.value
        for one in metrics.readings()
    }


async def test_losses_limits_and_state_are_the_book_s(world):
    metrics = PrometheusMetrics(Role.RISK, "main")
    figures = RiskMetrics(metrics)
    first, second = ask(), ask(2)
    await world.guard.reserve(first)
    await world.guard.settle(end(first, "-3"))
    await world.guard.reserve(second)
    figures.export(world.guard._keeper.book, world.clock.now_ns())
    told = values(metrics)
    assert told[("arb_daily_loss_usdt",)] == 3.0
    assert told[("arb_drawdown_usdt",)] == 3.0
    assert told[("arb_daily_loss_limit_usdt",)] == float(LIMITS.daily_loss_usdt)
    assert told[("arb_open_trades",)] == 1
    assert told[("arb_reserved_usdt",)] == float(second.worst_loss_usdt)
    assert told[("arb_gap_loss_usdt",)] == 0.0
    assert told[("arb_guard_epoch",)] == (await world.status()).epoch
    assert told[("arb_risk_state",)] == 0.0
    await world.guard.settle(end(second, "-25"))
    figures.export(world.guard._keeper.book, world.clock.now_ns())
    told = values(metrics)
    assert told[("arb_risk_state",)] == 2.0
    assert told[("arb_gap_loss_usdt",)] == 25.0 - float(second.worst_loss_usdt)
    assert told[("arb_daily_loss_usdt",)] == 28.0


async def test_every_answer_is_counted_and_a_repeat_is_no_second_yes():
    counts = Counts()
    world = await GuardWorld().start(metrics=counts)
    counters = counts.counters
    for _ in range(2):
        await world.guard.reserve(ask())
    assert counters["risk_grants"] == 1
    await world.guard.reserve(ask(2, worst_loss_usdt=Decimal(10_000)))
    assert counters["risk_refusals"] == 1


def test_every_state_and_refusal_is_known_from_birth():
    metrics = PrometheusMetrics(Role.RISK, "main")
    RiskMetrics(metrics)
    assert values(metrics)[("arb_risk_refusals", "daily_loss")] == 0
    assert set(STATE_CODES) == set(RiskState)
