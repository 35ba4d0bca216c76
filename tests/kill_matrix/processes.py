"""The processes of a cell: a strategy host, a RiskGuard, two feeds. The real classes, no Ray."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
import traceback
from decimal import Decimal
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import msgspec

from arb_ray.actors.risk_guard import GuardTimes, RiskGuard
from arb_ray.actors.wire import pack
from arb_ray.adapters.clock import SystemClock
from arb_ray.adapters.storage.ledger_store import PostgresLedgerStore
from arb_ray.adapters.storage.node_spools import NodeSpools
from arb_ray.adapters.storage.postgres_pool import Postgres
from arb_ray.adapters.storage.risk_store import PostgresRiskStore
from arb_ray.adapters.storage.spooled_ledger import PROBE_TIMEOUT_S, SpooledLedger
from arb_ray.app.hosts import HostPlace, build_host
from arb_ray.app.settings import load_settings
from arb_ray.domain.book import FundingUpdate
from arb_ray.domain.errors import ArbError
from arb_ray.domain.instrument import Symbol
from arb_ray.engine.trade_state import Idle
from tests.kill_matrix.bugs import planted
from tests.kill_matrix.cells import Script, Trigger
from tests.kill_matrix.fuse import Fuse, Line, MarkedStore
from tests.kill_matrix.market import BOOKS, CELL_LIMITS, GATES, OVERRIDES, START, pair_of
from tests.kill_matrix.rpc import RpcClient, RpcRisk, RpcServer
from tests.kill_matrix.wire import CommitWire
from tests.shell_world import OPENING, Counts
from tests.signal_market import make_batch, make_update

NODE = "cell"
STATEMENT_TIMEOUT_MS = 1_500
RISK_TIMEOUT_S = 1.0
SPOOL_BYTES = 10_000_000
SEND_EVERY_S = 0.02
SEND_TIMEOUT_S = 0.5


class Part(msgspec.Struct, frozen=True):
    """What a process is told at its start; the same in each of its lives but for the trigger."""

    name: str
    life: int
    folder: str
    dsn: str
    env: str
    script: Script
    trigger: Trigger | None
    plant: str = ""

    def socket(self, name: str) -> str:
        return str(Path(self.folder) / name)


class FileLog:
    """Lines in the cell's folder, for whoever looks into a failure."""

    def __init__(self, part: Part) -> None:
        path = Path(part.folder) / f"{part.name}.{part.life}.log"
        self._file = path.open("a", buffering=1, encoding="utf-8")

    def fileno(self) -> int:
        return self._file.fileno()

    def _say(self, event: str, **fields: Any) -> None:
        words = " ".join(f"{key}={value}" for key, value in fields.items())
        self._file.write(f"{time.time():.3f} {event} {words}\n")

    debug = info = warning = error = critical = exception = _say


def run_part(part: Part, connection: Connection) -> None:
    """Live one life of a process; what ends it unasked is in its log."""
    main = {"host": _host, "guard": _guard}.get(part.name, _feed)
    log = FileLog(part)
    # Whatever else is said in here, a traceback of a host that was fenced say, is kept there too.
    for descriptor in (sys.stdout.fileno(), sys.stderr.fileno()):
        os.dup2(log.fileno(), descriptor)
    try:
        with planted(part.plant) if part.plant else contextlib.nullcontext():
            asyncio.run(main(part, Line(connection), log))
    finally:
        log.warning("ended", traceback=traceback.format_exc())
        os._exit(1)  # the stage takes it for a crash, whatever it was


async def _way_to_postgres(part: Part) -> tuple[Postgres, CommitWire]:
    parts = urlsplit(part.dsn)
    wire = CommitWire(parts.hostname or "", parts.port or 0)
    await wire.start()
    credentials = parts.netloc.rpartition("@")[0]
    dsn = urlunsplit(parts._replace(netloc=f"{credentials}@127.0.0.1:{wire.port}"))
    postgres = Postgres(
        dsn, statement_timeout_ms=STATEMENT_TIMEOUT_MS, acquire_timeout_s=STATEMENT_TIMEOUT_MS / 1e3
    )
    return postgres, wire


async def _guard(part: Part, line: Line, log: FileLog) -> None:
    postgres, wire = await _way_to_postgres(part)
    fuse = Fuse(part.trigger, line, wire)

    async def opening() -> Any:
        return OPENING

    guard = RiskGuard(
        holder=f"guard/{part.life}",
        store=MarkedStore(PostgresRiskStore(postgres, part.env), fuse),
        limits=CELL_LIMITS,
        opening=opening,
        clock=SystemClock(),
        metrics=Counts(),
        log=log,
        times=GuardTimes(lease_renew_s=0.5, start_retry_s=0.1),
    )
    line.on_word = lambda word: wire.cut(word == ("cut",)) if word[0] in {"cut", "heal"} else None
    line.listen()
    guard.start()
    await RpcServer(part.socket(f"guard.{part.life}.sock"), guard).start()
    while not (await guard.status())["ready"]:  # noqa: ASYNC110 - it tells nobody by itself
        await asyncio.sleep(0.01)
    line.tell("ready")
    await asyncio.Event().wait()


