"""What must hold of the ledger, over random histories that the real stores write to PostgreSQL."""

import asyncio
import itertools
import time
from decimal import Decimal

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from arb_ray.adapters.storage.audit import risk, risk_pace
from arb_ray.adapters.storage.audit.check import Scope
from arb_ray.adapters.storage.audit.runner import audit
from arb_ray.adapters.storage.pnl_records import By, PnlScope, read_pnl
from arb_ray.adapters.storage.postgres_pool import Postgres
from arb_ray.domain.ledger import NO_PNL
from arb_ray.domain.opportunity import Direction
from arb_ray.domain.risk_intent import Granted, Refused, RiskState, SettleKind, Settlement
from arb_ray.engine.postings import hold_entry
from arb_ray.engine.risk import RiskBook, StateChange
from arb_ray.engine.risk_limits import DAY_NS, MINUTE_NS
from tests.integration.conftest import an_intent, opening
from tests.ledger_world import LedgerWorld
from tests.risk_world import LIMITS
from tests.trade_world import BTC_PERP, BTC_SPOT, PEPE_PERP, PEPE_SPOT

D = Decimal
PARTS = ("spread", "fx", "fees", "slippage", "funding")
_numbers = itertools.count(1)

few = settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def on_database(dsn, work):
    """Run ``work(postgres, env)`` in an environment of its own."""

    async def run():
        postgres = Postgres(dsn)
        try:
            return await work(postgres, f"random{next(_numbers)}")
        finally:
            await postgres.close()

    return asyncio.run(run())


# Whole lives of trades


@st.composite
def histories(draw):
    """Up to three trades on each of two symbols, how they are interleaved, what is said twice."""
    lives = [
        draw(
            st.lists(
                st.tuples(
                    st.sampled_from(pairs), st.sampled_from(list(Direction)), st.integers(0, 999)
                ),
                max_size=3,
            )
        )
        for pairs in ((BTC_SPOT, BTC_PERP), (PEPE_SPOT, PEPE_PERP))
    ]
    return lives, draw(st.randoms(use_true_random=False))


async def write(world, lives, random, *, is_doubled):
    """
    Write the lives of each symbol in turn, those of both interleaved by chance; return them.

    A trade is planned when the one before it on its symbol has ended: it takes its dust along.
    """
    waiting = [list(of_symbol) for of_symbol in lives]
    queues = [[] for _ in lives]
    lived = [[] for _ in lives]
    done = []
    while True:
        for number, queue in enumerate(queues):
            if not queue and waiting[number]:
                life = await world.lived(*waiting[number].pop(0))
                lived[number].append(life)
                queue.extend((life, step) for step in life.writes)
        if not any(queues):
            return lived
        queue = random.choice([queue for queue in queues if queue])
        life, step = queue.pop(0)
        done.append((life, step))
        await say(world, life, step)
        if is_doubled:
            await say_again(world, life, step)
            await say_again(world, *random.choice(done))


async def say(world, life, step):
    kind, *content = step
    await getattr(world, f"_{kind}")(life.plan, *content)


async def say_again(world, life, step):
    kind, *content = step
    if kind == "settle":
        is_new, released = await world.risk.settle(world.epoch, *content)
        assert (is_new, released) == (False, ())
    elif kind == "grant":
        hold = hold_entry(content[0], 77)
        verdict = await world.risk.grant(world.epoch, content[0], hold, 77)
        assert isinstance(verdict, Granted | Refused)  # refused once it has ended
    else:
        await say(world, life, step)


async def tell(world, lives, random, *, is_doubled):
    """Return what the ledger says in the end, without the names that differ by environment."""
    await world.begin()
    lived = await write(world, lives, random, is_doubled=is_doubled)
    async with world.postgres.connection() as connection:
        balances = await connection.fetch(
            "SELECT venue, account, asset, amount FROM arb.balances WHERE env = $1 ORDER BY 1, 2, 3",
            world.env,
        )
        counts = [
            await connection.fetchval(f"SELECT count(*) FROM arb.{table} WHERE env = $1", world.env)
            for table in ("entries", "postings", "orders", "order_reports", "fills", "trades",
                          "trade_events", "reservations", "reservation_outcomes")
        ]  # fmt: skip
    report = await read_pnl(world.postgres, By.TRADE, PnlScope(world.env))
    return lived, report, [tuple(row) for row in balances], counts


@few
@given(histories())
def test_writes_that_are_doubled_and_interleaved_change_nothing(shared_dsn, history):
    lives, random = history

    async def once(postgres, env):
        return await tell(LedgerWorld(postgres, env), lives, random, is_doubled=False)

    async def twice(postgres, env):
        told = await tell(LedgerWorld(postgres, env), lives, random, is_doubled=True)
        found = await audit(shared_dsn, Scope(env))
        assert [o.told for o in found.outcomes if o.violations] == []
        return told

    _, first, balances, counts = on_database(shared_dsn, once)
    _, again, balances_again, counts_again = on_database(shared_dsn, twice)
    assert (balances_again, counts_again) == (balances, counts)
    figures = [msgspec.structs.astuple(row)[1:] for row in first.rows]
    assert sorted(msgspec.structs.astuple(row)[1:] for row in again.rows) == sorted(figures)


