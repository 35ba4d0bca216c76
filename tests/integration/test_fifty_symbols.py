"""Fifty symbols at once against a limit with room for three, over the real guard and PostgreSQL."""

import asyncio
import contextlib
import random

import msgspec
import pytest

from arb_ray.adapters.storage.postgres_pool import Postgres
from arb_ray.domain.errors import BadInput
from arb_ray.domain.risk_intent import RiskRefusal, RiskState
from tests.crowd_world import OPEN_WIDE, WORST_USDT, Crowd, room_for
from tests.shell_world import D
from tests.signal_market import U_CHEAP, book

BY_COUNT = msgspec.structs.replace(
    OPEN_WIDE,
    daily_loss_usdt=D(10_000),
    symbol_daily_loss_usdt=D(10_000),
    open_trades_count=3,
)


@pytest.fixture
async def make_crowd(shared_dsn, env):
    pool = Postgres(shared_dsn, size=8)
    crowds = []

    async def make(**changes):
        crowd = Crowd(pool, env, **changes)
        crowds.append(crowd)
        return await crowd.start()

    yield make
    for crowd in crowds:
        await crowd.stop()
    await pool.close()


@pytest.mark.parametrize("limits", [room_for(3), BY_COUNT], ids=["by_loss", "by_count"])
async def test_fifty_signals_in_one_instant_open_three_trades_and_never_a_fourth(
    make_crowd, limits
):
    crowd = await make_crowd(limits=limits)
    for _ in range(4):
        crowd.look()
        await crowd.settle_down()
        assert len(crowd.holding) == 3
        crowd.look()  # the other 47 ask again beside the three that are held
        await crowd.settle_down()
        assert len(crowd.holding) == 3
        await crowd.close_all()
    most, _, left = await crowd.check_promise(most_open=3)
    assert (most, left) == (3, 0)
    assert await crowd.held() == []


async def test_never_a_fourth_while_guards_are_replaced_and_answers_are_lost(make_crowd):
    crowd = await make_crowd(seed=11)
    crowd.risk.loss = 0.15
    rng = random.Random(11)

    async def replace_guards():
        while True:
            await asyncio.sleep(rng.uniform(0.1, 0.6))
            await crowd.start_guard()  # the old one may be in the middle of fifty grants

    replacing = asyncio.create_task(replace_guards())
    opened = 0
    for _ in range(3):
        for _ in range(2):  # a guard that is new, and was told how the trades stand, knows them
            crowd.look()
            await crowd.settle_down()
            await crowd.start_guard()
            crowd.look_at_held()
            await crowd.obey()
        opened += len(crowd.holding)
        await crowd.close_all()
    replacing.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await replacing
    # A void whose answer was lost is repeated: nothing may be left reserved.
    crowd.risk.loss = 0.0
    await crowd.settle_down()
    most, _, left = await crowd.check_promise(most_open=3)
    assert left == 0
    assert await crowd.held() == []
    # It was a life with trades and with trouble, or it would have proved nothing.
    assert opened >= 3
    assert most == 3
    assert min(crowd.risk.lost[kind] for kind in ("asked", "answered", "doubled")) > 0
    assert (await crowd.rows("SELECT epoch FROM arb.risk_lease WHERE env = $1"))[0]["epoch"] > 5


async def test_losses_run_up_to_the_limit_and_never_past_it(make_crowd):
    crowd = await make_crowd(limits=room_for(6))
    for _ in range(12):
        crowd.look()
        await crowd.settle_down()
        held = [runner.symbol for runner in crowd.holding]
        if not held:
            break
        step = 0
        # Upbit falls without a gap, in steps of 10 bps, until each stop-loss has been met.
        while crowd.holding:
            step += 1
            assert step < 30, "the stop-loss is never met"
            fallen = book(2_778_000.0 * (1 - step / 1000), 2_780_000.0 * (1 - step / 1000))
            crowd.put(held, fallen)
            crowd.look_at_held()
            await crowd.obey()
            await crowd.settle_down()
        crowd.put(held, U_CHEAP)
    reasons = {one.exit_reason for one in crowd.listener.settlements if one.notional_usdt}
    assert reasons == {"stop_loss"}
    _, worst_day, left = await crowd.check_promise(most_open=6)
    lost = -worst_day
    assert left == 0
    # It tried: there is no room for one more trade, and no trade lost more than it had reserved.
    assert lost + WORST_USDT > crowd.limits.daily_loss_usdt >= lost
    assert await crowd.rows("SELECT * FROM arb.gap_losses WHERE env = $1") == []
    assert (await crowd.guard.status())["gap_loss_usdt"] == "0"
    assert (await crowd.guard.status())["refusals"][RiskRefusal.DAILY_LOSS] > 0


