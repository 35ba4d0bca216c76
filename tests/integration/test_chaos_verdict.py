"""The chaos verdict can fall: each violation is planted in a ledger that holds, and is named."""

from __future__ import annotations

import json
import types
from decimal import Decimal

import psycopg
import pytest

from arb_ray.adapters.storage.postgres_pool import Postgres
from arb_ray.domain.opportunity import Direction
from tests.chaos import command, verdict
from tests.chaos.adversary import Episode
from tests.chaos.schedule import Planned
from tests.chaos.watch import above_the_limit
from tests.integration.conftest import _database
from tests.ledger_world import LedgerWorld
from tests.trade_world import BTC_SPOT

CLEAN_STOP = types.SimpleNamespace(returncode=0, stderr="")
OPTIONS = types.SimpleNamespace(json=False, seed=7, minutes=10.0, symbols=8, workers=1)

PLANTS = {
    "audit entries": "INSERT INTO postings SELECT schema, env, entry_id, 99, trade_id, venue, account,"
    " asset, amount FROM postings WHERE account = 'fees' LIMIT 1",
    "still open after the drain": "INSERT INTO trades (env, trade_id, symbol) VALUES"
    " ({env}, 'planted', 'BTC')",
    "a reservation that nobody settled": "DELETE FROM reservation_outcomes WHERE number ="
    " (SELECT max(number) FROM reservation_outcomes)",
    "left over after the drain": "INSERT INTO postings SELECT schema, env, entry_id, 99, trade_id,"
    " venue, 'held', asset, 5 FROM postings WHERE account = 'fees' LIMIT 1",
    "exposed by more than dust": "INSERT INTO postings SELECT schema, env, entry_id, 99, trade_id,"
    " venue, 'free', 'BTC', 100000000000 FROM postings LIMIT 1",
    "more entered than was planned": "INSERT INTO fills (env, fill_id, client_order_id, owner_epoch,"
    " price, qty, fee_amount, fee_asset, at_ns, book_slice) SELECT env, 'planted', client_order_id,"
    " f.owner_epoch, price, f.qty, fee_amount, fee_asset, at_ns, book_slice FROM fills AS f"
    " JOIN orders USING (env, client_order_id) WHERE purpose = 'entry' LIMIT 1",
    "an entry sent while another had no last word": "INSERT INTO orders (env, client_order_id, trade_id, symbol,"
    " owner_epoch, instrument, side, qty, limit_price, decision_price, purpose, decided_ns, request,"
    " recorded_ns)"
    " SELECT env, 'planted', trade_id, symbol, owner_epoch, instrument, side, qty, limit_price,"
    " decision_price, purpose, decided_ns, request, recorded_ns + 1 FROM orders"
    " WHERE purpose = 'entry' LIMIT 1",
    "two trades on one symbol at once": "UPDATE reservations SET recorded_ns = 0",
}


async def build(dsn):
    """Some trades that went well."""
    postgres = Postgres(dsn)
    world = LedgerWorld(postgres, "test")
    await world.begin()
    for seed in (1, 2, 3):
        await world.live(BTC_SPOT, Direction.LONG_A_SHORT_B, seed, trouble=0)
    await postgres.close()


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


async def judged(dsn, **changes):
    given = {"episodes": [], "above": [], "stop": CLEAN_STOP, "logs": None, "env": "test"}
    return await verdict.judge(dsn=dsn, **(given | changes))


async def test_a_ledger_that_holds_has_no_violation(dsn):
    found, trades = await judged(dsn)
    assert found == []
    assert trades["posted"] == 3


@pytest.mark.parametrize("words", PLANTS)
async def test_what_is_planted_is_named(dsn, words):
    with psycopg.connect(dsn) as connection:
        connection.execute("SET session_replication_role = replica")
        connection.execute("SET search_path = arb")
        connection.execute(PLANTS[words].replace("{env}", "'test'"))
    found, _ = await judged(dsn)
    assert any(problem.startswith(words) for problem in found), found


async def test_an_entry_that_ended_unfilled_may_be_completed_by_another(dsn):
    """As after a kill between the two: found by a run of ten minutes that called it a violation."""
    with psycopg.connect(dsn) as connection:
        connection.execute("SET session_replication_role = replica")
        connection.execute("SET search_path = arb")
        connection.execute(
            "UPDATE orders SET recorded_ns = 5 WHERE client_order_id ="
            " (SELECT client_order_id FROM orders WHERE purpose = 'entry' LIMIT 1)"
        )
        connection.execute(PLANTS["an entry sent while another had no last word"])
        connection.execute(
            "UPDATE orders SET recorded_ns = arb.now_ns() WHERE client_order_id = 'planted'"
        )
        found = list(verdict.own_problems(connection))
    assert found == []


async def test_a_run_without_a_trade_shows_nothing(postgres_dsn):
    found, _ = await judged(postgres_dsn)
    assert found == ["nothing was traded: this run shows nothing"]


async def test_whoever_did_not_come_back_is_a_violation(dsn):
    fault = Planned(3, 1.0, "kill_risk", "risk", 0.0, 0.0)
    found, _ = await judged(dsn, episodes=[Episode(3, [fault], why_not="it is recovering")])
    assert found == ["no recovery from kill_risk risk: it is recovering"]


async def test_a_stop_that_is_not_clean_is_a_violation(dsn):
    stop = types.SimpleNamespace(returncode=4, stderr="host:000 could\n not be drained")
    found, _ = await judged(dsn, stop=stop)
    assert found == ["the stop ended with 4: host:000 could not be drained"]


async def test_a_limit_that_was_passed_is_a_violation(dsn):
    found, _ = await judged(dsn, above=["loss 300 and more"] * 2)
    assert found == ["limit: loss 300 and more"]


@pytest.mark.parametrize(
    ("loss", "reserved", "is_above"),
    [("150", "50", False), ("150", "50.01", True), ("260", "0", False)],
)
def test_the_promise_is_loss_and_reservations_within_the_limit(loss, reserved, is_above):
    risk = {
        "ready": True,
        "daily_loss_usdt": Decimal(loss),
        "reserved_usdt": Decimal(reserved),
        "daily_limit_usdt": "200",
    }
    assert bool(above_the_limit(risk)) is is_above


def test_a_traceback_that_no_typed_error_explains_is_a_bug(tmp_path):
    lines = [
        {
            "event": "loop_ended",
            "actor": "risk:main",
            "exception": "Traceback\n  File x\nKeyError: 1",
        },
        {"event": "waits", "exception": "Traceback\narb_ray.domain.errors.StoreUnavailable: away"},
        {"event": "calm"},
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "worker-1.err").write_text(":actor_name:RiskGuardActor\n" + text)
    (bug,) = verdict.bugs_in(tmp_path)
    assert "risk:main" in bug
    assert "KeyError: 1" in bug


def test_a_violation_ends_the_command_with_1_and_is_told_before_the_verdict(capsys):
    trades = {"posted": 1, "voided": 0, "open": 1, "fills": 4}
    assert command.tell(OPTIONS, [], trades, ["still open"], 0, 1.0) == 1
    told = capsys.readouterr().out.splitlines()
    assert "VIOLATION still open" in told
    assert told[-1] == "seed 7: 0 faults, 1 violations"
    assert any("--seed 7" in line for line in told)


def test_a_clean_run_ends_with_0(capsys):
    trades = {"posted": 1, "voided": 0, "open": 0, "fills": 4}
    assert command.tell(OPTIONS, [], trades, [], 0, 1.0) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "seed 7: 0 faults, 0 violations"
