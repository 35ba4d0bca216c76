"""The journal of strategies on a real PostgreSQL, also while the wire to it breaks."""

import asyncio
import json
import os
import signal
from decimal import Decimal

import asyncpg
import msgspec
import psutil
import pytest

from arb_ray.adapters.storage import migrate
from arb_ray.adapters.storage.embedded_postgres import EmbeddedPostgres
from arb_ray.adapters.storage.ledger_store import (
    PostgresLedgerStore,
    owner_epoch_of,
    post_entries,
)
from arb_ray.adapters.storage.postgres_pool import Postgres
from arb_ray.adapters.storage.risk_store import PostgresRiskStore
from arb_ray.domain.errors import (
    BadInput,
    Fenced,
    LedgerViolation,
    OutcomeUnknown,
    StoreUnavailable,
)
from arb_ray.domain.instrument import Symbol, Venue
from arb_ray.domain.ledger import Account, Balance, Entry, EntryKind, Posting
from arb_ray.domain.order import OrderStatus
from arb_ray.domain.risk_intent import Granted
from arb_ray.engine.postings import dust_entry, hold_entry
from tests.integration.conftest import (
    BTC,
    KRW,
    a_report,
    a_settlement,
    an_intent,
    an_order,
    execute,
    fill_entry,
    move,
    opening,
)
from tests.tcp_proxy import TcpProxy
from tests.trade_world import BTC_SPOT


@pytest.fixture
def ledger(postgres, env):
    return PostgresLedgerStore(postgres, env)


@pytest.fixture
def risk(postgres, env):
    return PostgresRiskStore(postgres, env)


async def grant_trade(risk, ledger, trade_id="BTC-1", symbol=BTC):
    """Return guard epoch and owner epoch after a grant."""
    epoch = await risk.take_lease("guard")
    await risk.open_balances(epoch, opening())
    owner = await ledger.claim_symbol(symbol, "host")
    intent = an_intent(trade_id, owner, symbol=symbol)
    assert isinstance(await risk.grant(epoch, intent, hold_entry(intent, 5), 6), Granted)
    return epoch, owner


def free(amount):
    return Balance(Venue.UPBIT, Account.FREE, KRW, Decimal(amount))


async def balance_of(ledger, account):
    found = [b.amount for b in await ledger.balances() if b.account is account]
    return sum(found, Decimal(0))


async def test_trade_numbers_count_up_and_are_never_given_twice(ledger):
    numbers = await asyncio.gather(*(ledger.next_trade_number(BTC) for _ in range(12)))
    assert sorted(numbers) == list(range(1, 13))
    assert await ledger.next_trade_number(Symbol("ETH")) == 1


async def test_events_come_back_as_they_were_written(ledger, risk):
    owner = (await grant_trade(risk, ledger))[1]
    events = [
        b'{"type":"A","x":1e-05}',
        b'{ "b":2,  "a":"\\u00e9"}',
        b'{"c":10000000000000000000.0}',
    ]
    for seq, event in enumerate(events):
        await ledger.append_event(BTC, owner, "BTC-1", seq, event)
        await ledger.append_event(BTC, owner, "BTC-1", seq, event)
    stored = await ledger.open_trade(BTC)
    assert stored.events == tuple(events)
    assert stored.trade_id == "BTC-1"
    with pytest.raises(LedgerViolation, match="another event"):
        await ledger.append_event(BTC, owner, "BTC-1", 0, b'{"other":1}')
    with pytest.raises(LedgerViolation, match="event 3 is missing"):
        await ledger.append_event(BTC, owner, "BTC-1", 4, b"{}")
    assert len((await ledger.open_trade(BTC)).events) == 3


async def test_a_trade_is_open_from_its_grant_to_its_settlement(ledger, risk):
    owner = await ledger.claim_symbol(BTC, "host")
    await ledger.append_event(BTC, owner, "BTC-1", 0, b"{}")
    assert await ledger.open_trade(BTC) is None
    epoch, owner = await grant_trade(risk, ledger)
    assert (await ledger.open_trade(BTC)).events == (b"{}",)
    await risk.settle(epoch, a_settlement())
    assert await ledger.open_trade(BTC) is None
    await ledger.append_event(BTC, owner, "BTC-1", 1, b'{"settled":true}')


