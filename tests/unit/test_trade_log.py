"""Lines about trades, as they come out of the log: the same four fields, whoever writes."""

import io
import json
import logging

import pytest
import structlog

from arb_ray.actors.host_record import HostRecord
from arb_ray.adapters.telemetry.events import EVENTS, TRADE_EVENTS
from arb_ray.adapters.telemetry.logs import BASE_KEYS, TRADE_KEYS, configure_logs, get_log
from arb_ray.domain.errors import OutcomeUnknown, StoreUnavailable
from arb_ray.domain.risk_intent import Refused, RiskRefusal
from arb_ray.engine.decision_log import DecisionLog
from arb_ray.engine.trade_state import Phase
from tests.shell_world import Counts, D, Faulty, RunnerWorld
from tests.signal_market import F_BOOK, N_BOOK, U_CHEAP

AWAY = StoreUnavailable("postgres", "away")


@pytest.fixture
def stream():
    text = io.StringIO()
    root = logging.getLogger()
    level = root.level
    configure_logs("debug", "json", stream=text, context={"session_id": "s1", "actor": "host:000"})
    yield text
    structlog.reset_defaults()
    root.setLevel(level)
    for handler in list(root.handlers):
        if getattr(handler, "is_arb_ray", False):
            root.removeHandler(handler)


class LoggedWorld(RunnerWorld):
    def look(self):
        """Look as a host does, which passes on to the record what was found."""
        evaluation = super().look()
        if evaluation is not None:
            self.listener.evaluated(self.pair.symbol, evaluation, self.now_ns)


async def world_that_logs(**how):
    world = LoggedWorld(**how)
    world.log = get_log("arb_ray.actors.host")
    world.listener = HostRecord(Counts(), world.log, DecisionLog())
    await world.start()
    return world


def lines_of(stream, event=None):
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    return [line for line in lines if event in (None, line["event"])]


def assert_whole(lines):
    """Every line has its fields; all lines of one trade agree on them."""
    seen = {}
    for line in lines:
        assert list(line)[: len(BASE_KEYS)] == list(BASE_KEYS)
        assert (line["session_id"], line["actor"]) == ("s1", "host:000")
        assert line["event"] in EVENTS
        if line["event"] in TRADE_EVENTS:
            assert set(TRADE_KEYS) <= set(line), line
            facts = [line[key] for key in TRADE_KEYS]
            assert seen.setdefault(line.get("trade_id"), facts) == facts, line


async def test_every_line_of_a_trades_life_names_symbol_direction_size_and_edge(stream):
    world = await world_that_logs()
    await world.enter()
    await world.leave()
    assert world.is_idle
    lines = lines_of(stream)
    assert_whole(lines)
    events = [line["event"] for line in lines]
    assert events.count("order_reported") == 4
    for event in ("opportunity", "trade_opened", "trade_moved", "trade_closed"):
        assert event in events
    (opened,) = lines_of(stream, "trade_opened")
    assert opened["direction"] == "long_a_short_b"
    assert opened["notional_usd"] == pytest.approx(500, rel=0.01)
    assert opened["spread_bps"] == pytest.approx(lines_of(stream, "opportunity")[0]["spread_bps"])


async def test_a_closed_trade_tells_the_parts_of_its_profit_exactly(stream):
    world = await world_that_logs()
    await world.enter()
    await world.leave()
    (closed,) = lines_of(stream, "trade_closed")
    parts = [closed[f"pnl_{part}_usdt"] for part in ("spread", "fx", "fees", "slippage", "funding")]
    assert all(isinstance(part, str) for part in parts)
    assert abs(sum(D(part) for part in parts) - D(closed["realized_usdt"])) < D("1e-6")
    assert D(closed["realized_usdt"]) == world.listener.realized_usdt


async def test_an_opportunity_tells_every_cost_between_gross_and_net(stream):
    world = await world_that_logs()
    await world.enter()
    (line,) = lines_of(stream, "opportunity")
    costs = (
        "entry_fees_bps", "exit_fees_bps", "exit_spread_bps", "slippage_allowance_bps",
        "expected_exit_premium_bps", "expected_funding_bps", "safety_buffer_bps",
    )  # fmt: skip
    assert line["spread_bps"] - sum(line[cost] for cost in costs) == pytest.approx(
        line["net_bps"], abs=0.05
    )


async def test_an_attempt_that_comes_to_nothing_tells_why(stream):
    class NoRoom:
        def __init__(self, guard):
            self.guard = guard

        def __getattr__(self, name):
            return getattr(self.guard, name)

        async def reserve(self, intent):
            return Refused(intent.trade_id, RiskRefusal.BALANCE, "KRW is short")

    world = await world_that_logs(make_risk=NoRoom)
    await world.enter()
    lines = lines_of(stream)
    assert_whole(lines)
    (refused,) = lines_of(stream, "entry_refused")
    assert refused["reason"] == "insufficient_balance"
    (note,) = lines_of(stream, "trade_note")
    assert (note["kind"], note["detail"]) == ("risk_refused", "KRW is short")


@pytest.mark.parametrize(
    ("call", "fault", "event"),
    [
        ("append_event", AWAY, "journal_waits"),
        ("report_order", AWAY, "fill_waits_for_store"),
        ("post", AWAY, "write_waits"),
        ("accept_order", OutcomeUnknown("accept", 5), "order_reported"),
    ],
)
async def test_lines_of_trouble_name_the_trade_too(stream, call, fault, event):
    world = await world_that_logs(store=Faulty)
    world.put(u=U_CHEAP, n=N_BOOK, f=F_BOOK)
    world.look()
    if call == "post":
        await world.run()
        world.store.before["settle"] = [AWAY]
        await world.leave()
    else:
        world.store.before[call] = [fault]
        await world.run()
    assert lines_of(stream, event), [line["event"] for line in lines_of(stream)]
    assert_whole(lines_of(stream))


async def test_an_order_without_a_fill_is_a_warning(stream):
    world = await world_that_logs()
    world.put(u=U_CHEAP, n=N_BOOK, f=F_BOOK)
    world.look()
    await world.clock.settle()
    assert world.phase is Phase.ENTERING
    world.put(n=(((1000.0, 5.0),), ((2000.1, 10.0),)))  # what it would sell into is gone
    await world.run()
    levels = {line["status"]: line["level"] for line in lines_of(stream, "order_reported")}
    assert levels["cancelled"] == "warning"
    assert levels["filled"] == "info"
