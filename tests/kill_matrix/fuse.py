"""Where a process harms itself: at a state of the trade machine, or at a write of its store."""

from __future__ import annotations

import asyncio
import os
import signal
import struct
from collections import Counter
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection
from typing import Any

import msgspec

from tests.kill_matrix.cells import Trigger, When
from tests.kill_matrix.wire import CommitWire

GATE_TIMEOUT_S = 10.0


class Line:
    """A process' line to the stage: news go out, words come in."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._gates: dict[str, asyncio.Event] = {}
        self.on_word: Callable[[tuple[Any, ...]], None] = lambda word: None

    def listen(self) -> None:
        """Take the stage's words from the event loop on."""
        asyncio.get_running_loop().add_reader(self._connection.fileno(), self._readable)

    def tell(self, *news: Any) -> None:
        """Tell the stage."""
        self._connection.send(news)

    def hand_over(self) -> None:
        """Stand still, with everything in this process, until the stage says go."""
        self.tell("reached")
        while self._taken() != ("go",):
            pass

    async def gate(self, name: str) -> None:
        """Wait until the stage has set the market."""
        opened = self._gates[name] = asyncio.Event()
        self.tell("gate", name)
        async with asyncio.timeout(GATE_TIMEOUT_S):
            await opened.wait()

    def _readable(self) -> None:
        while self._connection.poll():
            self._taken()

    def _taken(self) -> tuple[Any, ...]:
        try:
            word: tuple[Any, ...] = self._connection.recv()
        except (EOFError, OSError):
            os._exit(0)  # the stage is gone, and nothing of it may stay
        if word[0] == "open":
            self._gates[word[1]].set()
        else:
            self.on_word(word)
        return word


class Fuse:
    """Carries one trigger, counts what comes by, and blows once."""

    def __init__(self, trigger: Trigger | None, line: Line, wire: CommitWire) -> None:
        self._trigger = trigger
        self._line, self._wire = line, wire
        self._seen: Counter[tuple[str, str]] = Counter()

    def at_state(self, state: str) -> None:
        """The machine has moved; what it asks for has not begun."""
        if self._trigger is not None and self._trigger.state == state:
            self._blow()

    async def at_write(
        self, method: str, label: str, marker: bytes, write: Callable[[], Awaitable[Any]]
    ) -> Any:
        """Carry a write out, and harm this process where the trigger says."""
        self._seen[method, label] += 1
        found = self._trigger
        if found is None or not self._is_here(found, method, label):
            return await write()
        if found.when is When.BEFORE:
            self._blow()
            return await write()
        if found.when is When.AFTER:
            answer = await write()
            self._blow()
            return answer
        self._trigger = None
        if found.when is When.LOST:
            self._wire.mark(marker, lambda: self._line.tell("reached"), "lose")
        elif found.when is When.SERVER:
            self._wire.mark(marker, self._line.hand_over, "go")
        elif found.act == "freeze":
            self._wire.mark(marker, self._freeze, "go")
        else:
            self._wire.mark(marker, lambda: self._line.tell("reached"), "die")
        return await write()

    def _is_here(self, trigger: Trigger, method: str, label: str) -> bool:
        if trigger.method != method or not label.startswith(trigger.label):
            return False
        count = sum(
            seen
            for (one, said), seen in self._seen.items()
            if one == method and said.startswith(trigger.label)
        )
        return count == trigger.nth

    def _blow(self) -> None:
        assert self._trigger is not None
        act, self._trigger = self._trigger.act, None
        if act == "hand":
            self._line.hand_over()
        elif act == "freeze":
            self._freeze()
        else:
            self._line.tell("reached")
            os.kill(os.getpid(), signal.SIGKILL)

    def _freeze(self) -> None:
        self._line.tell("reached")
        os.kill(os.getpid(), signal.SIGSTOP)


class MarkedStore:
    """A store whose writes are places to die at; ``before`` is asked first."""

    def __init__(
        self,
        inner: Any,
        fuse: Fuse,
        before: Callable[[str, str], Awaitable[None]] | None = None,
    ) -> None:
        self._inner, self._fuse, self._before = inner, fuse, before

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)
        if name not in {*NAMED, "write"}:
            return method

        async def call(*args: Any) -> Any:
            known_as, about = _call(name, args)
            label, marker = NAMED[known_as](*about)
            if self._before is not None:
                await self._before(known_as, label)
            return await self._fuse.at_write(known_as, label, marker, lambda: method(*args))

        return call


def _event(symbol, epoch, trade_id, seq, event):
    return msgspec.json.decode(event)["type"], event


def _order(symbol, epoch, order, *rest):
    venue = str(order.instrument).split(":")[0].split("_")[0]
    return f"{order.purpose}/{venue}", f'"{order.client_order_id}"'.encode()


def _entries(symbol, epoch, entries):
    # What closes the books comes with what was posted before, again.
    closing = [entry for entry in entries if entry.kind == "settle_perp"]
    entry = (closing or entries)[0]
    return str(entry.kind), entry.entry_id.encode()


def _settlement(epoch, settlement):
    return f"{settlement.symbol}/{settlement.kind}", settlement.trade_id.encode()


NAMED: dict[str, Callable[..., tuple[str, bytes]]] = {
    # method of a store -> what this call is about, and what its statements are known by
    "claim_symbol": lambda symbol, owner: ("", owner.encode()),
    "next_trade_number": lambda symbol: ("", symbol.encode()),
    "append_event": _event,
    "accept_order": _order,
    "report_order": _order,
    "post": _entries,
    "take_lease": lambda holder: ("", holder.encode()),
    # By the epoch as it travels; another write of the guard's at that instant is as good a place.
    "renew_lease": lambda epoch: ("", struct.pack("!iq", 8, epoch)),
    "open_balances": lambda epoch, opening: ("", opening.entry_id.encode()),
    "note_limits": lambda epoch, limits: ("", b"daily_loss_usdt"),
    "grant": lambda epoch, intent, hold, at_ns: (intent.symbol, intent.trade_id.encode()),
    "settle": _settlement,
    "set_state": lambda epoch, change: (str(change.state), change.reason.encode()),
}


def _call(name: str, args: tuple[Any, ...]) -> tuple[str, tuple[Any, ...]]:
    """Return what a call is in the matrix: decisions that go in a group go by their own names."""
    if name != "write":
        return name, args
    epoch, group = args
    # The trade's decision before the rival's beside it.
    first = min(group, key=lambda one: getattr(one, "intent", one).symbol != "ETH")
    if hasattr(first, "intent"):
        return "grant", (epoch, first.intent, first.hold, first.at_ns)
    return "settle", (epoch, first)