async def test_a_new_owner_fences_every_write_of_the_old_one(ledger, risk):
    old = (await grant_trade(risk, ledger))[1]
    new = await ledger.claim_symbol(BTC, "other host")
    assert new == old + 1
    writes = [
        ledger.append_event(BTC, old, "BTC-1", 0, b"{}"),
        ledger.accept_order(BTC, old, an_order()),
        ledger.report_order(BTC, old, an_order(), a_report(), [fill_entry()]),
        ledger.post(BTC, old, [fill_entry()]),
    ]
    for write in writes:
        with pytest.raises(Fenced, match="strategy BTC: epoch 1 was fenced by 2"):
            await write
    assert not await ledger.is_order_known("BTC-1-0")
    assert await balance_of(ledger, Account.HELD) == 1000
    with pytest.raises(Fenced):
        await ledger.append_event(Symbol("NOBODY"), 1, "x", 0, b"{}")


async def test_a_claim_waits_for_a_write_under_way(ledger, postgres, env):
    owner = await ledger.claim_symbol(BTC, "host")
    async with postgres.transaction("a write") as connection:
        assert await owner_epoch_of(connection, env, BTC) == owner
        claim = asyncio.create_task(ledger.claim_symbol(BTC, "other"))
        done, _ = await asyncio.wait([claim], timeout=0.2)
        assert not done
    assert await claim == owner + 1


async def test_a_settlement_counts_a_fill_under_way(ledger, risk, postgres, env):
    epoch, owner = await grant_trade(risk, ledger)
    async with postgres.transaction("a fill") as connection:
        posted = await post_entries(connection, env, owner, [fill_entry()])
        await ledger._require_open(connection, "fill", [posted[0].trade_id])
        settle = asyncio.create_task(risk.settle(epoch, a_settlement()))
        done, _ = await asyncio.wait([settle], timeout=0.2)
        assert not done
    assert (await settle)[1] == (free("798.5"),)
    assert await balance_of(ledger, Account.HELD) == 0


async def test_a_report_is_stored_whole_and_its_repeat_changes_nothing(
    ledger, risk, env, shared_dsn
):
    owner = (await grant_trade(risk, ledger))[1]
    order, report = an_order(), a_report()
    assert await ledger.accept_order(BTC, owner, order) is True
    assert await ledger.accept_order(BTC, owner, order) is False
    assert await ledger.is_order_known("BTC-1-0")
    assert await ledger.find_report("BTC-1-0") is None
    for _ in range(2):
        await ledger.report_order(BTC, owner, order, report, [fill_entry()])
    assert await ledger.find_report("BTC-1-0") == report
    assert await balance_of(ledger, Account.HELD) == Decimal("798.5")
    assert sum(b.amount for b in await ledger.balances()) == 0
    fills = await execute(shared_dsn, "SELECT * FROM arb.fills WHERE env = $1", env)
    assert len(fills) == 1
    assert json.loads(fills[0]["book_slice"]) == [["100.5", "2.5"]]
    assert (fills[0]["price"], fills[0]["fee_amount"]) == (Decimal("100.5"), Decimal("0.5"))


async def test_a_repeat_with_other_content_is_a_violation(ledger, risk):
    owner = (await grant_trade(risk, ledger))[1]
    await ledger.report_order(BTC, owner, an_order(), a_report(), [fill_entry()])
    before = await ledger.balances()
    with pytest.raises(LedgerViolation, match="another order"):
        await ledger.accept_order(BTC, owner, an_order(decided_ns=8))
    with pytest.raises(LedgerViolation, match="another report"):
        await ledger.report_order(BTC, owner, an_order(), a_report(price="99"), [fill_entry()])
    with pytest.raises(LedgerViolation, match="another entry"):
        await ledger.report_order(BTC, owner, an_order(), a_report(), [fill_entry(paid="1")])
    other = msgspec.structs.replace(fill_entry(paid="1"), entry_id="new")
    with pytest.raises(LedgerViolation, match="brings a new entry"):
        await ledger.report_order(BTC, owner, an_order(), a_report(), [fill_entry(), other])
    assert await ledger.balances() == before


