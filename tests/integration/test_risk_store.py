"""RiskGuard's store on a real PostgreSQL: one guard, one answer an id, money held and given back."""

import asyncio
from decimal import Decimal

import msgspec
import pytest

from arb_ray.adapters.storage.ledger_store import PostgresLedgerStore
from arb_ray.adapters.storage.postgres_pool import Postgres
from arb_ray.adapters.storage.risk_decisions import WRITE, encoded
from arb_ray.adapters.storage.risk_store import PostgresRiskStore
from arb_ray.domain.errors import Fenced, LedgerViolation
from arb_ray.domain.instrument import Symbol, Venue
from arb_ray.domain.ledger import Account, Balance
from arb_ray.domain.risk_intent import (
    Granted,
    Refused,
    RiskRefusal,
    RiskState,
    SettleKind,
)
from arb_ray.engine.postings import hold_entry
from arb_ray.engine.risk import StateChange
from arb_ray.ports import GrantWrite
from tests.integration.conftest import (
    BTC,
    KRW,
    a_report,
    a_settlement,
    an_intent,
    an_order,
    execute,
    fill_entry,
    opening,
)
from tests.risk_world import LIMITS

ETH = Symbol("ETH")


@pytest.fixture
def ledger(postgres, env):
    return PostgresLedgerStore(postgres, env)


@pytest.fixture
async def risk(postgres, ledger, env):
    store = PostgresRiskStore(postgres, env)
    await store.open_balances(await store.take_lease("guard"), opening())
    await ledger.claim_symbol(BTC, "host")
    return store


def grant(risk, intent, epoch=1, at_ns=6):
    return risk.grant(epoch, intent, hold_entry(intent, at_ns), at_ns)


def grant_write(intent, at_ns=6):
    return GrantWrite(intent, hold_entry(intent, at_ns), at_ns)


async def amounts(ledger):
    return {b.account: b.amount for b in await ledger.balances() if b.amount}


async def test_a_grant_holds_and_a_settlement_gives_back_what_is_left(risk, ledger):
    intent = an_intent()
    assert await grant(risk, intent) == Granted("BTC-1", 1, 6)
    assert (await amounts(ledger))[Account.HELD] == 1000
    await ledger.report_order(BTC, 1, an_order(), a_report(), [fill_entry()])
    done = await risk.settle(1, a_settlement())
    assert done == (True, (Balance(Venue.UPBIT, Account.FREE, KRW, Decimal("798.5")),))
    assert await amounts(ledger) == {
        Account.FREE: Decimal("999798.5"),
        Account.MARKET: Decimal("201.5"),
        Account.OPENING: Decimal(-1000000),
    }
    assert await risk.settle(1, a_settlement()) == (False, ())
    assert (await amounts(ledger))[Account.FREE] == Decimal("999798.5")


async def test_a_loss_beyond_the_hold_is_paid_from_free(risk, ledger):
    await grant(risk, an_intent())
    await ledger.report_order(BTC, 1, an_order(), a_report(), [fill_entry(paid="1500")])
    done = await risk.settle(1, a_settlement())
    assert done[1][0].amount == Decimal(-500)
    assert (await amounts(ledger))[Account.FREE] == Decimal(998500)


async def test_a_repeated_grant_gives_the_first_answer_and_holds_once(risk, ledger):
    first = await grant(risk, an_intent())
    again = an_intent(session_id="s2", asked_ns=99, deadline_ns=100)
    assert await grant(risk, again, at_ns=99) == first
    assert (await amounts(ledger))[Account.HELD] == 1000
    with pytest.raises(LedgerViolation, match="another reservation"):
        await grant(risk, an_intent(notional_usdt=Decimal(101)))


async def test_the_void_of_an_unknown_id_is_a_tombstone_that_refuses_a_later_reserve(risk, ledger):
    void = a_settlement(kind=SettleKind.VOIDED, pnl="0")
    assert await risk.settle(1, void) == (True, ())
    assert await risk.settle(1, void) == (False, ())
    verdict = await grant(risk, an_intent())
    assert (verdict.trade_id, verdict.reason) == ("BTC-1", RiskRefusal.TOMBSTONE)
    assert Account.HELD not in await amounts(ledger)
    assert isinstance(await grant(risk, an_intent("BTC-2")), Granted)


