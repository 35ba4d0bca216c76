"""
More frames than a feed and its hosts can look at, over a real socket: newest wins from there on.

Feed, books, hosts and strategies are the program's own, in one process; the exchange is the
simulated one's door, and writes faster than anybody reads.
"""

import asyncio

import msgspec

from arb_ray.app.registry import load_registry
from arb_ray.engine.status import FeedStatus, HostStatus
from arb_ray.engine.topology import Role
from benchmarks.tick_kit import PROCESS, TickKit
from benchmarks.tick_load import Generator
from benchmarks.tick_path_stage import SYMBOLS, Bench, Stage

FRAMES = 40_000
BURST = 2_000  # more than one turn of the loop reads


async def until(condition, seconds=60):
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


class Line:
    """One stage of the benchmark without Ray: everything on this loop."""

    def __init__(self, folder):
        registry = load_registry()
        symbols = [str(s) for s in registry.wanted(f"top:{SYMBOLS}", "spot", synthetic=False)]
        self.generator = Generator(str(folder), symbols, 1)
        self.stage = Stage(Bench(folder, None, symbols), PROCESS, 4, {})
        self.folder = folder

    async def __aenter__(self):
        port = await self.generator.open(PROCESS)
        deployment = self.stage.deployment(port)
        self.topology = deployment.topology
        kit = TickKit(deployment, folder=str(self.folder), plane=PROCESS)
        self.actors = kit.one_process()
        self.actors.start()
        for feed in self.topology.of(Role.FEED):
            routes = self.stage.routes(deployment, feed)
            await self.actors.of(feed.name, "set_routes", "v1", routes)
        await until(self.is_live)
        return self

    async def __aexit__(self, *_):
        await self.actors.stop()
        await self.generator.close(PROCESS)

    async def is_live(self):
        if await self.generator.is_connected(PROCESS):
            await self.generator.first_books(PROCESS)
        return sum(len(host.live) for host in await self.hosts()) == SYMBOLS

    async def hosts(self):
        found = self.topology.of(Role.HOST)
        told = [await self.actors.of(one.name, "status") for one in found]
        return [msgspec.msgpack.decode(one, type=HostStatus) for one in told]

    async def feed(self):
        (name,) = [one.name for one in self.topology.of(Role.FEED) if one.key == "binance_spot"]
        return msgspec.msgpack.decode(await self.actors.of(name, "status"), type=FeedStatus)


async def test_a_feed_that_is_flooded_sees_less_and_stays_young(tmp_path):
    async with Line(tmp_path) as line:
        await asyncio.sleep(0.1)
        before = await line.feed()
        await line.generator.prepare(FRAMES)
        transport = line.generator.transport(PROCESS)
        frames = line.generator.frames
        for at in range(0, FRAMES, BURST):
            transport.write(b"".join(frames[at : at + BURST]))
            await asyncio.sleep(0)

        async def is_read():
            return (await line.feed()).frames >= before.frames + FRAMES

        await until(is_read)
        feed = await line.feed()
        worked_off = feed.frames - feed.frames_conflated - before.frames
        assert worked_off < FRAMES / 4, "most are overwritten before anything is parsed"
        assert feed.frames - before.frames >= FRAMES, "all are counted"
        assert feed.malformed == feed.gaps == feed.reconnects == 0
        decided = line.stage.tables.decided.rows
        newest = FRAMES - SYMBOLS

        async def is_decided():
            return all(decided[row] for row in range(newest, FRAMES))

        await until(is_decided)  # the newest frame of every symbol has been looked at
        stamps = [(decided[row], row) for row in range(FRAMES) if decided[row]]
        by_symbol = {}
        for _, row in sorted(stamps):
            symbol = line.generator.symbol_of(row)
            assert row > by_symbol.get(symbol, -1), "no strategy goes back in time"
            by_symbol[symbol] = row
        lost = sum(host.overwritten for host in await line.hosts())
        assert lost >= FRAMES - len(stamps), "what nobody looked at is counted"
