"""A snapshot in the form of a binary COPY is, in PostgreSQL, what was handed over."""

import datetime as dt
import zlib

import msgspec
import pytest

from arb_ray.adapters.storage.snapshot_copy import COLUMNS, PAYLOAD_BYTES_MAX, copy_of
from arb_ray.adapters.storage.snapshot_store import PostgresSnapshotStore
from arb_ray.ports import Snapshot
from tests.integration.conftest import execute

NOVEMBER_2025 = 1_763_900_000_123_456_789
AUGUST_2024 = 1_723_100_000_000_000_001

ROWS = [
    Snapshot("metrics_snapshots", NOVEMBER_2025, "s1", "BTC", {"mid": 1.5, "words": "원 ₩ 😀"}),
    Snapshot("metrics_snapshots", NOVEMBER_2025 + 1, "s1", "", {"quote": '"\\\n\x00'[:3]}),
    Snapshot("metrics_snapshots", AUGUST_2024, "한 세션", "1000PEPE", "[]"),
    Snapshot("metrics_snapshots", NOVEMBER_2025, "s2", "BTC", '{"a": 1,  "b":\t2}'),
]


async def test_every_column_is_what_was_handed_over(postgres, env, shared_dsn):
    store = PostgresSnapshotStore(postgres, env)
    assert await store.write_batch("b:1", ROWS) == len(ROWS)
    found = await execute(
        shared_dsn,
        f"SELECT {', '.join(COLUMNS)} FROM arb.metrics_snapshots WHERE env = $1"
        " ORDER BY at_ns, session_id",
        env,
    )
    wanted = sorted(ROWS, key=lambda row: (row.at_ns, row.session_id))
    for got, row in zip(found, wanted, strict=True):
        at_us = row.at_ns // 1000
        epoch = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
        assert tuple(got) == (
            1, env, row.session_id, row.symbol, epoch + dt.timedelta(microseconds=at_us),
            row.at_ns, "b:1", zlib.crc32(row.text.encode()), row.text,
        )  # fmt: skip


async def test_what_is_written_is_read_back_by_its_checksum(postgres, env):
    store = PostgresSnapshotStore(postgres, env)
    await store.write_batch("b:1", ROWS)
    found = await store.newest("metrics_snapshots", "s1", "BTC", lambda *_: "")
    assert found == (msgspec.json.decode(ROWS[0].text), NOVEMBER_2025)
    assert store.corrupt_skipped == 0


async def test_the_types_are_those_that_are_packed(shared_dsn):
    types = await execute(
        shared_dsn,
        "SELECT relname, string_agg(format_type(atttypid, atttypmod), ' ' ORDER BY attnum) AS types"
        " FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid"
        " WHERE relname LIKE '%\\_snapshots' AND relkind = 'p' AND attname = ANY($1)"
        " GROUP BY relname",
        list(COLUMNS),
    )
    packed = "smallint text text text timestamp with time zone bigint text bigint json"
    assert len(types) == 4
    assert {row["types"] for row in types} == {packed}


def test_nothing_is_a_copy_too_and_a_payload_beyond_the_bound_is_a_bug():
    assert copy_of("dev", "b", ()) == b"PGCOPY\n\xff\r\n\0" + bytes(8) + b"\xff\xff"
    large = Snapshot("metrics_snapshots", 1, "s", "", '"' + "x" * PAYLOAD_BYTES_MAX + '"')
    with pytest.raises(AssertionError):
        copy_of("dev", "b", [large])
