"""
One cell: its processes are started, led to the place, harmed, started again, and judged.

The stage sees what the host's trade does and sets the books so that it goes the script's way.
Whoever dies is started again with what he was started with before, as Ray does.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from pathlib import Path
from typing import Any

from arb_ray.domain.errors import ArbError
from tests.kill_matrix.books import FEEDS, Books
from tests.kill_matrix.cells import Cell, Harm, Script, When
from tests.kill_matrix.checks import violations
from tests.kill_matrix.market import GATES
from tests.kill_matrix.process import Process, comes
from tests.kill_matrix.processes import RISK_TIMEOUT_S, Part
from tests.kill_matrix.result import Result
from tests.kill_matrix.rival import Rival
from tests.kill_matrix.rpc import RpcClient
from tests.kill_matrix.server import Server

FLAT_WITHIN_S = 10.0
"""From the harm to a flat, settled trade; ten seconds is what issue 4 allows at most."""

SERVER_BACK_WITHIN_S = 30.0
GOES_ON_WITHIN_S = 20.0
RIVAL_WITHIN_S = 2.0
FUNDING_AFTER_NS = 300_000_000
OPEN = frozenset({"entering", "hedging", "holding", "exiting", "unwinding"})


class Stage:
    """Runs one cell on a server."""

    def __init__(self, cell: Cell, server: Server, folder: Path, plant: str = "") -> None:
        self.cell, self.server, self.folder, self.plant = cell, server, folder, plant
        self.result = Result(cell.id)
        self.now: dict[str, Process] = {}  # by name, the life that serves now
        self.former: list[Process] = []
        self.phase = "starting"
        self.trade = ""
        self._lives: dict[str, int] = {}
        self._struck = asyncio.Event()
        self._struck_ns = 0
        self._healed = asyncio.Event()
        self._flat = asyncio.Event()
        self._is_idle = asyncio.Event()
        self._went_on = asyncio.Event()
        self._held: set[str] = set()
        self._after: set[str] = set()  # trades whose signal came after the harm was healed
        self.books = Books(self.now)
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_closing = False
        self._has_operated = False
        self._temptation: asyncio.Task[None] | None = None
        self._rivalry: asyncio.Task[None] | None = None

    # -- life ---------------------------------------------------------------------------

    async def run(self) -> Result:
        """Play the cell to its end."""
        began = time.monotonic()
        self.env = await self.server.environment()
        self.dsn = self.server.dsn
        self.rival = Rival(self.folder, self.dsn, self.env)
        try:
            for name in ("guard", "feed-a", "feed-b", "host"):
                self._start(name)
            self._rivalry = self._spawn(self.rival.run(lambda: self.phase in OPEN))
            await self._play()
        except Exception as error:  # noqa: BLE001 - a cell's failure is its result
            self._complain(f"{type(error).__name__}: {error}")
        finally:
            await self._close()
        if self.result.is_reached:
            try:
                self.result.problems += await violations(self.dsn, self.env, self._struck_ns)
            except (OSError, ArbError) as error:
                self._complain(f"the books cannot be read: {error}")
        self.result.took_s = time.monotonic() - began
        return self.result

    async def _play(self) -> None:
        if not await comes(self._struck, self.cell.reach_within_s):
            self._complain(f"the place was never reached; the trade is {self.phase}")
            return
        self.result.is_reached = True
        struck = time.monotonic()
        bound_s = FLAT_WITHIN_S
        is_server = self.cell.victim == "postgres"
        if not await comes(self._healed, SERVER_BACK_WITHIN_S if is_server else bound_s):
            self._complain(f"not healed within {bound_s:g} s; the trade is {self.phase}")
        if is_server:
            struck = time.monotonic()  # how long a server recovers is not the trade's doing
        if not await comes(self._flat, max(0.1, struck + bound_s - time.monotonic())):
            self._complain(f"not flat within {bound_s:g} s: the trade is {self.phase}")
        self.result.flat_after_s = time.monotonic() - struck
        if not await comes(self._went_on, GOES_ON_WITHIN_S):
            self._complain(f"trading did not go on; the trade is {self.phase}")

    async def _close(self) -> None:
        if self._rivalry is not None:
            self._rivalry.cancel()
            await asyncio.gather(self._rivalry, return_exceptions=True)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5):
                await self.rival.give_back_all()
        self.result.rival_refused = self.rival.refused
        self._is_closing = True
        for process in (*self.now.values(), *self.former):
            process.kill()
        for process in (*self.now.values(), *self.former):
            await comes(process.has_ended, 5)
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for process in (*self.now.values(), *self.former):
            asyncio.get_running_loop().remove_reader(process.line.fileno())
            process.line.close()
            process.process.close()

    def _complain(self, problem: str) -> None:
        if problem not in self.result.problems:
            self.result.problems.append(problem)

    def _spawn(self, work: Any) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._complain(f"the stage: {type(error).__name__}: {error}")

    def _start(self, name: str) -> Process:
        life = self._lives[name] = self._lives.get(name, -1) + 1
        cell = self.cell
        trigger = {0: cell.trigger, 1: cell.then}.get(life) if name == cell.holder else None
        part = Part(
            name, life, str(self.folder), self.dsn, self.env, cell.script, trigger, self.plant
        )
        if name in self.now:
            self.former.append(self.now[name])
        process = self.now[name] = Process(part)
        loop = asyncio.get_running_loop()
        loop.add_reader(process.line.fileno(), lambda: self._news(process))
        self._spawn(self._watch(process))
        if name == "guard":
            self._point(f"guard.{life}.sock")
        if name == "host":
            for feed in FEEDS:
                self._send_sinks(feed)
        if name.startswith("feed"):
            self._send_sinks(name)
            self.books.tell()
        return process

    def _point(self, target: str) -> None:
        """Let the guard's name mean another process, as Ray's name service does."""
        aside = self.folder / "guard.next"
        aside.symlink_to(target)
        aside.rename(self.folder / "guard.sock")

    def _send_sinks(self, feed: str) -> None:
        if feed in self.now:
            for process in (*self.former, *self.now.values()):
                if process.part.name == "host" and not process.has_ended.is_set():
                    self.now[feed].say("sink", process.part.life)

    async def _watch(self, process: Process) -> None:
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(process.process.sentinel, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(process.process.sentinel)
        self._news(process)  # its last words
        process.process.join(1)
        code = process.process.exitcode
        process.has_ended.set()
        if self._is_closing:
            return
        name = process.part.name
        if code not in process.may_end_by:
            self._complain(f"{name} ended by itself with {code}; see its log")
        if self.now[name] is process:
            self._start(name)
            if name == "guard":
                self._healed.set()

    # -- what is told -------------------------------------------------------------------

    def _news(self, process: Process) -> None:
        with contextlib.suppress(EOFError, OSError):
            while not process.line.closed and process.line.poll():
                self._told(process, process.line.recv())
            return
        if not process.line.closed:
            asyncio.get_running_loop().remove_reader(process.line.fileno())

    def _told(self, process: Process, news: tuple[Any, ...]) -> None:
        what = news[0]
        if what == "shown":
            self.books.shown(process.part.name, news[1], news[2])
        elif what == "ready":
            process.is_ready.set()
        elif what == "recovered":
            process.is_ready.set()
            if self.now["host"] is process:
                self._host_recovered(news[1])
        elif what == "gate":
            self._spawn(self._open_gate(process, news[1]))
        elif what == "moved":
            if self.now["host"] is process:
                self._moved(*news[1:])
        elif what == "reached":
            self._reached(process)

    def _host_recovered(self, phase: str) -> None:
        if self._struck.is_set():
            self._healed.set()
        self._moved(phase, "recovered", self.trade)

    async def _open_gate(self, process: Process, label: str) -> None:
        if not self._struck.is_set():
            _, wanted, books = GATES[self.cell.script]
            assert label == wanted
            if self.cell.script is Script.UNANSWERED:
                self._spawn(self._silence(self.now["guard"]))
            self.books.set(**books)
            await self.books.until_shown()
        process.say("open", label)

    async def _silence(self, guard: Process) -> None:
        guard.signal(signal.SIGSTOP)
        await asyncio.sleep(RISK_TIMEOUT_S * 1.3)
        guard.signal(signal.SIGCONT)

    def _moved(self, phase: str, event: str, trade: str | None) -> None:
        """Lead the market by what the trade does."""
        was, self.phase = self.phase, phase
        self._is_idle.clear()
        self.trade = trade or self.trade
        if event == "Signal" and self._healed.is_set() and trade:
            self._after.add(trade)
        if phase == "holding":
            self._held.add(self.trade)
        if phase == "idle":
            self._idle(was)
        elif phase == "holding" and (was != phase or event == "FundingPaid"):
            self._holding(event)
        elif phase in {"hedging", "unwinding"} and was != phase:
            self.books.set(upbit="u_cheap" if phase == "hedging" else "u_fair", binance="n")
        elif phase in {"exiting", "unwinding"} and event == "recovered":
            self.books.set(upbit="u_fair", binance="n")

    def _holding(self, event: str) -> None:
        script = self.cell.script
        if script is Script.OPERATED and not self._has_operated:
            self._has_operated = True
            self._spawn(self._operate())
        elif script is Script.PERP and not self._struck.is_set() and event != "FundingPaid":
            self.now["feed-b"].say("fund", time.time_ns() + FUNDING_AFTER_NS)
        elif self.cell.victim == "guard" and self._is_struck_by_now():
            self._spawn(self._leave_after_the_rival())
        else:
            self.books.set(upbit="u_fair", binance="n")

    async def _leave_after_the_rival(self) -> None:
        """Keep the trade open until a rival has tried the guard that came after the harm."""
        await comes(self._healed, FLAT_WITHIN_S)
        self.rival.has_heard_a_book.clear()
        await comes(self.rival.has_heard_a_book, RIVAL_WITHIN_S)
        if self.phase == "holding":
            self.books.set(upbit="u_fair", binance="n")

    def _is_struck_by_now(self) -> bool:
        # The news of the state comes before the news that its place was reached.
        return self._struck.is_set() or self.cell.trigger.state == "holding"

    def _idle(self, was: str) -> None:
        self._is_idle.set()
        if self._healed.is_set() and was != "starting":
            self._flat.set()
        if self.trade in self._after & self._held:
            self._went_on.set()
            self.books.set(upbit="u_fair", binance="n")
        elif not self._went_on.is_set():
            if self._temptation is not None:
                self._temptation.cancel()
            self._temptation = self._spawn(self._tempt())

    async def _tempt(self) -> None:
        """
        Show a fair market, then the edge, until there is a trade.

        A perpetual's basis is the mean of what was seen: shown for long, an edge is none.
        """
        is_perp = self.cell.script is Script.PERP
        while self.phase == "idle" and not self._went_on.is_set():
            self.books.set(upbit="u_fair", binance="n")
            await asyncio.sleep(0.4 if is_perp else 0.15)
            if self.phase != "idle":
                return
            self.books.set(upbit="u_cheap")
            await asyncio.sleep(0.15 if is_perp else 2.0)

    async def _operate(self) -> None:
        await self._command("halt")
        async with asyncio.timeout(FLAT_WITHIN_S + GOES_ON_WITHIN_S):
            await self._is_idle.wait()
        await self._command("resume")

    async def _command(self, verb: str) -> None:
        """Say it as an operator does: again, until it is answered."""
        client = RpcClient(str(self.folder / "guard.sock"), 2.0)
        while True:
            try:
                await client.call("command", verb, f"{verb} of the cell", "operator", "")
            except ArbError:
                await asyncio.sleep(0.1)
            else:
                client.close()
                return

    # -- harm ---------------------------------------------------------------------------

    def _reached(self, holder: Process) -> None:
        is_last = self.cell.then is None or holder.part.life == 1
        if not is_last:
            return  # its next life brings the place
        self._struck_ns = time.time_ns()
        self._struck.set()
        trigger = self.cell.then or self.cell.trigger
        if trigger.when is When.LOST:
            self._healed.set()  # only an answer is gone
        elif self.cell.victim == "postgres":
            self.server.kill()
            holder.say("go")
            self._spawn(self._server_again())
        elif self.cell.harm is Harm.KILL:
            if holder.part.name != self.cell.victim:
                self.now[self.cell.victim].kill()
                holder.say("go")
                if self.cell.victim.startswith("feed"):
                    self._healed.set()
        else:
            self._spawn(self._double(holder))

    async def _server_again(self) -> None:
        await self.server.start_again()
        self._healed.set()

    async def _double(self, holder: Process) -> None:
        """Let a second one take over while the first is frozen or cut off; then free it."""
        first = self.now[self.cell.victim]
        first.may_end_by |= {70, -signal.SIGKILL}  # 70: a loop ended, here because it was fenced
        if self.cell.harm is Harm.CUT:
            first.say("cut")
            holder.say("go")
        elif holder is not first:
            first.signal(signal.SIGSTOP)
            holder.say("go")
        second = self._start(self.cell.victim)
        await second.is_ready.wait()
        if self.cell.harm is Harm.CUT:
            first.say("heal")
        else:
            first.signal(signal.SIGCONT)
        if self.cell.victim == "guard":
            socket = f"guard.{first.part.life}.sock"
            for trade_id in await self.rival.ask_a_guard_of_the_past(socket):
                self._complain(f"a guard of the past granted {trade_id}")
        self._healed.set()