@few
@given(histories())
def test_the_views_sum_to_what_the_engine_settled(shared_dsn, history):
    lives, random = history

    async def read(postgres, env):
        world = LedgerWorld(postgres, env)
        lived, report, balances, _ = await tell(world, lives, random, is_doubled=False)
        grouped = [await read_pnl(postgres, by, PnlScope(env)) for by in By]
        return lived, report, balances, grouped

    lived, report, balances, grouped = on_database(shared_dsn, read)
    settled = {
        step[1].trade_id: step[1]
        for of_symbol in lived
        for life in of_symbol
        for step in life.writes
        if step[0] == "settle" and step[1].kind is SettleKind.POSTED and step[1].notional_usdt
    }
    assert {row.key for row in report.rows} == set(settled)
    for row in report.rows:
        settlement = settled[row.key]
        assert row.realized_usdt == settlement.realized_usdt
        assert [getattr(row, f"{p}_usdt") for p in PARTS] == [
            getattr(settlement.parts, part) for part in PARTS
        ]
    for one in grouped:
        assert msgspec.structs.replace(one.total, key="") == (
            msgspec.structs.replace(report.total, key="")
        )
        assert sum(row.realized_usdt for row in one.rows) == sum(
            settlement.realized_usdt for settlement in settled.values()
        )
    # Nothing is made and nothing is lost: each asset sums to zero over all accounts.
    for asset in {asset for _, _, asset, _ in balances}:
        assert sum(amount for _, _, other, amount in balances if other == asset) == 0


# A guard and its limits

TIGHT = msgspec.structs.replace(
    LIMITS, entries_per_minute_count=3, drawdown_usdt=D(40), consecutive_losses_count=2
)
SYMBOLS = ("BTC", "ETH", "XRP")

steps = st.one_of(
    st.tuples(st.just("ask"), st.sampled_from(SYMBOLS), st.integers(1, 40)),
    st.tuples(st.just("settle"), st.sampled_from(SYMBOLS), st.integers(-45, 40)),
    st.tuples(st.just("ask"), st.sampled_from(SYMBOLS), st.integers(1, 40)),
    st.tuples(st.just("restart"), st.just("BTC"), st.just(0)),
    st.tuples(st.just("resume"), st.just("BTC"), st.just(0)),
)
pauses_s = st.sampled_from([0.001, 1, 10, 200, 400, 20_000])


