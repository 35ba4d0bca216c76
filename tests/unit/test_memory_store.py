"""The store in memory gives PostgreSQL's answers: repeats are no-ops, older owners are fenced."""

import pytest

from arb_ray.adapters.storage.memory import MemoryStore
from arb_ray.domain.errors import Fenced, LedgerViolation
from arb_ray.domain.ledger import Account
from arb_ray.domain.risk_intent import Granted, RiskRefusal, RiskState
from arb_ray.engine.postings import hold_entry
from arb_ray.engine.risk import StateChange
from tests.risk_world import D, intent, settlement
from tests.shell_world import OPENING, opening_entry

ETH = "ETH"


async def a_store():
    store = MemoryStore()
    assert await store.take_lease("guard") == 1
    assert await store.claim_symbol(ETH, "host") == 1
    for entry in OPENING:
        await store.open_balances(1, entry)
    return store


def ask(number=1, **changes):
    return intent(number, ETH, **changes)


async def grant(store, asked, epoch=1, at_ns=5):
    return await store.grant(epoch, asked, hold_entry(asked, at_ns), at_ns)


async def balance(store, account, asset="KRW"):
    return sum(b.amount for b in await store.balances() if (b.account, b.asset) == (account, asset))


async def test_a_grant_holds_money_and_a_settlement_gives_it_back():
    store = await a_store()
    assert await grant(store, ask()) == Granted("test:ETH:1", 1, 5)
    assert await balance(store, Account.HELD) == D(1000)
    is_new, released = await store.settle(1, settlement(ask()))
    assert is_new
    assert [(b.account, b.amount) for b in released] == [(Account.FREE, D(1000))]
    assert await balance(store, Account.HELD) == 0
    assert await balance(store, Account.FREE) == D(10_000_000)
    assert await store.settle(1, settlement(ask())) == (False, ())


async def test_a_repeat_of_a_grant_gives_the_first_answer():
    store = await a_store()
    first = await grant(store, ask())
    assert await grant(store, ask(), at_ns=9) == first
    assert await balance(store, Account.HELD) == D(1000)


async def test_a_known_grant_is_answered_to_the_next_owner_and_not_to_another_content():
    store = await a_store()
    first = await grant(store, ask())
    await store.claim_symbol(ETH, "new host")
    assert await grant(store, ask(), at_ns=9) == first
    with pytest.raises(LedgerViolation):
        await grant(store, ask(worst="21"))


async def test_nothing_is_granted_after_an_end_beside_an_open_trade_or_to_a_former_owner():
    store = await a_store()
    await store.settle(1, settlement(ask(), void=True))
    assert (await grant(store, ask())).reason is RiskRefusal.TOMBSTONE
    await grant(store, ask(2))
    assert (await grant(store, ask(3))).reason is RiskRefusal.SYMBOL_BUSY
    await store.settle(1, settlement(ask(2)))
    assert (await grant(store, ask(2))).reason is RiskRefusal.TOMBSTONE
    await store.claim_symbol(ETH, "new host")
    assert (await grant(store, ask(4))).reason is RiskRefusal.FENCED_OWNER


async def test_a_former_guard_and_a_former_owner_can_write_nothing():
    store = await a_store()
    await store.take_lease("other")
    await store.claim_symbol(ETH, "other")
    asked = ask()
    for call in (
        store.renew_lease(1),
        store.load(1, 0, 0, 9),
        store.open_balances(1, OPENING[0]),
        store.grant(1, asked, hold_entry(asked, 1), 1),
        store.settle(1, settlement(asked)),
        store.set_state(1, StateChange(RiskState.HALTED, "", "me", 1)),
        store.append_event(ETH, 1, "t", 0, b"e"),
        store.post(ETH, 1, ()),
    ):
        with pytest.raises(Fenced):
            await call


async def test_the_journal_takes_an_event_once():
    store = await a_store()
    await grant(store, ask())
    for _ in range(2):
        await store.append_event(ETH, 1, "test:ETH:1", 0, b"signal")
    with pytest.raises(LedgerViolation):
        await store.append_event(ETH, 1, "test:ETH:1", 0, b"other")
    with pytest.raises(AssertionError):
        await store.append_event(ETH, 1, "test:ETH:1", 2, b"later")
    assert (await store.open_trade(ETH)).events == (b"signal",)
    await store.settle(1, settlement(ask()))
    assert await store.open_trade(ETH) is None


async def test_an_entry_id_names_one_content():
    store = await a_store()
    await store.open_balances(1, OPENING[0])
    with pytest.raises(LedgerViolation):
        await store.open_balances(1, opening_entry("upbit", "KRW", 5))


async def test_a_restart_finds_reservations_settlements_and_state():
    store = await a_store()
    await grant(store, ask(1), at_ns=50)
    await store.settle(1, settlement(ask(1), "-3", closed=60))
    await grant(store, ask(2), at_ns=70)
    await store.set_state(1, StateChange(RiskState.HALTED, "why", "me", 80))
    books = await store.load(1, 40, 60, 9)
    assert [one.intent.trade_id for one in books.open_reservations] == ["test:ETH:2"]
    assert [done.realized_usdt for done in books.settled_today] == [D(-3)]
    assert (books.state, books.state_reason) == (RiskState.HALTED, "why")
    assert books.entries_ns == (70,)
    assert (books.settled_before, books.resumed_ns) == ((), 0)
    tomorrow = await store.load(1, 65, 0, 1)
    assert tomorrow.settled_today == ()
    assert [done.realized_usdt for done in tomorrow.settled_before] == [D(-3)]
    assert (await store.load(1, 65, 0, 0)).settled_before == ()
    await store.set_state(1, StateChange(RiskState.ACTIVE, "seen", "me", 90))
    assert (await store.load(1, 65, 0, 0)).resumed_ns == 90


async def test_trade_numbers_are_used_once():
    store = await a_store()
    assert [await store.next_trade_number(ETH) for _ in range(3)] == [1, 2, 3]
    assert await store.next_trade_number("BTC") == 1


async def test_an_order_to_flatten_holds_until_the_trade_ends_or_someone_resumes():
    store = await a_store()
    await grant(store, ask(1))
    order = StateChange(RiskState.HALTED, "odd", "me", 80, flatten_symbol=ETH)
    await store.set_state(1, order)
    books = await store.load(1, 0, 0, 9)
    assert (books.flatten, books.state) == ((ETH,), RiskState.ACTIVE)
    everything = StateChange(RiskState.HALTED, "out", "me", 81, is_flattening_all=True)
    await store.set_state(1, everything)
    await store.set_state(1, StateChange(RiskState.HALTED, "gap", "guard", 82))
    assert (await store.load(1, 0, 0, 9)).is_flattening_all
    await store.set_state(1, StateChange(RiskState.ACTIVE, "in", "me", 83))
    books = await store.load(1, 0, 0, 9)
    assert (books.flatten, books.is_flattening_all) == ((), False)
    await store.set_state(1, order)
    await store.settle(1, settlement(ask(1)))
    await grant(store, ask(2))
    assert (await store.load(1, 0, 0, 9)).flatten == ()
