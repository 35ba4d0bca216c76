"""RiskGuard's decisions of one commit on a real PostgreSQL: all in their order, or none."""

import asyncio
import random
from decimal import Context, Decimal
from types import SimpleNamespace

import asyncpg
import msgspec
import pytest

from arb_ray.adapters.storage.ledger_store import PostgresLedgerStore, digest_of
from arb_ray.adapters.storage.postgres_pool import Postgres
from arb_ray.adapters.storage.risk_decisions import WRITE, encoded
from arb_ray.adapters.storage.risk_store import PostgresRiskStore
from arb_ray.domain.errors import LedgerViolation, OutcomeUnknown, StoreUnavailable
from arb_ray.domain.instrument import Symbol, Venue
from arb_ray.domain.ledger import Account, Balance
from arb_ray.domain.risk_intent import Granted, RiskRefusal, SettleKind
from arb_ray.engine.postings import hold_entry, release_entry
from arb_ray.ports import GrantWrite, Settled
from tests.integration.conftest import BTC, KRW, a_settlement, an_intent, execute, opening

ETH, XRP = Symbol("ETH"), Symbol("XRP")


@pytest.fixture
def ledger(postgres, env):
    return PostgresLedgerStore(postgres, env)


@pytest.fixture
async def risk(postgres, ledger, env):
    store = PostgresRiskStore(postgres, env)
    await store.open_balances(await store.take_lease("guard"), opening())
    for symbol in (BTC, ETH, XRP):
        await ledger.claim_symbol(symbol, "host")
    return store


def grant(trade_id, symbol=BTC, at_ns=6, **changes):
    intent = an_intent(trade_id, symbol=symbol, **changes)
    return GrantWrite(intent, hold_entry(intent, at_ns), at_ns)


def void(trade_id, symbol=BTC):
    settlement = a_settlement(trade_id, kind=SettleKind.VOIDED, pnl="0")
    return msgspec.structs.replace(settlement, symbol=symbol)


def unbalanced(one):
    """The same grant with a hold that takes one more than it gives."""
    # An entry refuses to be built so, and the database must not rely on that.
    first, *rest = one.hold.postings
    first = msgspec.structs.replace(first, amount=first.amount - 1)
    hold = SimpleNamespace(**msgspec.structs.asdict(one.hold) | {"postings": (first, *rest)})
    return GrantWrite(one.intent, hold, one.at_ns)


async def amounts(ledger):
    return {b.account: b.amount for b in await ledger.balances() if b.amount}


async def test_a_group_is_written_in_its_order(risk, ledger):
    await risk.write(1, [grant("BTC-1")])
    ended, following = await risk.write(1, [void("BTC-1"), grant("BTC-2")])
    assert ended.is_new
    assert isinstance(following, Granted)
    busy, ended = await risk.write(1, [grant("BTC-3"), void("BTC-2")])
    assert busy.reason is RiskRefusal.SYMBOL_BUSY
    assert ended.is_new
    assert await amounts(ledger) == {Account.FREE: 1000000, Account.OPENING: -1000000}


async def test_two_of_a_group_cannot_hold_the_same_money(risk, ledger):
    dear = an_intent("x").holds[0]
    dear = (msgspec.structs.replace(dear, amount=Decimal(600_000)),)
    first, second = await risk.write(
        1, [grant("BTC-1", holds=dear), grant("ETH-1", ETH, holds=dear)]
    )
    assert isinstance(first, Granted)
    assert second.reason is RiskRefusal.BALANCE
    assert "has 400000" in second.detail
    assert (await amounts(ledger))[Account.HELD] == 600_000


async def test_one_that_is_violated_leaves_no_trace_and_the_others_are_written(risk, ledger, env):
    outcomes = await risk.write(
        1,
        [
            grant("BTC-1"),
            a_settlement("BTC-9"),  # it was never granted
            unbalanced(grant("ETH-1", ETH)),
            grant("XRP-1", XRP),
        ],
    )
    kinds = [type(outcome) for outcome in outcomes]
    assert kinds == [Granted, LedgerViolation, LedgerViolation, Granted]
    assert "never granted" in str(outcomes[1])
    assert "does not balance" in str(outcomes[2])
    books = await risk.load(1, 0, 0, 9)
    assert [one.intent.trade_id for one in books.open_reservations] == ["BTC-1", "XRP-1"]
    assert await ledger.open_trade(ETH) is None
    assert (await risk.write(1, [grant("ETH-1", ETH)]))[0] == Granted("ETH-1", 1, 6)


async def test_one_alone_that_does_not_balance_is_refused_at_its_commit(risk, ledger):
    with pytest.raises(LedgerViolation, match="does not balance"):
        await risk.write(1, [unbalanced(grant("BTC-1"))])
    assert await ledger.open_trade(BTC) is None
    assert Account.HELD not in await amounts(ledger)


async def test_a_repeated_group_answers_the_same_and_posts_nothing(risk, ledger):
    group = [grant("BTC-1"), void("ETH-1", ETH), grant("XRP-1", XRP)]
    first = await risk.write(1, group)
    before = await amounts(ledger)
    again = await risk.write(1, [msgspec.structs.replace(group[0], at_ns=9), *group[1:]])
    assert again[0] == first[0] == Granted("BTC-1", 1, 6)
    assert (first[1], again[1]) == (Settled(is_new=True), Settled(is_new=False))
    assert again[2] == first[2]
    assert await amounts(ledger) == before


