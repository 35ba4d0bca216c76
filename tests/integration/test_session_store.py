"""Sessions on a real PostgreSQL: one is open an environment, however many start at once."""

import asyncio
import datetime as dt
from decimal import Decimal

import msgspec
import pytest

from arb_ray.adapters.storage.ledger_store import PostgresLedgerStore
from arb_ray.adapters.storage.postgres_pool import Postgres
from arb_ray.adapters.storage.risk_store import PostgresRiskStore
from arb_ray.adapters.storage.session_store import SessionStore, new_session_id
from arb_ray.domain.errors import BadInput, LedgerViolation
from arb_ray.domain.ledger import PnlParts
from arb_ray.domain.risk_intent import Granted, SettleKind
from arb_ray.engine.postings import hold_entry
from arb_ray.engine.trade_events import Signal, encode_event
from tests.integration.conftest import BTC, a_settlement, an_intent, an_order, execute, opening
from tests.trade_world import BTC_PERP, make_plan

NOW = 1_790_000_000 * 10**9


@pytest.fixture
def sessions(postgres, env):
    return SessionStore(postgres, env)


async def open_one(sessions, **changes):
    fields = {"source": "sim", "preset": "lively", "seed": 7, "now_ns": NOW, "is_new": False}
    return await sessions.open(**(fields | changes))


async def test_the_open_session_is_continued_with_its_own_seed_and_origin(sessions):
    first = await open_one(sessions)
    assert not first.is_resumed
    second = await open_one(sessions, seed=99, now_ns=NOW + 10**9)
    assert second.is_resumed
    assert (second.session_id, second.seed, second.origin_ns) == (first.session_id, 7, NOW)


async def test_a_new_session_is_asked_for_by_name(sessions):
    first = await open_one(sessions)
    second = await open_one(sessions, is_new=True, now_ns=NOW + 1)
    assert second.session_id != first.session_id
    assert not second.is_resumed
    assert (await open_one(sessions)).session_id == second.session_id


async def test_another_market_begins_another_session(sessions):
    first = await open_one(sessions)
    for changes in ({"preset": "calibrated"}, {"source": "paper"}):
        other = await open_one(sessions, **changes)
        assert other.session_id != first.session_id
        first = other


async def test_many_starts_at_once_share_one_session(shared_dsn, env):
    pools = [Postgres(shared_dsn) for _ in range(4)]
    found = await asyncio.gather(*(open_one(SessionStore(pool, env)) for pool in pools))
    assert len({session.session_id for session in found}) == 1
    assert sum(not session.is_resumed for session in found) == 1
    for pool in pools:
        await pool.close()


async def test_environments_do_not_meet(postgres, env):
    one = await open_one(SessionStore(postgres, env))
    other = await open_one(SessionStore(postgres, f"{env}-other"))
    assert one.session_id != other.session_id
    assert not other.is_resumed


def test_ids_sort_by_time_and_do_not_collide():
    now = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
    ids = {new_session_id(now) for _ in range(2_000)}
    assert len(ids) == 2_000
    assert min(ids) > new_session_id(now - dt.timedelta(seconds=1))


class Trades:
    """The ledger side of a session's trades."""

    def __init__(self, postgres, env):
        self.ledger = PostgresLedgerStore(postgres, env)
        self.risk = PostgresRiskStore(postgres, env)

    async def start(self):
        self.epoch = await self.risk.take_lease("guard")
        await self.risk.open_balances(self.epoch, opening())
        self.owner = await self.ledger.claim_symbol(BTC, "host")
        return self

    async def begin(self, trade_id, session_id):
        asked = an_intent(trade_id, self.owner, session_id=session_id)
        verdict = await self.risk.grant(self.epoch, asked, hold_entry(asked, 5), 5)
        assert isinstance(verdict, Granted)

    async def end(self, trade_id, kind=SettleKind.POSTED, pnl="0.3", notional="100"):
        end = a_settlement(trade_id, kind, pnl)
        end = msgspec.structs.replace(end, notional_usdt=Decimal(notional))
        await self.risk.settle(self.epoch, end)


