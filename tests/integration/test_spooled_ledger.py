"""Exits while PostgreSQL is away: a real trade on a real server behind a wire that breaks."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import msgspec
import pytest

from arb_ray.adapters.storage.audit.check import Scope
from arb_ray.adapters.storage.audit.runner import audit
from arb_ray.adapters.storage.ledger_store import PostgresLedgerStore
from arb_ray.adapters.storage.node_spools import NodeSpools
from arb_ray.adapters.storage.postgres_pool import Postgres
from arb_ray.adapters.storage.reconciliation import KeptRecord
from arb_ray.adapters.storage.spool import Spool
from arb_ray.adapters.storage.spool_records import EventWrite, OrderWrite, decode_write
from arb_ray.domain.errors import Fenced, StoreUnavailable
from tests.integration.conftest import execute
from tests.signal_market import U_DEAR
from tests.spool_world import HostWorld
from tests.tcp_proxy import TcpProxy

BACK_S = 2.0
"""PostgreSQL's return to trading: the bound of the design."""


@pytest.fixture
async def proxy(embedded_postgres):
    port = int(embedded_postgres.dsn.rsplit(":", 1)[1].split("/")[0])
    async with TcpProxy("127.0.0.1", port) as proxy:
        proxy.target_port = port
        yield proxy


@pytest.fixture
def wire(proxy, postgres_dsn):
    """The way to the database through the proxy."""
    return postgres_dsn.replace(f":{proxy.target_port}/", f":{proxy.port}/")


@pytest.fixture
async def world(wire, postgres_dsn, tmp_path):
    async with HostWorld(wire, postgres_dsn, "dev", tmp_path) as world:
        yield world


def break_wire(proxy, how):
    if how == "refuse":
        proxy.refuse(True)
        proxy.cut()
    elif how == "stall":
        proxy.stall()


def mend_wire(proxy):
    proxy.refuse(False)
    proxy.resume()


def spools(folder):
    return sorted((folder / "hosts" / "dev").glob("host-*"))


def kept(folder):
    files = sorted((folder / "reconciliation" / "dev").glob("*.jsonl"))
    lines = (line for path in files for line in path.read_bytes().splitlines())
    return [msgspec.json.decode(line, type=KeptRecord) for line in lines]


async def assert_clean(dsn):
    report = await audit(dsn, Scope("dev"))
    assert [one for one in report.outcomes if one.violations] == []


async def counts(dsn):
    row = await execute(
        dsn,
        "SELECT (SELECT count(*) FROM arb.orders) AS orders,"
        " (SELECT count(*) FROM arb.order_reports) AS reports,"
        " (SELECT count(*) FROM arb.trades WHERE status = 'closed') AS closed",
    )
    return tuple(row[0])


@pytest.mark.parametrize("how", ["refuse", "stall"])
async def test_an_exit_completes_while_postgresql_is_away_and_is_booked_when_it_is_back(
    world, proxy, postgres_dsn, tmp_path, how
):
    await world.enter()
    break_wire(proxy, how)
    world.put(u=U_DEAR)
    await world.until(lambda: world.is_left)
    assert world.ledger.is_away
    assert world.ledger.spool_bytes > 0
    assert await counts(postgres_dsn) == (2, 2, 0)
    # Nothing is entered meanwhile, and no attempt waits for the wire.
    with pytest.raises(StoreUnavailable, match="writes are spooled"):
        await world.ledger.next_trade_number("ETH")
    mend_wire(proxy)
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    await world.until(lambda: world.is_idle and not world.ledger.is_away)
    assert loop.time() - began_s < BACK_S
    assert world.ledger.spool_bytes == 0
    orders, reports, closed = await counts(postgres_dsn)
    # An order that waited for the disk longer than its limit allows is given up unsent, has no
    # report, and another one takes its place: on a slow machine there may be one.
    assert (reports, closed) == (4, 1)
    assert orders in {4, 5}
    await assert_clean(postgres_dsn)
    assert kept(tmp_path) == []
    assert world.ledger.troubles == []


