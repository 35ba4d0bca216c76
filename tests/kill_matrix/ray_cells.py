"""
The actors that the cells without Ray lack: persistence, supervisor, feeds on real sockets, Redis.

One run as a person starts it, with exchanges that take their time, so that a trade can be met
in each state; what is killed is a worker of Ray. Ray starts it again.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import psutil

from arb_ray.engine.trade import replay
from arb_ray.engine.trade_events import decode_event
from tests.e2e.ledger import read_ledger
from tests.e2e.runs import END_TIMEOUT_S, short_folder, submit
from tests.kill_matrix.result import Result

REACHED_WITHIN_S = 60.0
CLOSED_WITHIN_S = 20.0
"""Of which the trade itself may take five to be held and two for its orders."""

BACK_WITHIN_S = 20.0
GOES_ON_WITHIN_S = 60.0
POLL_S = 0.05

SETTINGS = (
    "venues.upbit.order_latency_median_ms=500", "venues.upbit.order_latency_p99_ms=900",
    "venues.binance_spot.order_latency_median_ms=400",
    "venues.binance_spot.order_latency_p99_ms=800",
    "strategy.max_hold_s=5",
    # So short a time loses more often than not, and a guard that pauses entries tells nothing here.
    "risk.daily_loss_usdt=100000", "risk.symbol_daily_loss_usdt=50000",
    "risk.drawdown_usdt=100000", "risk.consecutive_losses_count=10000",
)  # fmt: skip

VICTIMS = {
    # what a cell calls it -> how its process is titled, and which of several
    "persistence": ("ray::PersistenceActor", 0),
    "supervisor": ("ray::SupervisorActor", 0),
    "feed-1": ("ray::FeedActor", 0),
    "feed-2": ("ray::FeedActor", -1),
    "redis": ("valkey", 0),
}

STATES = ("entering", "holding", "exiting")


class RayCell(msgspec.Struct, frozen=True):
    """One kill in the run."""

    id: str
    victim: str
    state: str


def ray_cells() -> list[RayCell]:
    """Return the cells over Ray; Redis is last, because nobody starts it again."""
    cells = [
        RayCell(f"ray.{victim}.{state}", victim, state)
        for victim in VICTIMS
        if victim != "redis"
        for state in STATES
    ]
    return [*cells, RayCell("ray.redis.holding", "redis", "holding")]


def run_ray_cells(
    cells: list[RayCell], on_result: Callable[[Result], None] = lambda result: None
) -> list[Result]:
    """Run them in one run after the other's recovery; the audit of the end judges all."""
    settings = [word for one in SETTINGS for word in ("--set", one)]
    results = []
    with (
        short_folder() as folder,
        submit(folder / "data", "--json", "--seed", "5", *settings) as run,
    ):
        run.until_live()
        for cell in cells:
            result = asyncio.run(_Kill(run, folder / "data", cell).play())
            results.append(result)
            on_result(result)
        run.interrupt()
        code = run.wait(END_TIMEOUT_S)
        ledger = read_ledger(folder / "data")
    final = [f"the run ended with {code}"] if code not in {0, 4} else []
    # With exchanges that take half a second, a price may run away from both legs of an entry.
    final += [one for one in ledger.problems() if not one.endswith("posted without a fill")]
    final += [f"{trade} is still open" for trade in ledger.open_trades()]
    for result in results:
        result.problems += final
    return results


class _Kill:
    def __init__(self, run: Any, data_dir: Path, cell: RayCell) -> None:
        self._run, self._data_dir, self._cell = run, data_dir, cell
        self.result = Result(cell.id)

    async def play(self) -> Result:
        began = time.monotonic()
        connection = await asyncpg.connect(_dsn(self._data_dir))
        try:
            await self._play(connection)
        finally:
            await connection.close()
        self.result.took_s = time.monotonic() - began
        return self.result

    async def _play(self, connection: Any) -> None:
        cell, problems = self._cell, self.result.problems
        trade = await _until(lambda: _in_state(connection, cell.state), REACHED_WITHIN_S)
        if trade is None:
            problems.append(f"no trade was met {cell.state}")
            return
        victim = self._victim()
        killed_ns, killed = time.time_ns(), time.monotonic()
        victim.kill()
        self.result.is_reached = True
        if not await _until(lambda: _is_closed(connection, trade), CLOSED_WITHIN_S):
            problems.append(f"{trade} is not closed after {CLOSED_WITHIN_S:g} s")
        self.result.flat_after_s = time.monotonic() - killed
        if cell.victim != "redis" and not await _until(
            lambda: self._is_back(victim), BACK_WITHIN_S
        ):
            problems.append(f"{cell.victim} is not back after {BACK_WITHIN_S:g} s")
        if not await _until(lambda: _went_on(connection, killed_ns), GOES_ON_WITHIN_S):
            problems.append("no trade opened and closed afterwards")

    def _victim(self) -> psutil.Process:
        title, index = VICTIMS[self._cell.victim]
        found = [*self._titled(title)]
        assert found, f"no process is titled {title}"
        return found[index]

    def _titled(self, title: str) -> Iterator[psutil.Process]:
        if title.startswith("ray::"):
            yield from self._run.family.titled(title)
            return
        for process in self._run.family.processes():
            if title in process.name():
                yield process

    async def _is_back(self, victim: psutil.Process) -> bool:
        title, _ = VICTIMS[self._cell.victim]
        count = 2 if self._cell.victim.startswith("feed") else 1
        return len([one for one in self._titled(title) if one.pid != victim.pid]) >= count


async def _until(look: Callable[[], Any], within_s: float) -> Any:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if found := await look():
            return found
        await asyncio.sleep(POLL_S)
    return None


async def _in_state(connection: Any, state: str) -> str | None:
    """Return a trade that is in this state by its journal."""
    rows = await connection.fetch(
        "SELECT trade_id, array_agg(event::text ORDER BY seq) AS events FROM arb.trades "
        "JOIN arb.trade_events USING (env, trade_id) WHERE status = 'open' GROUP BY 1"
    )
    for row in rows:
        trade = replay(decode_event(event.encode()) for event in row["events"])
        if trade.phase == state:
            return str(row["trade_id"])
    return None


async def _is_closed(connection: Any, trade_id: str) -> bool:
    return bool(
        await connection.fetchval(
            "SELECT status = 'closed' FROM arb.trades WHERE trade_id = $1", trade_id
        )
    )


async def _went_on(connection: Any, since_ns: int) -> bool:
    return bool(
        await connection.fetchval(
            "SELECT EXISTS (SELECT FROM arb.trades JOIN arb.reservations USING (env, trade_id) "
            "WHERE outcome = 'posted' AND recorded_ns > $1)",
            since_ns,
        )
    )


def _dsn(data_dir: Path) -> str:
    folder = data_dir / "postgres"
    password = (folder / "password").read_text(encoding="ascii").strip()
    port = json.loads((folder / "postgres.server.json").read_bytes())["port"]
    return f"postgresql://arb:{password}@127.0.0.1:{port}/arb"