async def test_a_market_that_could_not_close_them_is_not_given_open_trades(postgres, env, sessions):
    first = await open_one(sessions)
    trades = await Trades(postgres, env).start()
    await trades.begin("BTC-1", first.session_id)
    for changes in ({"source": "paper"}, {"is_new": True}):
        with pytest.raises(BadInput, match="1 open trades"):
            await open_one(sessions, **changes)
    assert (await open_one(sessions)).session_id == first.session_id
    await trades.end("BTC-1")
    assert (await open_one(sessions, source="paper")).session_id != first.session_id


async def test_other_files_are_another_market(postgres, env, sessions):
    recorded = {"source": "recorded", "preset": ""}
    first = await open_one(sessions, **recorded, identity="sha256:1")
    again = await open_one(sessions, **recorded, identity="sha256:1")
    assert (again.session_id, again.identity) == (first.session_id, "sha256:1")
    second = await open_one(sessions, **recorded, identity="sha256:2")
    assert second.session_id != first.session_id
    trades = await Trades(postgres, env).start()
    await trades.begin("BTC-1", second.session_id)
    with pytest.raises(BadInput, match="1 open trades"):
        await open_one(sessions, **recorded, identity="sha256:1")
    assert (await open_one(sessions, **recorded, identity="sha256:2")).is_resumed


async def test_a_session_from_before_identities_is_its_presets(sessions, shared_dsn, env):
    first = await open_one(sessions)
    await execute(shared_dsn, "UPDATE arb.sessions SET config = '{}' WHERE env = $1", env)
    for identity in ("", "lively"):
        assert (await open_one(sessions, identity=identity)).session_id == first.session_id


async def test_open_trades_say_which_markets_they_are_on(postgres, env, sessions):
    trades = await Trades(postgres, env).start()
    assert await sessions.open_symbols() == ()
    plan = make_plan(BTC_PERP)
    signal = Signal(at_ns=1, plan=plan)
    await trades.begin(plan.trade_id, "s1")
    with pytest.raises(LedgerViolation, match="does not begin with a plan"):
        await sessions.open_symbols()
    await trades.ledger.append_event(BTC, trades.owner, plan.trade_id, 0, encode_event(signal))
    legs = (BTC_PERP.a.instrument.id, BTC_PERP.b.instrument.id)
    assert await sessions.open_symbols() == (("BTC", legs),)
    await trades.end(plan.trade_id)
    assert await sessions.open_symbols() == ()


async def test_totals_are_those_of_the_ledger_and_of_this_session(postgres, env, sessions):
    first = await open_one(sessions)
    trades = await Trades(postgres, env).start()
    assert await sessions.totals(first.session_id) == type(await sessions.totals("none"))()
    await trades.begin("BTC-1", first.session_id)
    await trades.end("BTC-1", pnl="0.3")
    await trades.begin("BTC-2", first.session_id)
    await trades.end("BTC-2", kind=SettleKind.VOIDED, pnl="0")
    await trades.begin("BTC-3", "another session")
    await trades.end("BTC-3", pnl="-9")
    await trades.begin("BTC-4", first.session_id)
    await trades.end("BTC-4", pnl="0", notional="0")
    await trades.begin("BTC-5", first.session_id)
    totals = await sessions.totals(first.session_id)
    assert (totals.trades_opened, totals.trades_closed, totals.open_positions) == (1, 1, 0)
    await trades.ledger.accept_order(BTC, trades.owner, an_order("BTC-5-0", "BTC-5"))
    totals = await sessions.totals(first.session_id)
    assert (totals.trades_opened, totals.trades_closed, totals.open_positions) == (2, 1, 1)
    assert totals.realized_usdt == Decimal("0.3")
    zero = Decimal(0)
    assert totals.parts == PnlParts(Decimal("0.3"), zero, zero, zero, zero)


async def test_a_summary_is_kept_with_its_session(shared_dsn, env, sessions):
    session = await open_one(sessions)
    await sessions.keep_summary(session.session_id, b'{"trades": 3}')
    (row,) = await execute(shared_dsn, "SELECT summary::text FROM arb.sessions WHERE env = $1", env)
    assert '"trades": 3' in row["summary"]
    assert (await open_one(sessions)).is_resumed