async def test_a_wire_that_is_cut_while_orders_travel_loses_and_doubles_nothing(
    world, proxy, postgres_dsn
):
    await world.enter()
    world.put(u=U_DEAR)
    await world.until(lambda: not world.is_holding)
    break_wire(proxy, "refuse")
    await world.until(lambda: world.is_left or world.is_idle)
    mend_wire(proxy)
    await world.until(lambda: world.is_idle and not world.ledger.is_away)
    orders, reports, closed = await counts(postgres_dsn)
    assert (orders, closed) == (reports, 1)
    await assert_clean(postgres_dsn)


async def test_no_trade_begins_while_postgresql_is_away(world, proxy, postgres_dsn):
    await world.enter()
    break_wire(proxy, "refuse")
    world.put(u=U_DEAR)
    await world.until(lambda: world.is_left)
    for folder in spools(world.folder):
        records = [decode_write(one) for one in await _records(folder)]
        assert {one.order.purpose for one in records if isinstance(one, OrderWrite)} == {"exit"}
        assert all(isinstance(one, EventWrite) or one.owner_epoch == 1 for one in records)
    assert world.listener.refusals == []
    mend_wire(proxy)
    await world.until(lambda: world.is_idle)


async def _records(folder):
    """Read a spool that is in use, from a copy."""
    copy = folder.parent.parent / "copy"
    copy.mkdir()
    (copy / "spool.log").write_bytes((folder / "spool.log").read_bytes())
    spool, found = Spool(copy), []

    async def take(payload):
        found.append(payload)

    await spool.replay(take)
    spool.close()
    return found


# -- a process that is killed -------------------------------------------------------------------


class HostProcess:
    """A host in a process of its own."""

    def __init__(self, process):
        self.process = process

    @classmethod
    async def start(cls, *arguments):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.spool_world", *map(str, arguments),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )  # fmt: skip
        return cls(process)

    async def says(self, word, timeout_s=40.0):
        line = await asyncio.wait_for(self.process.stdout.readline(), timeout_s)
        assert line.decode().strip() == word

    async def kill(self):
        self.process.kill()
        await self.process.wait()
        self.process.stdin.close()
        self.process._transport.close()


async def spooled_and_killed(proxy, wire, dsn, folder):
    """Leave a trade while PostgreSQL is away, and die with the records on the disk."""
    host = await HostProcess.start(wire, dsn, "dev", folder, "leave")
    await host.says("started")
    await host.says("holding")
    break_wire(proxy, "refuse")
    host.process.stdin.write(b"go\n")
    await host.says("left")
    await host.kill()
    assert await counts(dsn) == (2, 2, 0)


async def test_a_host_that_is_killed_with_records_in_its_spool_replays_them_before_it_claims(
    proxy, wire, postgres_dsn, tmp_path
):
    await spooled_and_killed(proxy, wire, postgres_dsn, tmp_path)
    again = await HostProcess.start(wire, postgres_dsn, "dev", tmp_path, "hold")
    await again.says("started")
    mend_wire(proxy)
    await again.says("idle")
    await again.kill()
    assert await counts(postgres_dsn) == (4, 4, 1)
    assert kept(tmp_path) == []
    await assert_clean(postgres_dsn)


async def test_what_was_spooled_under_an_older_epoch_goes_to_reconciliation_and_not_into_the_books(
    proxy, wire, postgres_dsn, tmp_path
):
    node, other_node = tmp_path / "node", tmp_path / "other"
    await spooled_and_killed(proxy, wire, postgres_dsn, node)
    # Its successor on another node knows nothing of the spool: it takes the trade up and closes it.
    async with HostWorld(postgres_dsn, postgres_dsn, "dev", other_node) as successor:
        await successor.until(lambda: successor.is_holding)
        successor.put(u=U_DEAR, n=None)
        await successor.until(lambda: successor.is_holding or successor.is_idle)
        mend_wire(proxy)
        # The old node comes back, and a host of any key is started there.
        pool = Postgres(postgres_dsn)
        place = NodeSpools(node, "dev", "host-007", size_max=10**6)
        ledger = successor.ledger.__class__(
            PostgresLedgerStore(pool, "dev"), place, probe=pool.ping, cut=pool.cut,
            metrics=successor.metrics, log=successor.log,
        )  # fmt: skip
        before = await counts(postgres_dsn)
        assert await ledger.claim_symbol("BTC", "test") == 1
        assert await counts(postgres_dsn) == before
        records = kept(node)
        assert len(records) >= 6
        assert "epoch 1 was fenced by 2" in records[0].reason
        assert {one.trade_id for one in records} == {"dev:ETH:1"}
        assert len(ledger.troubles) == 1
        assert "reconciliation" in ledger.troubles[0]
        assert ledger.kept_files == 1
        await ledger.close()
        assert spools(node) == []
    await assert_clean(postgres_dsn)