async def test_a_report_that_breaks_half_way_leaves_nothing(ledger, risk):
    owner = (await grant_trade(risk, ledger))[1]
    await ledger.post(BTC, owner, [fill_entry("taken")])
    clash = msgspec.structs.replace(fill_entry(paid="3"), entry_id="fill:taken-f0")
    with pytest.raises(LedgerViolation):
        await ledger.report_order(BTC, owner, an_order(), a_report(), [fill_entry(), clash])
    assert not await ledger.is_order_known("BTC-1-0")
    assert await ledger.find_report("BTC-1-0") is None
    assert await balance_of(ledger, Account.HELD) == Decimal("798.5")


async def test_an_order_needs_an_open_trade(ledger, risk):
    owner = await ledger.claim_symbol(BTC, "host")
    with pytest.raises(LedgerViolation):
        await ledger.accept_order(BTC, owner, an_order())
    epoch, owner = await grant_trade(risk, ledger)
    await ledger.report_order(BTC, owner, an_order(), a_report(), [fill_entry()])
    await risk.settle(epoch, a_settlement())
    with pytest.raises(LedgerViolation, match="trade BTC-1 is closed"):
        await ledger.accept_order(BTC, owner, an_order("BTC-1-1"))
    with pytest.raises(LedgerViolation, match="trade BTC-1 is closed"):
        await ledger.post(BTC, owner, [fill_entry("late")])
    await ledger.report_order(BTC, owner, an_order(), a_report(), [fill_entry()])


async def test_the_database_refuses_what_the_domain_would_not_build(ledger):
    owner = await ledger.claim_symbol(BTC, "host")
    entry = Entry("bad", EntryKind.FUNDING, BTC, None, 1, move("funding", "free", "5"))
    lame = (entry.postings[0], Posting(Venue.UPBIT, Account.FREE, KRW, Decimal(4)))
    msgspec.structs.force_setattr(entry, "postings", lame)
    with pytest.raises(LedgerViolation, match="does not balance: KRW -1"):
        await ledger.post(BTC, owner, [entry])
    assert await ledger.balances() == ()


async def test_environments_do_not_see_each_other(ledger, risk, postgres):
    await grant_trade(risk, ledger)
    other = PostgresLedgerStore(postgres, "elsewhere")
    assert await other.balances() == ()
    assert await other.open_trade(BTC) is None
    assert await other.next_trade_number(Symbol("ISOLATED")) == 1


async def test_a_cut_wire_is_store_unavailable_and_the_next_call_works(
    embedded_postgres, shared_dsn, env
):
    async with TcpProxy("127.0.0.1", embedded_postgres.port) as proxy:
        dsn = shared_dsn.replace(f":{embedded_postgres.port}/", f":{proxy.port}/")
        postgres = Postgres(dsn, statement_timeout_ms=500, acquire_timeout_s=1)
        ledger = PostgresLedgerStore(postgres, env)
        assert await ledger.next_trade_number(BTC) == 1
        proxy.cut()
        proxy.refuse(True)
        with pytest.raises(StoreUnavailable):
            await ledger.next_trade_number(BTC)
        with pytest.raises(StoreUnavailable):
            await ledger.balances()
        proxy.refuse(False)
        assert await ledger.next_trade_number(BTC) == 2
        assert postgres.in_use == 0
        await postgres.close()


async def test_a_wire_that_breaks_during_the_commit_leaves_the_outcome_unknown(
    embedded_postgres, shared_dsn, env
):
    async with TcpProxy("127.0.0.1", embedded_postgres.port) as proxy:
        dsn = shared_dsn.replace(f":{embedded_postgres.port}/", f":{proxy.port}/")
        postgres = Postgres(dsn)
        with pytest.raises(OutcomeUnknown, match="commit of a test"):  # noqa: PT012 - the exit raises
            async with postgres.transaction("a test") as connection:
                await connection.execute(
                    "INSERT INTO arb.topology (env, version, desired) VALUES ($1, 1, '{}')", env
                )
                proxy.stall()
                asyncio.get_running_loop().call_later(0.05, proxy.cut)
        proxy.resume()
        with pytest.raises(StoreUnavailable):  # noqa: PT012 - the transaction is one statement
            async with postgres.transaction("a test") as connection:
                proxy.cut()
                await connection.execute("SELECT 1")
        assert postgres.in_use == 0
        await postgres.close()