async def test_a_group_waits_for_the_one_before_whose_answer_was_given_up(
    risk, ledger, postgres, env
):
    async with postgres.transaction("the call that we gave up") as connection:
        await connection.fetch(WRITE, env, 1, encoded([grant("BTC-1"), grant("ETH-1", ETH)]))
        later = asyncio.create_task(risk.write(1, [void("ETH-1", ETH), void("BTC-1")]))
        done, _ = await asyncio.wait([later], timeout=0.2)
        assert not done
    assert [outcome.is_new for outcome in await later] == [True, True]
    assert await amounts(ledger) == {Account.FREE: 1000000, Account.OPENING: -1000000}


async def test_a_takeover_waits_for_a_group_under_way_and_the_next_is_fenced(risk, postgres, env):
    async with postgres.transaction("a group under way") as connection:
        await connection.fetch(WRITE, env, 1, encoded([grant("BTC-1"), grant("ETH-1", ETH)]))
        takeover = asyncio.create_task(risk.take_lease("second"))
        done, _ = await asyncio.wait([takeover], timeout=0.2)
        assert not done
    books = await risk.load(await takeover, 0, 0, 9)
    assert len(books.open_reservations) == 2


async def test_a_group_that_takes_too_long_is_given_up_before_its_commit(shared_dsn, risk, env):
    pool = Postgres(shared_dsn, statement_timeout_ms=200)
    slow = PostgresRiskStore(pool, env)
    async with risk._fenced(1, "something that locks the symbol") as connection:
        await connection.execute(
            "UPDATE arb.symbol_owners SET owner = 'x' WHERE env = $1 AND symbol = 'ETH'", env
        )
        with pytest.raises(StoreUnavailable):
            await slow.write(1, [grant("BTC-1"), grant("ETH-1", ETH)])
    await pool.close()
    assert (await risk.load(1, 0, 0, 9)).open_reservations == ()


async def test_a_wire_that_breaks_leaves_the_outcome_of_a_group_unknown(risk, postgres, env):
    locker = postgres.transaction("something that locks the symbol")
    async with locker as connection:
        await connection.execute(
            "UPDATE arb.symbol_owners SET owner = 'x' WHERE env = $1 AND symbol = 'ETH'", env
        )
        writing = asyncio.create_task(risk.write(1, [grant("BTC-1"), grant("ETH-1", ETH)]))
        done, _ = await asyncio.wait([writing], timeout=0.2)
        assert not done
        pid = await connection.fetchval(
            "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' "
            "AND query LIKE '%write_decisions%'"
        )
        await connection.execute("SELECT pg_terminate_backend($1)", pid)
        with pytest.raises(OutcomeUnknown, match="reservation BTC-1 and 1 more"):
            await writing


async def test_what_comes_free_is_posted_as_any_entry_is(risk, ledger, shared_dsn, env):
    await risk.write(1, [grant("BTC-1")])
    (settled,) = await risk.write(1, [a_settlement("BTC-1", closed_ns=60)])
    held = tuple(msgspec.structs.replace(one, account=Account.HELD) for one in settled.released)
    assert settled.released == (Balance(Venue.UPBIT, Account.FREE, KRW, held[0].amount),)
    expected = release_entry("BTC-1", BTC, held, 60)
    (row,) = await execute(
        shared_dsn,
        f"SELECT digest, at_ns, kind, symbol, trade_id FROM arb.entries "
        f"WHERE env = '{env}' AND entry_id = '{expected.entry_id}'",
    )
    assert tuple(row) == (digest_of(expected), 60, "release", "BTC", "BTC-1")


async def test_the_database_spells_an_amount_as_the_writers_of_digests_do(shared_dsn):
    chance = random.Random(7)
    amounts = [Decimal(text) for text in ("0", "1E+11", "-0.000001", "0.0000001", "1.50", "-10")]
    amounts += [  # more digits than are kept, and halves
        Decimal("1234567890123456789012345678.5"),
        Decimal("1234567890123456789012345677.5"),
        Decimal("-123456789012345678901234567890.5"),
        Decimal("9" * 29),
        Decimal("0.00012345678901234567890123456789012"),
    ]
    for _ in range(3000):
        digits = chance.randint(1, chance.choice((6, 18, 40)))
        amounts.append(
            Decimal((chance.randint(0, 1), tuple(chance.choices(range(10), k=digits)),
                     chance.randint(-30, 12)))
        )  # fmt: skip
    connection = await asyncpg.connect(shared_dsn)
    try:
        spelled = await connection.fetchval(
            "SELECT array_agg(arb.decimal_text(one) ORDER BY number) "
            "FROM unnest($1::numeric[]) WITH ORDINALITY AS a (one, number)",
            amounts,
        )
    finally:
        await connection.close()
    for amount, text in zip(amounts, spelled, strict=True):
        normal = amount.normalize(Context(prec=28))
        assert text == (str(normal) if normal else "0")
