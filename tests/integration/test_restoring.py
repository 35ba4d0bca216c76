"""A start takes up counts from the newest sound snapshot, trades from the ledger, and says so."""

import pytest

from arb_ray.actors.snapshots import system_snapshot
from arb_ray.adapters.storage.session_runs import CrashedRun
from arb_ray.adapters.storage.session_store import SessionStore
from arb_ray.adapters.storage.snapshot_store import PostgresSnapshotStore
from arb_ray.app.restoring import restore
from arb_ray.engine.session_snapshot import Counts
from arb_ray.engine.status import FeedStatus, HostStatus, SystemStatus
from arb_ray.ports import Snapshot
from tests.integration.conftest import execute
from tests.integration.test_session_store import NOW, Trades, open_one

S = 10**9
MARKET = "sim/lively/spot"


def status(session_id, decisions=7, carried=None, **changes):
    hosts = {"h": HostStatus(True, "", ["BTC", "ETH"], [], decisions=decisions, trades_opened=9)}
    feeds = {"f": FeedStatus(True, "", "upbit", True, "v1", frames=40)}
    told = SystemStatus(session_id, "t1", False, [], hosts, feeds, {}, {}, {}, {}, [])
    told.market, told.carried = MARKET, carried or Counts()
    for key, value in changes.items():
        setattr(told, key, value)
    return told


class World:
    def __init__(self, postgres, env, dsn):
        self.env, self.dsn = env, dsn
        self.sessions = SessionStore(postgres, env)
        self.store = PostgresSnapshotStore(postgres, env)
        self.numbers = iter(range(100))

    async def start(self):
        await open_one(self.sessions)
        self.session = await open_one(self.sessions)
        return self

    async def write(self, at_s, **changes):
        rows, _ = system_snapshot(status(self.session.session_id, **changes), NOW + at_s * S, 1)
        await self.store.write_batch(f"b{next(self.numbers)}", rows)

    async def restore(self, at_s=100, market=MARKET, age_max_s=60):
        return await restore(
            self.store,
            self.sessions,
            self.session,
            market=market,
            age_max_s=age_max_s,
            now_ns=NOW + at_s * S,
        )

    async def damage(self, at_s, sql, *arguments):
        await execute(
            self.dsn,
            f"UPDATE arb.session_snapshots SET {sql} WHERE env = $1 AND at_ns = $2",
            self.env,
            NOW + at_s * S,
            *arguments,
        )


@pytest.fixture
async def world(postgres, env, shared_dsn):
    return await World(postgres, env, shared_dsn).start()


async def test_a_new_session_takes_up_nothing(world):
    await world.write(90)
    world.session = await open_one(world.sessions, is_new=True, now_ns=NOW + 1)
    assert (await world.restore()).counts == Counts()


async def test_counts_are_the_newest_snapshot_s_and_go_on_over_runs(world):
    await world.write(80, decisions=5)
    await world.write(90, decisions=7)
    restored = await world.restore()
    assert restored.counts == Counts(7, 0, 0, 0, {"upbit": 40})
    await world.write(110, decisions=3, carried=restored.counts)
    assert (await world.restore(120)).counts == Counts(10, 0, 0, 0, {"upbit": 80})
    assert list(restored.words(None)) == []


async def test_trades_are_the_ledger_s_whatever_the_snapshot_says(world, postgres, env):
    await world.write(90)
    trades = await Trades(postgres, env).start()
    await trades.begin("BTC-1", world.session.session_id)
    await trades.end("BTC-1")
    restored = await world.restore()
    assert (restored.counts.trades_opened, restored.counts.trades_closed) == (1, 1)
    assert restored.counts.decisions == 7


@pytest.mark.parametrize(
    "sql",
    [
        "payload = replace(payload::text, '\"decisions\":7', '\"decisions\":8')::json",
        "payload = '{}'",
        "payload = to_json(left(payload::text, 40))",
        "crc32 = crc32 + 1",
    ],
)
async def test_a_damaged_snapshot_is_quarantined_and_the_one_before_is_used(world, sql):
    await world.write(80, decisions=5)
    await world.write(90, decisions=7)
    await world.damage(90, sql)
    restored = await world.restore()
    assert (restored.counts.decisions, restored.quarantined) == (5, 1)
    assert list(restored.words(None)) == ["1 damaged snapshots were set aside in quarantine"]
    again = await world.restore()
    assert (again.counts.decisions, again.quarantined) == (5, 0), "it is not read again"
    assert [one.at_ns for one in await world.store.quarantined(0)] == [NOW + 90 * S]


async def test_a_whole_snapshot_that_cannot_be_ours_is_quarantined_too(world):
    await world.write(80, decisions=5)
    rows, _ = system_snapshot(status("another session"), NOW + 90 * S, 1)
    wrong = [
        Snapshot(row.table, row.at_ns, world.session.session_id, "", row.payload) for row in rows
    ]
    await world.store.write_batch("wrong", wrong)
    many = status(world.session.session_id)
    many.hosts["h"].open_positions = 3
    rows, _ = system_snapshot(many, NOW + 91 * S, 1)
    await world.store.write_batch("many", rows)
    assert (await world.restore()).counts.decisions == 5
    reasons = [one.reason for one in await world.store.quarantined(0)]
    assert reasons == [
        "it has 3 open positions on 2 symbols",
        "it says that it is of session 'another session'",
    ]


async def test_without_a_fit_snapshot_counts_begin_anew_and_a_person_is_told_why(world):
    assert list((await world.restore()).words(None)) == [
        "counts begin anew: there is no sound snapshot"
    ]
    await world.write(90)
    old = await world.restore(200)
    assert (old.counts.decisions, old.unused) == (0, "it is 110 s old")
    other = await world.restore(market="sim/calibrated/spot")
    assert other.counts.decisions == 0
    assert "this is 'sim/calibrated/spot'" in other.unused
    assert other.quarantined == 0


async def test_a_crash_and_open_positions_are_told(world, postgres, env):
    await world.write(90)
    trades = await Trades(postgres, env).start()
    await trades.begin("BTC-1", world.session.session_id)
    restored = await world.restore()
    totals = restored.totals
    words = list(restored.words(CrashedRun("s", "node/7", NOW)))
    assert words[0].startswith("the run before (node/7, since 2026-")
    assert words[0].endswith("ended without a clean stop")
    assert len(words) == 1 + bool(totals.open_positions)
