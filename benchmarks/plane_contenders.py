"""
What may carry a node's newest books: each contender's writer and reader, behind one shape.

A writer puts a packed book under a symbol's number and, at the end of a turn, wakes the readers
whose symbols it touched. A reader waits until it is woken and returns what is new.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import shutil
import struct
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from arb_ray.adapters.plane import segments
from arb_ray.adapters.plane.bells import Bell, BellRope
from arb_ray.adapters.plane.board import BoardReader, BoardWriter, TornRead
from arb_ray.adapters.plane.layout import Layout

VALUE_BYTES = 640
SWEEP_S = 0.05


class Writer(Protocol):
    """The feed's side."""

    def put(self, symbol: int, value: bytes) -> None:
        """Replace a symbol's value."""
        ...

    def turn(self) -> None:
        """End a turn of the event loop: wake who has something to read."""
        ...


class Reader(Protocol):
    """A host's side."""

    def wait(self) -> Sequence[bytes]:
        """Wait for what is new, some ten ms at most."""
        ...


def available() -> list[str]:
    """Return the contenders whose packages are installed; ours first."""
    packages = {"board": "arb_ray", "lmdb": "lmdb", "zmq": "zmq", "iceoryx2": "iceoryx2"}
    return [name for name, package in packages.items() if find_spec(package)]


def make_writer(kind: str, folder: Path, symbols: int, readers: int) -> Writer:
    """Return a contender's writer; its readers are there already."""
    kinds: dict[str, Any] = {
        "board": _BoardWriter,
        "lmdb": _LmdbWriter,
        "zmq": _ZmqWriter,
        "iceoryx2": _IceWriter,
    }
    writer: Writer = kinds[kind](folder, symbols, readers)
    return writer


def make_reader(kind: str, folder: Path, symbols: int, readers: int, number: int) -> Reader:
    """Return a contender's reader ``number``, of the symbols that are its share."""
    kinds: dict[str, Any] = {
        "board": _BoardReader,
        "lmdb": _LmdbReader,
        "zmq": _ZmqReader,
        "iceoryx2": _IceReader,
    }
    mine = range(number, symbols, readers)
    reader: Reader = kinds[kind](folder, mine, number)
    return reader


def _patient(make: Any) -> Any:
    """Try until the other side is there."""
    deadline = time.monotonic() + 20
    while True:
        try:
            return make()
        except Exception:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


class _Ringing:
    """Bells, as arb_ray has them; a contender without a doorbell of its own uses them too."""

    def __init__(self, folder: Path, readers: int) -> None:
        self._ropes = [
            _patient(lambda number=number: BellRope(folder, str(number)))
            for number in range(readers)
        ]
        self._due: set[int] = set()
        self._missed: set[int] = set()

    def ring(self) -> None:
        now = time.monotonic_ns()
        for number in self._missed - self._due:
            if not self._ropes[number].ring_if_missed(now):
                self._missed.discard(number)
        for number in self._due:
            (self._missed.add if self._ropes[number].ring(now) else self._missed.discard)(number)
        self._due.clear()


class _Listening:
    """A reader that sleeps by a bell."""

    def __init__(self, folder: Path, number: int) -> None:
        self._bell = Bell(folder, str(number), 1)
        self._poll = select.poll()
        self._poll.register(self._bell.fileno(), select.POLLIN)

    def wait(self) -> Sequence[bytes]:
        found = self.look()
        if found:
            return found
        self._bell.sleep(time.monotonic_ns())
        found = self.look()
        if not found:
            self._poll.poll(SWEEP_S * 1e3)
        self._bell.wake()
        self._bell.hear()
        return found

    def look(self) -> Sequence[bytes]:
        raise NotImplementedError


class _BoardWriter(_Ringing):
    def __init__(self, folder: Path, symbols: int, readers: int) -> None:
        super().__init__(folder, readers)
        layout = Layout(symbols + 1, VALUE_BYTES, 4_096)
        self._segment = segments.create(folder / "bench.board", layout.size)
        self._board = BoardWriter(self._segment.fd, layout, 1)
        self._slots = [self._board.slot(str(symbol)) for symbol in range(symbols)]
        self._readers = readers

    def put(self, symbol: int, value: bytes) -> None:
        self._board.put(self._slots[symbol], value)
        self._due.add(symbol % self._readers)

    def turn(self) -> None:
        self.ring()


class _BoardReader(_Listening):
    def __init__(self, folder: Path, mine: range, number: int) -> None:
        super().__init__(folder, number)
        fd = _patient(lambda: os.open(folder / "bench.board", os.O_RDONLY))
        self._board: BoardReader = _patient(lambda: BoardReader(fd))
        self._mine = frozenset(symbol + 1 for symbol in mine)
        self._seen: dict[int, int] = {}

    def look(self) -> Sequence[bytes]:
        found = []
        for slot in self._board.written_since(self._mine):
            with contextlib.suppress(TornRead):
                got = self._board.read(slot, self._seen.get(slot, 0))
                if got is not None:
                    self._seen[slot] = got[0]
                    found.append(got[1])
        return found


class _LmdbWriter(_Ringing):
    """One transaction a turn; a record of all versions tells readers what changed."""

    def __init__(self, folder: Path, symbols: int, readers: int) -> None:
        import lmdb

        super().__init__(folder, readers)
        path = folder / "lmdb"
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
        self._env = lmdb.open(
            str(path), map_size=64 << 20, sync=False, metasync=False, writemap=True, map_async=True
        )
        self._versions = [0] * symbols
        self._pack = struct.Struct(f"={symbols}Q")
        self._waiting: dict[int, bytes] = {}
        self._readers = readers
        self.turn()

    def put(self, symbol: int, value: bytes) -> None:
        self._waiting[symbol] = value
        self._versions[symbol] += 1
        self._due.add(symbol % self._readers)

    def turn(self) -> None:
        with self._env.begin(write=True) as transaction:
            for symbol, value in self._waiting.items():
                transaction.put(b"%d" % symbol, value)
            transaction.put(b"versions", self._pack.pack(*self._versions))
        self._waiting.clear()
        self.ring()