@pytest.mark.parametrize("how", ["between_two_books", "while_dark", "settled_before_any_mark"])
async def test_a_gap_of_a_third_halts_flattens_and_is_booked_as_gap_loss(make_crowd, how):
    crowd = await make_crowd()
    crowd.look()
    await crowd.settle_down()
    held = [runner.symbol for runner in crowd.holding]
    assert len(held) == 3
    crashed = book(2_778_000.0 * 0.67, 2_780_000.0 * 0.67)  # 2024-12-03: a third in one fall
    if how == "while_dark":
        # Upbit falls silent, its old books are nothing to leave at, and it comes back far below.
        crowd.is_dark = True
        await asyncio.sleep(0.3)
        crowd.look_at_held()
        await crowd.settle_down()
        assert len(crowd.holding) == 3
        crowd.is_dark = False
    crowd.put([pair.symbol for pair in crowd.pairs], crashed)
    crowd.look_at_held()
    if how == "settled_before_any_mark":  # then the first settlement is what halts
        await crowd.settle_down()
    status = await crowd.obey()
    assert (status.state, status.flatten_all) == (RiskState.HALTED, True)
    assert status.reason.startswith("gap_loss: ")
    await crowd.settle_down()
    while crowd.holding:
        crowd.look_at_held()
        await crowd.settle_down()
    assert await crowd.held() == []

    # The accountant's way: what each lost beyond what it had reserved, from the rows themselves.
    rows = await crowd.rows("SELECT * FROM arb.gap_losses WHERE env = $1 ORDER BY trade_id")
    assert sorted(row["symbol"] for row in rows) == sorted(held)
    settled = {one.trade_id: one for one in crowd.listener.settlements}
    for row in rows:
        assert row["reserved_usdt"] <= WORST_USDT
        assert row["loss_usdt"] == -settled[row["trade_id"]].realized_usdt
        assert row["gap_loss_usdt"] == row["loss_usdt"] - row["reserved_usdt"] > 100
    beyond = sum(row["gap_loss_usdt"] for row in rows)
    assert D((await crowd.guard.status())["gap_loss_usdt"]) == beyond
    (halt,) = await crowd.rows("SELECT * FROM arb.risk_events WHERE env = $1 AND actor = 'guard'")
    assert (halt["state"], halt["reason"].split(":")[0]) == ("halted", "gap_loss")

    # Neither a restart nor time makes it trade again, and the figure outlives the guard.
    trades = len(await crowd.timeline())
    crowd.put([pair.symbol for pair in crowd.pairs], U_CHEAP)
    for _ in range(2):
        await crowd.start_guard()
        assert await crowd.state() is RiskState.HALTED
        assert D((await crowd.guard.status())["gap_loss_usdt"]) == beyond
        crowd.look()
        await crowd.settle_down()
    assert len(await crowd.timeline()) == trades
    assert (await crowd.guard.status())["refusals"] == {RiskRefusal.NOT_ACTIVE: 50}
    with pytest.raises(BadInput):
        await crowd.guard.command("resume", "tired of waiting", "guard")
    assert await crowd.state() is RiskState.HALTED
    await crowd.guard.command("resume", "seen", "ann")
    assert await crowd.state() is RiskState.ACTIVE
    # What was lost is lost: the day has no room left, whoever resumes.
    crowd.look()
    await crowd.settle_down()
    assert len(await crowd.timeline()) == trades
    await crowd.check_promise(most_open=3)