async def _host(part: Part, line: Line, log: FileLog) -> None:
    postgres, wire = await _way_to_postgres(part)
    fuse = Fuse(part.trigger, line, wire)
    pair = pair_of(part.script)
    gate = GATES.get(part.script)

    async def before(method: str, label: str) -> None:
        if gate is not None and (method, label) == gate[:2]:
            await line.gate(label)
        if method == "next_trade_number":
            fuse.at_state("idle")  # with a signal in hand

    async def load_pairs(_symbols: Any) -> Any:
        return [pair]

    ledger = SpooledLedger(
        MarkedStore(PostgresLedgerStore(postgres, part.env), fuse, before),
        # Each life finds the spool of the one before, as on a node.
        NodeSpools(Path(part.folder) / "spool", part.env, "host-000", size_max=SPOOL_BYTES),
        probe=lambda: postgres.ping(PROBE_TIMEOUT_S),
        cut=postgres.cut,
        metrics=Counts(),
        log=log,
    )
    place = HostPlace(
        name="host",
        env=part.env,
        session_id="cell",
        seed=7,
        symbols=(pair.symbol,),
        node=NODE,
        clock=SystemClock(),
        ledger=ledger,
        keeper=ledger,
        risk=RpcRisk(RpcClient(part.socket("guard.sock"), RISK_TIMEOUT_S)),
        outbox=_NoOutbox(),
        load_pairs=load_pairs,
    )
    # An environment a cell: they share a server, and nothing else.
    settings = load_settings("dev", OVERRIDES, environ={}).model_copy(update={"env": part.env})
    host = build_host(settings, place, Counts(), log)
    # Each life claims under a name of its own, as each has a pid of its own.
    record = host.parts.record
    moved = record.moved

    def told(symbol: Symbol, was: Any, trade: Any, event: Any) -> None:
        moved(symbol, was, trade, event)
        plan = getattr(trade if not isinstance(trade, Idle) else was, "plan", None)
        line.tell("moved", str(trade.phase), type(event).__name__, plan and plan.trade_id)
        if trade.phase is not was.phase:
            fuse.at_state(str(trade.phase))

    record.moved = told  # type: ignore[method-assign]
    line.listen()
    host.start()
    await RpcServer(part.socket(f"host.{part.life}.sock"), host).start()
    while not (  # noqa: ASYNC110 - the same
        host.runners and all(one.is_recovered for one in host.runners.values())
    ):
        await asyncio.sleep(0.005)
    line.tell("recovered", str(host.runners[pair.symbol].trade.phase))
    await asyncio.Event().wait()


class _NoOutbox:
    """Snapshots are not on the path of a trade; the cells over Ray have them."""

    def put(self, row: Any) -> None:
        """Drop it."""

    def put_state(self, category: str, payload: bytes) -> None:
        """Drop it."""

    async def run(self) -> None:
        """Send nothing, for ever."""
        await asyncio.Event().wait()

    async def flush(self) -> None:
        """Send nothing."""


class _Feed:
    """One venue's books as a feed sends them: the newest, to every host, again and again."""

    def __init__(self, part: Part, line: Line) -> None:
        self._part, self._line = part, line
        self._feed = "upbit" if part.name == "feed-a" else "binance"
        self._pair = pair_of(part.script)
        self._epoch = time.time_ns()
        self._shown = dict.fromkeys(START[self._feed])
        self._version = self._funding_ns = 0
        self._far_ns = time.time_ns() + 8 * 3600 * 10**9
        self._sequence = 0
        self.sinks: dict[int, asyncio.Task[None]] = {}

    def hear(self, word: tuple[Any, ...]) -> None:
        """Take the stage's word: books to show, a funding instant, a host to send to."""
        if word[0] == "show":
            _, self._version, names = word
            self._shown = dict.fromkeys(names)
        elif word[0] == "fund":
            self._funding_ns = word[1]
        elif word[0] == "sink" and word[1] not in self.sinks:
            self.sinks[word[1]] = asyncio.create_task(self._send(word[1]))

    async def _send(self, life: int) -> None:
        client = RpcClient(self._part.socket(f"host.{life}.sock"), SEND_TIMEOUT_S)
        while True:
            version, batch = self._version, self._batch()
            try:
                await client.call("deliver", pack(batch))
            except ArbError:
                client.close()
            else:
                self._line.tell("shown", life, version)
            await asyncio.sleep(SEND_EVERY_S)

    def _batch(self) -> Any:
        now_ns, mono_ns = time.time_ns(), time.monotonic_ns()
        updates = []
        for name in self._shown:
            self._sequence += 1
            leg = getattr(self._pair, BOOKS[name][1]).instrument.id
            update = make_update(leg, self._sequence, BOOKS[name][2], now_ns, epoch=self._epoch)
            updates.append(update)
        return make_batch(
            self._feed, updates, mono_ns, epoch=self._epoch, node=NODE, funding=self._funding()
        )

    def _funding(self) -> tuple[FundingUpdate, ...]:
        if self._part.script is not Script.PERP or self._feed != "binance":
            return ()
        now_ns = time.time_ns()
        due_ns = self._funding_ns if now_ns < self._funding_ns else self._far_ns
        instrument = self._pair.b.instrument.id
        return (FundingUpdate(instrument, 2000.0, float(Decimal("0.0001")), due_ns, now_ns),)


async def _feed(part: Part, line: Line, log: FileLog) -> None:
    feed = _Feed(part, line)
    line.on_word = feed.hear
    line.listen()
    line.tell("ready")
    await asyncio.Event().wait()
