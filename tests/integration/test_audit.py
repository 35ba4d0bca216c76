"""The audit on a real PostgreSQL: nothing in a ledger of ours, and every wrong row by name."""

from __future__ import annotations

import asyncio

import asyncpg
import msgspec
import pytest

from arb_ray.adapters.storage.audit import runner
from arb_ray.adapters.storage.audit.check import TOLD_MAX, Scope, SqlCheck
from arb_ray.adapters.storage.audit.fills import FEES
from arb_ray.adapters.storage.audit.runner import CHECKS, audit
from arb_ray.adapters.storage.postgres_pool import Postgres
from arb_ray.adapters.venues.binance import rules as binance_rules
from arb_ray.adapters.venues.upbit import rules as upbit_rules
from arb_ray.cli.main import main
from arb_ray.domain.errors import BadInput, StoreUnavailable
from arb_ray.domain.instrument import Venue
from arb_ray.domain.order import OrderReport, OrderStatus, Purpose
from arb_ray.engine.trade_events import OrderReported
from tests.audit_plants import EVENT, PLANTS, RESERVATION, TRADE, in_plan
from tests.audited_ledger import ENV, A, B, build, plant_row
from tests.integration.conftest import _database, execute
from tests.ledger_world import LedgerWorld, Recorder
from tests.trade_world import BTC_PERP, BTC_SPOT, PEPE_PERP, PEPE_SPOT

TEMPLATE = "audited"


@pytest.fixture(scope="module")
def template(embedded_postgres, server_thread):
    """The ledger that every test copies."""
    dsn = server_thread.run(_database(embedded_postgres, "migrated"))
    server_thread.run(build(dsn))
    return dsn.rsplit("/", 1)[1]


@pytest.fixture
async def dsn(embedded_postgres, template):
    """A ledger of one's own, to spoil."""
    return await _database(embedded_postgres, template)


async def spoil(dsn, sql):
    """Do what no program of ours may: the triggers look away."""
    connection = await asyncpg.connect(dsn)
    try:
        await plant_row(connection, sql)
    finally:
        await connection.close()


def violated(report):
    return {outcome.name: outcome.told for outcome in report.outcomes if outcome.violations}


@pytest.mark.parametrize("pair", [BTC_SPOT, BTC_PERP, PEPE_SPOT, PEPE_PERP])
async def test_lives_of_every_kind_leave_a_ledger_in_which_nothing_is_found(
    postgres, shared_dsn, env, pair
):
    world = LedgerWorld(postgres, env)
    await world.begin()
    for seed in range(25):
        await world.live(pair, (A, B)[seed % 2], seed)
    report = await audit(shared_dsn, Scope(env))
    assert violated(report) == {}


class GivenUp(Recorder):
    """A life whose exit waits for PostgreSQL until its orders are too old to be sent."""

    def do_submit_order(self, effect):
        order = effect.order
        if order.purpose is Purpose.EXIT:
            old = OrderReport(order.client_order_id, OrderStatus.CANCELLED, (), self.now)
            self.feed(OrderReported(at_ns=self.now, report=old))
        else:
            super().do_submit_order(effect)


async def test_an_exit_whose_orders_were_never_sent_is_the_one_that_was_taken(
    postgres, shared_dsn, env
):
    world = LedgerWorld(postgres, env)
    await world.begin()
    for seed in range(5):
        life = await world.live(BTC_SPOT, A, seed, trouble=0, kind=GivenUp)
        assert Purpose.EXIT not in {order.purpose for order in life.accepted.values()}
    report = await audit(shared_dsn, Scope(env))
    assert violated(report) == {}


async def test_the_ledger_that_is_spoiled_below_holds_and_fills_every_check(dsn):
    report = await audit(dsn, Scope(ENV))
    assert violated(report) == {}
    assert [o.name for o in report.outcomes if o.unchecked] == []
    empty = {o.name for o in report.outcomes if not o.rows}
    # Their plants fill them.
    assert empty == {
        "risk.events", "risk.gaps", "records.tuning", "records.runs", "snapshots.quarantine"
    }  # fmt: skip


@pytest.mark.parametrize("plant", PLANTS, ids=lambda p: f"{p.check}-{p.table}-{p.words[:24]}")
async def test_a_wrong_row_is_found_and_named(template, embedded_postgres, plant):
    (check,) = [check for check in CHECKS if check.name == plant.check]
    connection = await asyncpg.connect(embedded_postgres.dsn_of(template))
    transaction = connection.transaction()
    await transaction.start()
    try:
        await plant_row(connection, plant.sql)
        await connection.execute("SET LOCAL search_path = ''")
        outcome = await check.look(connection, Scope(ENV))
    finally:
        await transaction.rollback()
        await connection.close()
    assert any(plant.words in sentence for sentence in outcome.told), outcome
    assert outcome.violations >= len(outcome.told)