async def test_a_reserve_that_arrives_after_its_settlement_is_refused(risk):
    await grant(risk, an_intent())
    await risk.settle(1, a_settlement(kind=SettleKind.VOIDED, pnl="0"))
    verdict = await grant(risk, an_intent())
    assert isinstance(verdict, Refused)
    assert verdict.reason is RiskRefusal.TOMBSTONE


async def test_a_void_that_races_a_grant_never_leaves_money_held(risk, ledger):
    for number in range(10):
        trade_id = f"BTC-{number}"
        void = a_settlement(trade_id, SettleKind.VOIDED, pnl="0")
        await asyncio.gather(grant(risk, an_intent(trade_id)), risk.settle(1, void))
        assert Account.HELD not in await amounts(ledger)
        assert await ledger.open_trade(BTC) is None


async def test_refusals_are_remembered(risk):
    await grant(risk, an_intent("BTC-0"))
    no = await grant(risk, an_intent())
    assert no == Refused("BTC-1", RiskRefusal.SYMBOL_BUSY, "BTC-0 is open")
    await risk.settle(1, a_settlement("BTC-0"))
    assert await grant(risk, an_intent()) == no
    void = a_settlement(kind=SettleKind.VOIDED, pnl="0")
    assert await risk.settle(1, void) == (False, ())
    with pytest.raises(LedgerViolation, match="it was refused"):
        await risk.settle(1, a_settlement())


async def test_one_open_trade_a_symbol_and_the_refused_id_stays_refused(risk, ledger):
    await grant(risk, an_intent("BTC-1"))
    verdict = await grant(risk, an_intent("BTC-2"))
    assert verdict.reason is RiskRefusal.SYMBOL_BUSY
    await risk.settle(1, a_settlement("BTC-1"))
    assert await grant(risk, an_intent("BTC-2")) == verdict
    assert isinstance(await grant(risk, an_intent("BTC-3")), Granted)


async def test_an_older_owner_gets_no_room_and_spoils_nothing_for_the_new_one(risk, ledger):
    await ledger.claim_symbol(BTC, "new host")
    assert (await grant(risk, an_intent(owner_epoch=1))).reason is RiskRefusal.FENCED_OWNER
    assert isinstance(await grant(risk, an_intent(owner_epoch=2)), Granted)


async def test_a_grant_that_was_not_heard_of_is_answered_to_the_next_owner_of_its_symbol(
    risk, ledger
):
    first = await grant(risk, an_intent(owner_epoch=1))
    await ledger.claim_symbol(BTC, "new host")
    # The journal's plan carries the epoch of the host that made it.
    assert await grant(risk, an_intent(owner_epoch=1), at_ns=9) == first
    with pytest.raises(LedgerViolation, match="another reservation"):
        await grant(risk, an_intent(owner_epoch=1, worst_loss_usdt=Decimal(2)))
    void = a_settlement(kind=SettleKind.VOIDED, pnl="0")
    assert (await risk.settle(1, void))[0]
    assert Account.HELD not in await amounts(ledger)


async def test_a_void_waits_for_a_grant_whose_commit_is_still_on_its_way(
    risk, ledger, postgres, env
):
    async with postgres.transaction("the call that we gave up") as connection:
        await connection.fetch(WRITE, env, 1, encoded([grant_write(an_intent())]))
        void = asyncio.create_task(risk.settle(1, a_settlement(kind=SettleKind.VOIDED, pnl="0")))
        done, _ = await asyncio.wait([void], timeout=0.2)
        assert not done
    assert (await void)[0]
    assert Account.HELD not in await amounts(ledger)
    assert await ledger.open_trade(BTC) is None


async def test_the_rebuild_goes_back_over_midnight_no_further_than_asked(risk, ledger):
    for number in range(1, 5):
        await grant(risk, an_intent(f"BTC-{number}"), at_ns=10 * number)
        end = a_settlement(f"BTC-{number}", closed_ns=10 * number + 1)
        await risk.settle(1, end if number != 3 else _unfilled(end))
    books = await risk.load(1, 100, 30, 2)
    assert [one.trade_id for one in books.settled_before] == ["BTC-2", "BTC-4"]
    assert books.entries_ns == (30, 40)
    assert (await risk.load(1, 100, 30, 0)).settled_before == ()


def _unfilled(end):
    return msgspec.structs.replace(end, notional_usdt=Decimal(0))