class Guard:
    """RiskGuard's rules on its real store, with a clock that is told what time it is."""

    def __init__(self, postgres, env, limits):
        self.world = LedgerWorld(postgres, env)
        self.limits = limits
        # Ahead of the database's clock: then its stamps tell the order, and the day is the guard's.
        self.now_ns = (time.time_ns() // DAY_NS + 2) * DAY_NS + DAY_NS // 3
        self.open = {}
        self.count = 0
        self.fee = D("0.1")

    async def start(self):
        await self.world.take_over(self.limits)
        await self.world.risk.open_balances(self.world.epoch, opening())
        await self.rebuild()

    async def restart(self, *_):
        await self.world.take_over(self.limits)
        await self.rebuild()

    async def rebuild(self):
        stored = await self.world.risk.load(
            self.world.epoch,
            self.now_ns // DAY_NS * DAY_NS,
            self.now_ns - MINUTE_NS,
            self.limits.recent_count,
        )
        self.book = RiskBook(self.limits, self.world.epoch, stored, self.now_ns)
        await self.write_changes()

    async def write_changes(self):
        for change in self.book.take_state_changes():
            await self.world.risk.set_state(self.world.epoch, change)

    async def step(self, kind, symbol, number, pause_s):
        self.now_ns += int(pause_s * 10**9)
        await getattr(self, kind)(symbol, number)

    async def ask(self, symbol, worst):
        self.count += 1
        owner = await self.world.ledger.claim_symbol(symbol, "host")
        intent = an_intent(
            f"{symbol}-{self.count}",
            owner,
            symbol=symbol,
            hold="1",
            worst_loss_usdt=D(worst),
            asked_ns=self.now_ns,
            deadline_ns=self.now_ns + 10**9,
        )
        verdict = self.book.decide(intent, self.now_ns)
        if isinstance(verdict, Refused):
            return
        self.book.apply_grant(intent, self.now_ns)
        hold = hold_entry(intent, self.now_ns)
        stored = await self.world.risk.grant(self.world.epoch, intent, hold, self.now_ns)
        assert isinstance(stored, Granted), stored
        self.open[symbol] = intent.trade_id

    async def settle(self, symbol, pnl):
        if symbol not in self.open:
            return
        parts = msgspec.structs.replace(NO_PNL, spread=D(str(pnl)))
        settlement = Settlement(
            self.open.pop(symbol), symbol, SettleKind.POSTED, parts, parts.total, self.fee, D(100),
            self.now_ns, "take_profit",
        )  # fmt: skip
        self.book.halt_by(settlement, self.now_ns)
        await self.write_changes()
        _, released = await self.world.risk.settle(self.world.epoch, settlement)
        self.book.apply_settlement(settlement, released, self.now_ns)
        await self.write_changes()

    async def charge(self, _, fee):
        self.fee = fee

    async def resume(self, *_):
        change = StateChange(RiskState.ACTIVE, "seen", "operator", self.now_ns)
        await self.world.risk.set_state(self.world.epoch, change)
        self.book.set_state(change)


async def guarded(postgres, env, history, limits=TIGHT):
    """Live a history; return the guard, and what the audit's checks of risk found."""
    guard = Guard(postgres, env, limits)
    await guard.start()
    for (kind, symbol, number), pause_s in history:
        await guard.step(kind, symbol, number, pause_s)
    async with postgres.connection() as connection, connection.transaction():
        outcomes = [
            await check.look(connection, Scope(env)) for check in (*risk.CHECKS, *risk_pace.CHECKS)
        ]
    day = await read_pnl(postgres, By.DAY, PnlScope(env))
    return guard, {o.name: o.told for o in outcomes if o.violations}, day


@few
@given(st.lists(st.tuples(steps, pauses_s), max_size=30))
def test_the_audit_finds_nothing_in_what_a_guard_grants_and_both_know_the_days_figure(
    shared_dsn, history
):
    guard, found, day = on_database(
        shared_dsn, lambda postgres, env: guarded(postgres, env, history)
    )
    assert found == {}
    status = guard.book.status(guard.now_ns)
    today = {row.key: row for row in day.rows}.get(status.day)
    assert status.realized_usdt == (today.realized_usdt if today else 0)
    assert status.daily_loss_usdt == max(0, -status.realized_usdt)
    assert status.open_trades == day.open_trades


def ask_and_settle(*figures, pause_s=30):
    """One trade after the other on one symbol."""
    return [
        step
        for figure in figures
        for step in (
            (("ask", "BTC", 20), pause_s),
            (("settle", "BTC", figure), 0.001),
        )
    ]


QUICK = [(("ask", symbol, 5), 0.001) for symbol in ("BTC", "ETH", "XRP")]


@pytest.mark.parametrize(
    ("blind_to", "history", "check", "words"),
    [
        ("pace", [*QUICK, (("settle", "BTC", 1), 0.001), (("ask", "BTC", 5), 0.001)],
         "risk.pace", "it is the 4. of a minute of at most 3"),
        ("pace", ask_and_settle(-1, -1, -1), "risk.pace",
         "2 trades in a row had lost, and 239.999 s of the pause were left"),
        ("loss", ask_and_settle(15, -15, -15, -10, -1, pause_s=400), "risk.pace",
         "the day was 40 USDT below its best, 40 are the limit"),
        ("loss", ask_and_settle(*[-19] * 5, pause_s=400), "risk.daily_loss", "pass its limit of 60"),
        ("asker", ask_and_settle(1, 1, 1, 1, 1, pause_s=400), "risk.pace",
         "4 of the last 4 trades had won"),
        ("asker", [(("charge", "", D("0.001")), 0), *ask_and_settle(1, -1, 1, -1, 1, pause_s=400)],
         "risk.pace", "the last 4 trades paid 0.10 bps of fees"),
        ("asker", ask_and_settle(-30, 1, pause_s=400), "risk.state", "made the guard halted"),
    ],
)  # fmt: skip
def test_a_guard_that_overlooks_a_limit_is_found(
    shared_dsn, monkeypatch, blind_to, history, check, words
):
    _, found, _ = on_database(shared_dsn, lambda pg, env: guarded(pg, env, history))
    assert found == {}
    suffix = {"pace": "to_pace", "loss": "to_loss", "asker": "to_asker"}[blind_to]
    monkeypatch.setattr(RiskBook, f"_objection_{suffix}", lambda *_: None)
    _, found, _ = on_database(shared_dsn, lambda pg, env: guarded(pg, env, history))
    assert any(words in told for told in found.get(check, ())), found


RESUME = [(("resume", "BTC", 0), 1)]


@pytest.mark.parametrize(
    "history",
    [
        # An operator has seen that all had won, and the last trades are counted anew.
        [*ask_and_settle(1, 1, 1, 1, pause_s=400), *RESUME, *ask_and_settle(1, pause_s=400)],
        ask_and_settle(-1, 0, -1, 1),  # what won nothing ended the run of losses
        ask_and_settle(15, -15, -15, -9.99, -1, pause_s=400),
        ask_and_settle(1, 1, 1, -1, 1, pause_s=400),
    ],
)
def test_what_lies_on_the_bound_is_granted_and_not_found(shared_dsn, history):
    limits = msgspec.structs.replace(TIGHT, win_rate_max_ratio=0.75)
    guard, found, _ = on_database(shared_dsn, lambda pg, env: guarded(pg, env, history, limits))
    assert found == {}
    asked = [step for step, _ in history if step[0] == "ask"]
    assert len(guard.book._refused) == 0
    assert guard.count == len(asked)