async def test_a_wrong_row_is_planted_in_every_table_and_for_every_check(dsn):
    tables = await execute(
        dsn,
        "SELECT relname FROM pg_class WHERE relnamespace = 'arb'::regnamespace"
        " AND relkind IN ('r', 'p') AND NOT relispartition",
    )
    assert {row["relname"] for row in tables} == {plant.table for plant in PLANTS}
    assert {check.name for check in CHECKS} == {plant.check for plant in PLANTS}


async def test_a_row_that_cannot_be_read_ends_its_check_and_no_other(dsn):
    await spoil(dsn, in_plan('"fx_mid_krw":"1380"', '"fx_mid_krw":"dear"'))
    report = await audit(dsn, Scope(ENV))
    found = violated(report)
    assert any("cannot be read" in told for told in found["pnl.postings"])
    assert len(report.outcomes) == len(CHECKS)
    assert "entries.balance" not in found


async def test_what_is_told_is_bounded_and_what_is_found_is_counted(dsn):
    await spoil(dsn, "UPDATE postings SET amount = amount * 2 WHERE line = 0")
    report = await audit(dsn, Scope(ENV))
    (outcome,) = [o for o in report.outcomes if o.name == "entries.balance"]
    assert len(outcome.told) == TOLD_MAX < outcome.violations


async def test_fees_that_were_configured_are_believed_and_still_multiplied(dsn):
    await spoil(dsn, "UPDATE trade_events SET event = replace(event::text, '\"source\":\"\"',"
                     " '\"source\":\"configuration\"')::json WHERE seq = 0")  # fmt: skip
    report = await audit(dsn, Scope(ENV))
    assert violated(report) == {}


async def test_without_the_limits_of_its_guard_a_grant_is_told_as_not_judged(dsn):
    await spoil(dsn, "DELETE FROM risk_limits WHERE epoch = 1")
    report = await audit(dsn, Scope(ENV))
    unchecked = {o.name: o.unchecked for o in report.outcomes if o.unchecked}
    assert unchecked == {"risk.daily_loss": 1, "risk.sizes": 1, "risk.pace": 1}
    assert violated(report) == {}


def one_check(report, name):
    (outcome,) = [outcome for outcome in report.outcomes if outcome.name == name]
    return outcome


@pytest.mark.parametrize(
    ("events", "is_found"),
    [
        ([("halted", 1, 999)], True),
        ([("halted", 1, 1001)], False),  # decided before the halt, and written after it
        ([("reduce_only", 1, 999)], True),
        ([("halted", 1, 998), ("active", 1, 999)], False),
        ([("active", 1, 998), ("halted", 1, 999)], True),
        ([("halted", 1, 998), ("halted", 1, 1001)], True),  # halted before, and again
        ([("halted", 1, 998), ("active", 1, 1001)], False),  # a clock was set; written is written
    ],
)
async def test_a_grant_is_judged_by_the_state_at_its_decision(dsn, events, is_found):
    await spoil(dsn, RESERVATION.format("granted_ns = 1000, epoch = 1"))
    await spoil(dsn, TRADE.replace("BTC:1", "BTC:2").format("opened_ns = 1000"))
    for number, (state, epoch, at_ns) in enumerate(events):
        await spoil(
            dsn,
            EVENT.format(epoch, state, "operator", at_ns,
                         f"(SELECT recorded_ns FROM reservations WHERE trade_id = 'dev:BTC:2') - 9"
                         f" + {number}"),
        )  # fmt: skip
    last = "SELECT max(recorded_ns) + 1 FROM reservations"
    await spoil(dsn, EVENT.format(2, "active", "operator", 1, f"({last})"))
    outcome = one_check(await audit(dsn, Scope(ENV)), "risk.state")
    named = [told for told in outcome.told if told.startswith("grant of dev:BTC:2")]
    assert bool(named) is is_found


async def test_what_another_guard_had_halted_was_known_to_the_one_that_took_over(dsn):
    await spoil(dsn, "UPDATE reservations SET granted_ns = 1000, epoch = 2")
    halted_later = EVENT.format(1, "halted", "operator", 5000, 1)  # its clock ran ahead
    await spoil(dsn, halted_later)
    assert one_check(await audit(dsn, Scope(ENV)), "risk.state").violations > 0


