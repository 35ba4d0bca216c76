"""The ledger that tests of the audit spoil: two guards, two symbols, trades that ended in every way."""

from __future__ import annotations

from arb_ray.adapters.storage.postgres_pool import Postgres
from arb_ray.domain.opportunity import Direction
from arb_ray.domain.risk_intent import SettleKind
from tests.integration.conftest import a_settlement, execute
from tests.ledger_world import LedgerWorld, Recorder
from tests.trade_world import BTC_SPOT, PEPE_PERP, make_plan

ENV = "dev"
A, B = Direction


async def build(dsn):
    """Two guards, two symbols, five trades: won, lost, voided, with funding, still open."""
    postgres = Postgres(dsn)
    try:
        await fill(LedgerWorld(postgres, ENV))
    finally:
        await postgres.close()
    await execute(
        dsn,
        "INSERT INTO arb.topology (env, version, desired)"
        " SELECT 'dev', n, '{}' FROM generate_series(1, 2) AS n",
    )


async def fill(world):
    """Write the lives."""
    await world.begin()
    await world.live(BTC_SPOT, A, 9)
    await world.take_over()
    await world.live(BTC_SPOT, B, 9)
    await world.live(BTC_SPOT, A, 3)
    await world.live(PEPE_PERP, A, _seed_with_funding())
    await leave_open(world)
    epoch, tombstone = world.epoch, a_settlement("dev:BTC:90", SettleKind.VOIDED, "0")
    await world.risk.settle(epoch, tombstone)
    await world.snap()


async def leave_open(world):
    """Write a life until its first fills are in."""
    number = await world.ledger.next_trade_number("BTC")
    trade_id = f"{ENV}:BTC:{number}"
    plan = make_plan(
        BTC_SPOT,
        A,
        number,
        trade_id=trade_id,
        session_id=world.session_id,
        **await world.dust_of(BTC_SPOT),
    )
    life = Recorder(plan, 9).live()
    first = next(i for i, write in enumerate(life.writes) if write[0] == "report")
    await world.write(life, first + 1)


def _seed_with_funding():
    for seed in range(200):
        life = Recorder(make_plan(PEPE_PERP, A), seed).live()
        kinds = {entry.kind for entry in life.entries.values()}
        if {"funding", "settle_perp"} <= kinds:
            return seed
    raise AssertionError("no life of 200 pays funding")


async def plant_row(connection, sql):
    await connection.execute("SET session_replication_role = replica; SET search_path = arb")
    await connection.execute(sql)