async def test_the_rebuild_says_when_an_operator_last_resumed(risk):
    for at_ns, state in ((5, RiskState.ACTIVE), (6, RiskState.HALTED), (7, RiskState.ACTIVE)):
        await risk.set_state(1, StateChange(state, "why", "ann", at_ns))
    await risk.set_state(1, StateChange(RiskState.REDUCE_ONLY, "anomaly", "guard", 9))
    assert (await risk.load(1, 0, 0, 9)).resumed_ns == 7


async def test_more_than_is_free_is_never_held_even_by_two_at_once(risk, ledger):
    await ledger.claim_symbol(ETH, "host")
    verdicts = await asyncio.gather(
        grant(risk, an_intent("BTC-1", hold="600000")),
        grant(risk, an_intent("ETH-1", hold="600000", symbol=ETH)),
    )
    assert sorted(type(verdict).__name__ for verdict in verdicts) == ["Granted", "Refused"]
    refused = next(verdict for verdict in verdicts if isinstance(verdict, Refused))
    assert refused.reason is RiskRefusal.BALANCE
    assert (await amounts(ledger))[Account.FREE] == 400000


async def test_a_posted_settlement_needs_a_reservation_and_repeats_need_the_same_content(risk):
    with pytest.raises(LedgerViolation, match="never granted"):
        await risk.settle(1, a_settlement())
    await grant(risk, an_intent())
    await risk.settle(1, a_settlement())
    with pytest.raises(LedgerViolation, match="other content"):
        await risk.settle(1, a_settlement(pnl="0.4"))
    with pytest.raises(LedgerViolation, match="other content"):
        await risk.settle(1, a_settlement(kind=SettleKind.VOIDED, pnl="0"))


async def test_a_takeover_fences_every_write_of_the_old_guard(risk, ledger):
    assert await risk.take_lease("second guard") == 2
    intent = an_intent()
    writes = [
        risk.renew_lease(1),
        risk.load(1, 0, 0, 9),
        risk.open_balances(1, opening(entry_id="more")),
        grant(risk, intent),
        risk.write(1, [grant_write(intent), a_settlement("BTC-2", SettleKind.VOIDED, pnl="0")]),
        risk.settle(1, a_settlement()),
        risk.note_limits(1, LIMITS),
        risk.set_state(1, StateChange(RiskState.HALTED, "loss", "guard", 1)),
    ]
    for write in writes:
        with pytest.raises(Fenced, match="RiskGuard: epoch 1 was fenced by 2"):
            await write
    books = await risk.load(2, 0, 0, 9)
    assert books.state is RiskState.ACTIVE
    assert books.open_reservations == ()
    assert await amounts(ledger) == {Account.FREE: 1000000, Account.OPENING: -1000000}


async def test_a_takeover_waits_for_a_write_under_way_and_then_sees_it(risk, env):
    async with risk._fenced(1, "a write") as connection:
        takeover = asyncio.create_task(risk.take_lease("second"))
        done, _ = await asyncio.wait([takeover], timeout=0.2)
        assert not done
        await connection.execute(
            "INSERT INTO arb.risk_events (env, epoch, state, reason, actor, at_ns) "
            "VALUES ($1, 1, 'halted', 'last word', 'old', 1)",
            env,
        )
    books = await risk.load(await takeover, 0, 0, 9)
    assert (books.state, books.state_reason) == (RiskState.HALTED, "last word")


async def test_guards_that_start_together_get_epochs_of_their_own(shared_dsn, env):
    pool = Postgres(shared_dsn, size=4)
    stores = [PostgresRiskStore(pool, env) for _ in range(4)]
    epochs = await asyncio.gather(*(store.take_lease("g") for store in stores))
    assert sorted(epochs) == [1, 2, 3, 4]
    outcomes = await asyncio.gather(
        *(store.renew_lease(epoch) for store, epoch in zip(stores, epochs, strict=True)),
        return_exceptions=True,
    )
    assert [type(o) for o in outcomes].count(Fenced) == 3
    await pool.close()


