"""Snapshot batches on a real PostgreSQL."""

import zlib

import pytest

from arb_ray.actors.snapshot_check import SnapshotCheck
from arb_ray.adapters.clock import SystemClock
from arb_ray.adapters.storage.snapshot_store import TABLES, PostgresSnapshotStore
from arb_ray.domain.errors import LedgerViolation
from arb_ray.engine.session_snapshot import COUNTS, SCHEMA
from arb_ray.ports import Snapshot
from tests.integration.conftest import execute
from tests.shell_world import Counts, Log

NOVEMBER_2025 = 1_763_900_000_000_000_000
AUGUST_2024 = 1_723_100_000_000_000_000
SOUND = {
    **dict.fromkeys(COUNTS, 0),
    "schema": SCHEMA,
    "session_id": "s1",
    "market": "sim/lively/spot",
    "symbols": 20,
    "frames": {},
}
"""What a session's snapshot must hold for a start to believe it."""


@pytest.fixture
def store(postgres, env):
    return PostgresSnapshotStore(postgres, env)


def row(table="session_snapshots", at_ns=NOVEMBER_2025, n=1, symbol=""):
    return Snapshot(table, at_ns, "s1", symbol, {"n": n, "pnl_usdt": "1.5", "x": 1e-05})


async def test_a_batch_reaches_all_its_tables_and_its_repeat_writes_nothing(store, env, shared_dsn):
    rows = [row(table, NOVEMBER_2025 + n) for n, table in enumerate(sorted(TABLES))]
    assert await store.write_batch("b1", rows) == 4
    assert await store.write_batch("b1", rows) == 0
    for table in TABLES:
        found = await execute(shared_dsn, f"SELECT * FROM arb.{table} WHERE env = $1", env)
        assert [r["batch_id"] for r in found] == ["b1"]
        assert zlib.crc32(found[0]["payload"].encode()) == found[0]["crc32"]
    with pytest.raises(LedgerViolation, match="another batch"):
        await store.write_batch("b1", rows[:1])


async def test_rows_of_any_month_find_a_partition(store, env, shared_dsn):
    rows = [row(at_ns=at) for at in (AUGUST_2024, NOVEMBER_2025, 0)]
    assert await store.write_batch("b1", rows) == 3
    found = await execute(
        shared_dsn,
        "SELECT tableoid::regclass::text AS part FROM arb.session_snapshots "
        "WHERE env = $1 ORDER BY at",
        env,
    )
    months = [r["part"].rsplit("_", 1)[1] for r in found]
    assert months == ["y1970m01", "y2024m08", "y2025m11"]


async def test_a_repeat_at_a_months_end_is_still_a_repeat(store):
    assert await store.write_batch("b1", [row(at_ns=AUGUST_2024)]) == 1
    with pytest.raises(LedgerViolation):
        await store.write_batch("b1", [row(at_ns=NOVEMBER_2025)])


async def test_the_newest_sound_snapshot_is_read(store, env, shared_dsn):
    assert await store.latest("session_snapshots", "s1") is None
    rows = [row(at_ns=NOVEMBER_2025 + n * 1000, n=n) for n in range(3)]
    await store.write_batch("b1", rows)
    assert (await store.latest("session_snapshots", "s1"))["n"] == 2
    await execute(
        shared_dsn,
        "UPDATE arb.session_snapshots SET payload = '{\"n\": 9}' WHERE env = $1 AND at_ns = $2",
        env,
        rows[2].at_ns,
    )
    assert (await store.latest("session_snapshots", "s1", required=["n"]))["n"] == 1
    assert store.corrupt_skipped == 1
    assert (await store.latest("session_snapshots", "s1"))["n"] == 1
    assert store.corrupt_skipped == 1, "what is in quarantine is not read again"
    assert await store.latest("session_snapshots", "s1", required=["missing"]) is None
    found = await store.quarantined(0)
    assert [(one.at_ns - NOVEMBER_2025, one.reason) for one in found] == [
        (2000, "its text does not meet its checksum"),
        (1000, "it lacks missing"),
        (0, "it lacks missing"),
    ]
    assert len(await store.quarantined(found[0].found_ns)) == 2
    (kept,) = await execute(
        shared_dsn, "SELECT payload FROM arb.snapshot_quarantine WHERE env = $1 AND at_ns = $2",
        env, rows[2].at_ns,
    )  # fmt: skip
    assert kept["payload"] == '{"n": 9}'