class _LmdbReader(_Listening):
    def __init__(self, folder: Path, mine: range, number: int) -> None:
        import lmdb

        super().__init__(folder, number)
        self.env = _patient(lambda: lmdb.open(str(folder / "lmdb"), readonly=True, lock=True))
        self._mine = mine
        self._seen: dict[int, int] = {}

    def look(self) -> Sequence[bytes]:
        found: list[bytes] = []
        with self.env.begin(buffers=True) as transaction:
            raw = transaction.get(b"versions")
            if raw is None:
                return found
            with memoryview(raw).cast("B") as view, view.cast("Q") as versions:
                for symbol in self._mine:
                    if versions[symbol] != self._seen.get(symbol, 0):
                        self._seen[symbol] = versions[symbol]
                        found.append(bytes(transaction.get(b"%d" % symbol)))
        return found


class _ZmqWriter:
    """A socket a symbol, because CONFLATE keeps one message a socket."""

    def __init__(self, folder: Path, symbols: int, readers: int) -> None:
        import zmq

        self._context = zmq.Context()
        self._sockets = []
        for symbol in range(symbols):
            socket = self._context.socket(zmq.PUB)
            socket.setsockopt(zmq.SNDHWM, 1)
            socket.bind(f"ipc://{folder}/z{symbol}")
            self._sockets.append(socket)

    def put(self, symbol: int, value: bytes) -> None:
        self._sockets[symbol].send(value)

    def turn(self) -> None:
        """Nothing: every message wakes by itself."""


class _ZmqReader:
    def __init__(self, folder: Path, mine: range, number: int) -> None:
        import zmq

        self._zmq = zmq
        self._context = zmq.Context()
        self._poller = zmq.Poller()
        for symbol in mine:
            socket = self._context.socket(zmq.SUB)
            socket.setsockopt(zmq.CONFLATE, 1)
            socket.setsockopt(zmq.SUBSCRIBE, b"")
            socket.connect(f"ipc://{folder}/z{symbol}")
            self._poller.register(socket, zmq.POLLIN)

    def wait(self) -> Sequence[bytes]:
        found = []
        for socket, _ in self._poller.poll(int(SWEEP_S * 1e3)):
            with contextlib.suppress(self._zmq.Again):
                found.append(socket.recv(self._zmq.NOBLOCK))
        return found


class _Value(ctypes.Structure):
    """A value with its length, as iceoryx2 copies it."""

    _fields_ = (("size", ctypes.c_uint64), ("data", ctypes.c_uint8 * VALUE_BYTES))


def _ice() -> Any:
    import iceoryx2

    iceoryx2.set_log_level(iceoryx2.LogLevel.Fatal)
    return iceoryx2


def _ice_name(ice: Any, folder: Path, name: str) -> Any:
    return ice.ServiceName.new(f"arb_ray/bench/{folder.name}/{name}")


def _ice_books(ice: Any, node: Any, folder: Path, symbol: int) -> Any:
    service = node.service_builder(_ice_name(ice, folder, str(symbol))).publish_subscribe(_Value)
    return service.subscriber_max_buffer_size(1).enable_safe_overflow(True).open_or_create()


def _ice_bell(ice: Any, node: Any, folder: Path, number: int) -> Any:
    return node.service_builder(_ice_name(ice, folder, f"bell{number}")).event().open_or_create()


class _IceWriter:
    def __init__(self, folder: Path, symbols: int, readers: int) -> None:
        ice = self._ice = _ice()
        self._node = ice.NodeBuilder.new().create(ice.ServiceType.Ipc)
        self._services = [_ice_books(ice, self._node, folder, n) for n in range(symbols)]
        self._publishers = [one.publisher_builder().create() for one in self._services]
        self._events = [_ice_bell(ice, self._node, folder, n) for n in range(readers)]
        self._notifiers = [one.notifier_builder().create() for one in self._events]
        self._due: set[int] = set()
        self._value = _Value()
        self._readers = readers

    def put(self, symbol: int, value: bytes) -> None:
        self._value.size = len(value)
        ctypes.memmove(self._value.data, value, len(value))
        self._publishers[symbol].send_copy(self._value)
        self._due.add(symbol % self._readers)

    def turn(self) -> None:
        for number in self._due:
            self._notifiers[number].notify()
        self._due.clear()


class _IceReader:
    def __init__(self, folder: Path, mine: range, number: int) -> None:
        ice = self._ice = _ice()
        self._node = ice.NodeBuilder.new().create(ice.ServiceType.Ipc)
        self._services = [_ice_books(ice, self._node, folder, symbol) for symbol in mine]
        self._subscribers = [one.subscriber_builder().create() for one in self._services]
        self._event = _ice_bell(ice, self._node, folder, number)
        self._listener = self._event.listener_builder().create()
        self._timeout = ice.Duration.from_millis(int(SWEEP_S * 1e3))

    def wait(self) -> Sequence[bytes]:
        found: list[bytes] = []
        self._listener.timed_wait(self._timeout)
        for subscriber in self._subscribers:
            sample = subscriber.receive()
            if sample is not None:
                value = sample.payload().contents
                found.append(ctypes.string_at(value.data, value.size))
                sample.delete()
        return found