async def test_the_rebuild_is_what_was_written(risk, ledger):
    await ledger.claim_symbol(ETH, "host")
    yesterday, today = an_intent("BTC-1"), an_intent("BTC-2")
    await grant(risk, yesterday, at_ns=50)
    await risk.settle(1, a_settlement("BTC-1", closed_ns=60))
    await grant(risk, today, at_ns=110)
    await risk.settle(1, a_settlement("BTC-2", closed_ns=120, pnl="-0.7"))
    await risk.settle(1, a_settlement("BTC-3", SettleKind.VOIDED, pnl="0", closed_ns=125))
    pending = an_intent("ETH-1", symbol=ETH)
    await grant(risk, pending, at_ns=130)
    await risk.set_state(1, StateChange(RiskState.REDUCE_ONLY, "storm", "operator", 140))

    books = await risk.load(1, 100, 105, 9)
    assert [stored.intent for stored in books.open_reservations] == [pending]
    assert books.open_reservations[0].granted_ns == 130
    assert books.settled_today == (a_settlement("BTC-2", closed_ns=120, pnl="-0.7"),)
    assert books.settled_before == (a_settlement("BTC-1", closed_ns=60),)
    assert books.entries_ns == (110, 130)
    assert books.resumed_ns == 0
    assert (books.state, books.state_reason) == (RiskState.REDUCE_ONLY, "storm")
    assert list(books.balances) == list(await ledger.balances())


async def test_opening_balances_are_posted_once(risk, ledger):
    redated = msgspec.structs.replace(opening(), at_ns=77)
    await risk.open_balances(1, redated)
    assert (await amounts(ledger))[Account.FREE] == 1000000
    with pytest.raises(LedgerViolation, match="another entry"):
        await risk.open_balances(1, opening("5"))


async def test_a_closed_trade_carries_its_profit_by_part(risk, env, shared_dsn):
    await grant(risk, an_intent())
    await risk.settle(1, a_settlement(pnl="0.3"))
    row = (await execute(shared_dsn, "SELECT * FROM arb.trades WHERE env = $1", env))[0]
    assert (row["status"], row["outcome"], row["exit_reason"]) == (
        "closed",
        "posted",
        "take_profit",
    )
    assert (row["realized_usdt"], row["spread_usdt"], row["fx_usdt"]) == (
        Decimal("0.3"),
        Decimal("0.3"),
        0,
    )
    assert row["closed_ns"] == 20


async def test_an_order_to_flatten_holds_until_its_trade_ends_or_someone_resumes(risk, ledger):
    await ledger.claim_symbol(ETH, "host")
    await grant(risk, an_intent("BTC-1"), at_ns=10)
    order = StateChange(RiskState.HALTED, "odd", "ann", 20, flatten_symbol=BTC)
    await risk.set_state(1, order)
    await risk.set_state(1, StateChange(RiskState.HALTED, "odd", "ann", 20, flatten_symbol=ETH))
    books = await risk.load(1, 0, 0, 9)
    assert books.flatten == (BTC,), "ETH has no trade"
    assert (books.state, books.state_actor, books.resumed_ns) == (RiskState.ACTIVE, "", 0)
    # It repeats the state that is in force, and an active one is not a resume.
    order = StateChange(RiskState.ACTIVE, "odd", "ann", 21, flatten_symbol=BTC)
    await risk.set_state(1, order)
    assert (await risk.load(1, 0, 0, 9)).resumed_ns == 0
    assert (await risk.load(1, 0, 0, 9)).flatten == (BTC,)
    await risk.settle(1, a_settlement("BTC-1", closed_ns=30))
    await grant(risk, an_intent("BTC-2"), at_ns=40)
    assert (await risk.load(1, 0, 0, 9)).flatten == ()
    await risk.set_state(1, StateChange(RiskState.ACTIVE, "odd", "ann", 41, flatten_symbol=BTC))
    await risk.set_state(1, StateChange(RiskState.ACTIVE, "in", "ann", 42))
    assert (await risk.load(1, 0, 0, 9)).flatten == ()


async def test_an_order_to_flatten_all_holds_until_someone_resumes(risk):
    everything = StateChange(RiskState.REDUCE_ONLY, "out", "ann", 5, is_flattening_all=True)
    await risk.set_state(1, everything)
    books = await risk.load(1, 0, 0, 9)
    assert (books.state, books.state_actor, books.state_since_ns) == ("reduce_only", "ann", 5)
    assert books.is_flattening_all
    await risk.set_state(1, StateChange(RiskState.HALTED, "daily_loss", "guard", 6))
    assert (await risk.load(1, 0, 0, 9)).is_flattening_all
    await risk.set_state(1, StateChange(RiskState.ACTIVE, "in", "ann", 7))
    assert not (await risk.load(1, 0, 0, 9)).is_flattening_all