async def test_the_check_counts_a_damaged_snapshot_once_and_tells_of_it(store, env, shared_dsn):
    rows = [
        Snapshot("session_snapshots", NOVEMBER_2025 + n * 1000, "s1", "", SOUND) for n in range(2)
    ]
    await store.write_batch("b1", rows)
    counts, log = Counts(), Log()
    check = SnapshotCheck(store, "s1", SystemClock(), counts, log)
    await check.check()
    assert not counts.counters
    await execute(
        shared_dsn,
        "UPDATE arb.session_snapshots SET payload = '{}' WHERE env = $1 AND at_ns = $2",
        env,
        rows[1].at_ns,
    )
    await check.check()
    assert counts.counters == {"snapshots_corrupt": 1}
    ((event, told),) = log.said
    assert (event, told["table"], told["at_ns"]) == (
        "snapshots_corrupt",
        "session_snapshots",
        rows[1].at_ns,
    )
    assert "checksum" in told["cause"]
    newer = Snapshot("session_snapshots", NOVEMBER_2025 + 9000, "s1", "", SOUND)
    await store.write_batch("b2", [newer])
    await check.check()
    assert counts.counters == {"snapshots_corrupt": 1}


@pytest.mark.parametrize("spoilt", ["market", "frames"])
async def test_the_check_finds_whatever_the_next_start_would_not_believe(store, spoilt):
    payload = {key: value for key, value in SOUND.items() if key != spoilt}
    rows = [
        Snapshot("session_snapshots", NOVEMBER_2025 + n, "s1", "", one)
        for n, one in enumerate((SOUND, payload))
    ]
    await store.write_batch("b1", rows)
    counts, log = Counts(), Log()
    await SnapshotCheck(store, "s1", SystemClock(), counts, log).check()
    assert counts.counters == {"snapshots_corrupt": 1}
    assert log.said[0][1]["cause"] == f"it lacks {spoilt}"


async def test_what_another_version_left_is_no_damage(store):
    older = {"session_id": "s1", "schema": SCHEMA - 1}
    await store.write_batch("b1", [Snapshot("session_snapshots", NOVEMBER_2025, "s1", "", older)])
    counts = Counts()
    await SnapshotCheck(store, "s1", SystemClock(), counts, Log()).check()
    assert not counts.counters


async def test_what_a_start_had_quarantined_is_told_of_by_persistence(store):
    await store.write_batch("b1", [row()])
    assert await store.latest("session_snapshots", "s1", required=["missing"]) is None
    counts, log = Counts(), Log()
    check = SnapshotCheck(store, "another session", SystemClock(), counts, log)
    await check.check()
    await check.check()
    assert counts.counters == {"snapshots_corrupt": 1}
    assert log.said[0][1]["cause"] == "it lacks missing"


async def test_only_snapshots_before_a_moment_are_read_when_one_is_named(store):
    await store.write_batch("b1", [row(at_ns=NOVEMBER_2025 + n, n=n) for n in range(3)])

    async def newest(before_ns):
        found = await store.newest("session_snapshots", "s1", "", lambda *_: "", before_ns)
        return found and (found[0]["n"], found[1] - NOVEMBER_2025)

    assert await newest(None) == (2, 2)
    assert await newest(NOVEMBER_2025 + 2) == (1, 1)
    assert await newest(NOVEMBER_2025) is None


async def test_snapshots_are_told_apart_by_symbol(store):
    await store.write_batch("b1", [row(n=1, symbol="BTC"), row(n=2, symbol="ETH")])
    assert (await store.latest("session_snapshots", "s1", "BTC"))["n"] == 1
    assert await store.latest("session_snapshots", "s1", "XRP") is None


async def test_an_empty_batch_is_remembered_too(store):
    assert await store.write_batch("empty", []) == 0