async def test_a_process_whose_own_records_are_refused_ends(world, proxy, postgres_dsn, tmp_path):
    await world.enter()
    break_wire(proxy, "refuse")
    world.put(u=U_DEAR)
    await world.until(lambda: world.is_left)
    pool = Postgres(postgres_dsn)
    await PostgresLedgerStore(pool, "dev").claim_symbol("ETH", "another")
    await pool.close()
    mend_wire(proxy)
    await world.until(lambda: world.failed, may_fail=True)
    assert isinstance(world.failed[0], Fenced)
    assert kept(tmp_path)
    assert await counts(postgres_dsn) == (2, 2, 0)


async def test_a_torn_tail_was_never_promised_and_all_before_it_is_booked(
    proxy, wire, postgres_dsn, tmp_path
):
    await spooled_and_killed(proxy, wire, postgres_dsn, tmp_path)
    (folder,) = spools(tmp_path)
    with (folder / "spool.log").open("ab") as file:
        file.write(b"\x40\x00\x00\x00torn")
    mend_wire(proxy)
    async with HostWorld(wire, postgres_dsn, "dev", tmp_path) as world:
        await world.until(lambda: world.is_idle)
    assert await counts(postgres_dsn) == (4, 4, 1)
    assert spools(tmp_path) == []
    await assert_clean(postgres_dsn)


async def test_a_spool_that_nobody_can_read_is_put_aside_and_told_of(tmp_path, postgres_dsn):
    folder = tmp_path / "hosts" / "dev" / "host-000-1-1"
    spool = Spool(folder)
    for payload in (b"one", b"two"):
        await spool.append(payload)
    spool.close()
    log = folder / "spool.log"
    log.write_bytes(b"\xff" * 16 + log.read_bytes()[16:])
    async with HostWorld(postgres_dsn, postgres_dsn, "dev", tmp_path) as world:
        await world.until(lambda: world.is_idle)
        assert world.ledger.kept_files == 1
    assert (tmp_path / "reconciliation" / "dev" / "host-000-1-1" / "spool.log").exists()


async def test_with_a_full_spool_an_exit_waits_and_is_told_of_and_goes_on_later(
    wire, proxy, postgres_dsn, tmp_path
):
    async with HostWorld(wire, postgres_dsn, "dev", tmp_path, size_max=3_000) as world:
        await world.enter()
        break_wire(proxy, "refuse")
        world.put(u=U_DEAR)
        await world.until(lambda: world.metrics.counters["spool_refusals"] > 2)
        assert "the bound is 3000" in world.ledger.troubles[0]
        assert not world.is_left
        mend_wire(proxy)
        await world.until(lambda: world.is_idle)
        assert world.ledger.troubles == []
    await assert_clean(postgres_dsn)


async def test_a_claim_waits_for_a_living_process_that_has_not_replayed_its_spool(
    world, proxy, postgres_dsn, tmp_path
):
    await world.enter()
    break_wire(proxy, "refuse")
    world.put(u=U_DEAR)
    await world.until(lambda: world.is_left)
    # The second one reaches PostgreSQL, the first does not.
    async with HostWorld(postgres_dsn, postgres_dsn, "dev", tmp_path) as second:
        await asyncio.sleep(0.5)
        assert not second.runner.is_recovered
        mend_wire(proxy)
        await second.until(lambda: second.is_idle)
        assert await counts(postgres_dsn) == (4, 4, 1)
    assert kept(tmp_path) == []
    await assert_clean(postgres_dsn)