async def test_an_environment_without_rows_is_told_to_be_one(shared_dsn, capsys):
    at = ["audit", "--dsn", shared_dsn, "--env", "prod"]
    assert await asyncio.to_thread(main, at) == 0
    assert "prod: there is nothing to audit, no row is of this environment." in (
        capsys.readouterr().out
    )
    assert await asyncio.to_thread(main, [*at, "--json"]) == 0
    assert msgspec.json.decode(capsys.readouterr().out)["is_empty"]


async def test_an_environment_without_a_trade_holds_and_says_so(postgres_dsn, capsys):
    postgres = Postgres(postgres_dsn)
    await LedgerWorld(postgres, ENV).begin()
    await postgres.close()
    assert await asyncio.to_thread(main, ["audit", "--dsn", postgres_dsn]) == 0
    out = capsys.readouterr().out
    assert out.endswith(" checks hold. There was no trade to look at.\n")


async def test_a_session_is_audited_without_the_trades_of_another(dsn):
    sessions = await execute(dsn, "SELECT session_id FROM arb.sessions")
    await spoil(dsn, "INSERT INTO sessions (env, session_id, source, started_ns, closed_ns)"
                     " VALUES ('dev', 'other', 'sim', 0, 0)")  # fmt: skip
    await spoil(dsn, TRADE.format("slippage_usdt = 99"))
    here = violated(await audit(dsn, Scope(ENV, sessions[0]["session_id"])))
    other = violated(await audit(dsn, Scope(ENV, "other")))
    assert "pnl.parts" in here
    assert other == {}
    with pytest.raises(BadInput, match="has no session nobody"):
        await audit(dsn, Scope(ENV, "nobody"))


async def test_it_sees_one_ledger_while_another_is_being_written(dsn):
    """A trade that is written during the audit is in none of its checks, or in all."""
    postgres = Postgres(dsn)
    world = LedgerWorld(postgres, ENV)
    await world.take_over()
    await world.resume()
    writing = True

    async def write():
        for seed in range(30):
            await world.live(PEPE_SPOT, A, seed)
        nonlocal writing
        writing = False

    task = asyncio.create_task(write())
    audits = 0
    while writing and not task.done():
        assert violated(await audit(dsn, Scope(ENV))) == {}
        audits += 1
    await task
    await postgres.close()
    assert audits > 1


async def test_it_cannot_write(dsn, monkeypatch):
    writes = SqlCheck(
        "it.writes", "", "SELECT NULL AS trade_id, arb.ensure_partitions(9)::text AS problem"
    )
    monkeypatch.setattr(runner, "CHECKS", (writes,))
    with pytest.raises(StoreUnavailable, match="read-only transaction"):
        await audit(dsn, Scope(ENV))


async def test_no_database_and_no_schema_are_told_apart(empty_dsn):
    with pytest.raises(StoreUnavailable):
        await audit("postgresql://nobody@127.0.0.1:1/none", Scope(ENV))
    with pytest.raises(BadInput, match="arb-ray db migrate"):
        await audit(empty_dsn, Scope(ENV))


def test_the_schedule_of_fees_is_that_of_the_venues():
    for venue, from_ns, bps, asset in FEES:
        dated = (
            upbit_rules.fees(from_ns)
            if venue == Venue.UPBIT
            else binance_rules.fees(Venue(venue), from_ns)
        )
        assert (str(dated.taker_bps), dated.fee_asset) == (bps, asset)


def test_the_command_says_it_in_its_exit_code(template, embedded_postgres, capsys):
    dsn = embedded_postgres.dsn_of(template)
    assert main(["audit", "--dsn", dsn]) == 0
    assert f"all {len(CHECKS)} checks hold" in capsys.readouterr().out
    assert main(["audit", "--dsn", dsn, "--json"]) == 0
    found = msgspec.json.decode(capsys.readouterr().out)
    assert found["is_clean"]
    assert len(found["checks"]) == len(CHECKS)
    assert main(["audit", "--dsn", "postgresql://nobody@127.0.0.1:1/none"]) == 3


async def test_the_command_names_each_violation(dsn, capsys):
    await spoil(dsn, TRADE.format("fx_usdt = 99"))
    assert await asyncio.to_thread(main, ["audit", "--dsn", dsn]) == 1
    out = capsys.readouterr().out
    assert "trade dev:BTC:1: its FX part is 99 USDT, its fills say" in out
    assert "violations of" in out