async def test_a_slow_statement_is_given_up_by_the_server(shared_dsn):
    postgres = Postgres(shared_dsn, statement_timeout_ms=50)
    with pytest.raises(StoreUnavailable, match="statement timeout"):
        async with postgres.transaction("a nap") as connection:
            await connection.execute("SELECT pg_sleep(5)")
    await postgres.close()


async def test_a_wrong_argument_is_a_bug_and_no_outage(postgres):
    with pytest.raises(asyncpg.DataError):
        async with postgres.connection() as connection:
            await connection.fetch("SELECT $1::bigint", "not a number")


async def test_an_address_that_is_none_is_said_and_not_tried_again():
    with pytest.raises(BadInput, match="PostgreSQL's address"):
        await PostgresLedgerStore(Postgres("http://nowhere"), "e").balances()


async def test_a_full_pool_makes_callers_wait_no_longer_than_told(shared_dsn):
    postgres = Postgres(shared_dsn, size=1, acquire_timeout_s=0.1)
    assert postgres.used_ratio == 0.0
    async with postgres.connection():
        assert postgres.in_use == 1
        assert postgres.used_ratio == 1.0
        with pytest.raises(StoreUnavailable):
            async with postgres.connection():
                raise AssertionError("there is one connection only")
    assert postgres.used_ratio == 1.0, "a peak is told after it has passed"
    await postgres.close()


async def test_what_was_committed_survives_a_killed_server(tmp_path):
    async with EmbeddedPostgres(tmp_path / "pg") as pg:
        await asyncio.to_thread(migrate.apply, pg.dsn)
        postgres = Postgres(pg.dsn)
        ledger, risk = PostgresLedgerStore(postgres, "e"), PostgresRiskStore(postgres, "e")
        owner = (await grant_trade(risk, ledger))[1]
        await ledger.report_order(BTC, owner, an_order(), a_report(), [fill_entry()])
        postmaster = psutil.Process(pg.pid)
        for process in (postmaster, *postmaster.children()):
            os.kill(process.pid, signal.SIGKILL)
        with pytest.raises((StoreUnavailable, OutcomeUnknown)):
            await ledger.next_trade_number(BTC)
    await postgres.close()

    async with EmbeddedPostgres(tmp_path / "pg") as pg:
        postgres = Postgres(pg.dsn)
        ledger = PostgresLedgerStore(postgres, "e")
        assert (await ledger.find_report("BTC-1-0")).status is OrderStatus.FILLED
        assert await balance_of(ledger, Account.HELD) == Decimal("798.5")
        assert (await ledger.open_trade(BTC)).trade_id == "BTC-1"
        await postgres.close()


async def test_dust_is_told_by_venue_and_over_all_venues_it_is_the_exposure(ledger, risk, env):
    _, owner = await grant_trade(risk, ledger)
    instruments = {leg.instrument.venue: leg.instrument for leg in (BTC_SPOT.a, BTC_SPOT.b)}
    left = {Venue.UPBIT: Decimal("-0.00003"), Venue.BINANCE_SPOT: Decimal("0.00001")}
    assert await ledger.dust("BTC") == {}
    for _ in range(2):  # a repeat changes nothing
        for venue, amount in left.items():
            entry = dust_entry(instruments[venue], "BTC-1", BTC, amount, 9)
            await ledger.post(BTC, owner, [entry])
    assert await ledger.dust("BTC") == left
    assert await ledger.dust("ETH") == {}
    async with ledger._postgres.connection() as connection:
        rows = await connection.fetch("SELECT * FROM arb.dust WHERE env = $1", env)
    assert {row["venue"]: row["amount"] for row in rows} == left
    assert {row["exposure"] for row in rows} == {Decimal("-0.00002")}
