"""A host's market and totals in metrics; what is not known is not told; ticks are sampled."""

import pytest

from arb_ray.actors.host_metrics import HostMetrics
from arb_ray.actors.tick_samples import SAMPLE_INTERVAL_NS, TickSamples
from arb_ray.adapters.telemetry.metrics import PrometheusMetrics
from arb_ray.engine.topology import Role
from tests.shell_world import Counts
from tests.signal_market import F_BOOK, N_BOOK, U_DEAR, U_FAIR
from tests.unit.test_strategy_host import World


@pytest.fixture
def metrics():
    return PrometheusMetrics(Role.HOST, "000")


@pytest.fixture
async def world():
    return await World().start()


def values(metrics):
    return {
        (one.name, *(value for label, value in one.labels.items() if label != "actor")): one.value
        for one in metrics.readings()
    }


def tell(figures, world):
    figures.totals(world.host)
    for runner in world.host.runners.values():
        figures.symbol(world.host, runner)


async def test_a_market_is_told_as_it_is_and_not_before_it_is_known(metrics, world):
    figures = HostMetrics(metrics)
    tell(figures, world)
    told = values(metrics)
    assert not [key for key in told if key[0] in {"arb_premium_bps", "arb_fx_krw"}]
    assert told[("arb_orders", "upbit", "filled")] == 0
    assert told[("arb_trades_closed", "ETH", "stop_loss")] == 0
    await world.put(n=N_BOOK, f=F_BOOK, u=U_FAIR)
    tell(figures, world)
    told = values(metrics)
    (row,) = (await world.status()).rows
    assert told[("arb_fx_krw",)] == (F_BOOK[0][0][0] + F_BOOK[1][0][0]) / 2
    assert told[("arb_premium_bps", "ETH")] == row.premium_bps
    assert told[("arb_net_edge_bps", "ETH")] == row.net_bps < 0
    await world.put(f=((), ()))
    tell(figures, world)
    told = values(metrics)
    assert ("arb_fx_krw",) not in told
    assert ("arb_premium_bps", "ETH") not in told
    assert ("arb_net_edge_bps", "ETH") not in told
    assert ("arb_book_age_ms", "ETH") in told


async def test_the_age_is_that_of_the_older_book(metrics, world):
    await world.put(n=N_BOOK, f=F_BOOK, u=U_FAIR)
    world.clock.set(world.clock.now_ns() + 250_000_000)
    for batch in world.batch(u=U_FAIR)[:1]:
        await world.host.deliver(batch)
    figures = HostMetrics(metrics)
    tell(figures, world)
    assert values(metrics)[("arb_book_age_ms", "ETH")] == 250


async def test_totals_are_told_once_however_often_they_are_read(metrics, world):
    figures = HostMetrics(metrics)
    await world.put(n=N_BOOK, f=F_BOOK, u=U_FAIR)
    tell(figures, world)
    tell(figures, world)
    status = await world.status()
    told = values(metrics)
    assert told[("arb_decisions",)] == status.decisions == 3
    refusals = {key[1]: value for key, value in told.items() if key[0] == "arb_refusals"}
    assert {reason: count for reason, count in refusals.items() if count} == status.refusals
    assert "risk_refused" in refusals, "known before its first time"


async def test_a_trade_is_counted_timed_and_its_orders_too(world):
    await world.enter()
    await world.put(u=U_DEAR)
    await world.run()
    status, counters = await world.status(), world.metrics.counters
    assert (status.trades_closed, status.trades_won) == (1, 1)
    assert counters["orders"] == 4
    assert counters["order_failures"] == 0
    assert world.metrics.gauges["fill_ratio"] == 1.0
    assert counters["reserve_ms"] == 1
    assert counters["journal_write_ms"] > 4
    assert counters["tick_to_decision_ms"] >= 1


async def test_an_order_without_an_answer_is_a_failure_of_its_venue(world):
    await world.put(n=N_BOOK, f=F_BOOK, u=U_FAIR)
    order = type("Order", (), {"instrument": "upbit:ETH-KRW"})()
    world.record.unanswered(order)
    assert world.metrics.counters["order_failures"] == 1


async def test_ticks_are_sampled_however_many_arrive(world):
    await world.put(n=N_BOOK, f=F_BOOK, u=U_FAIR)
    (book, *_) = world.view.books.values()
    counts = Counts()
    samples = TickSamples(counts)
    for at in range(0, 10 * SAMPLE_INTERVAL_NS, SAMPLE_INTERVAL_NS // 100):
        samples.take(book, at, at + 1)
    assert counts.counters["queue_latency_ms"] == 10
    assert counts.counters["tick_to_decision_ms"] == 10


async def test_a_sample_runs_from_the_frame_to_the_batch_and_to_the_decision(world, metrics):
    await world.put(n=N_BOOK, f=F_BOOK, u=U_FAIR)
    (book, *_) = world.view.books.values()
    arrived = book.recv_mono_ns + 3_000_000
    TickSamples(metrics).take(book, arrived, arrived + 2_000_000)
    told = {one.name: one.samples for one in metrics.readings() if one.samples}
    assert told["arb_queue_latency_ms"] == (3.0,)
    assert told["arb_tick_to_decision_ms"] == (5.0,)
