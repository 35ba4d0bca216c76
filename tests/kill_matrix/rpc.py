"""Calls between the processes of a cell: what Ray is in production, small enough for a kill."""

from __future__ import annotations

import asyncio
import itertools
import os
import pickle
import struct
from typing import Any

from arb_ray.domain.errors import OutcomeUnknown


class RpcServer:
    """Serves an object's async methods on a socket of the file system."""

    def __init__(self, path: str, target: Any) -> None:
        self._path, self._target = path, target
        self._calls: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, self._path)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                number, method, args = await _read(reader)
                task = asyncio.create_task(self._answer(writer, number, method, args))
                self._calls.add(task)
                task.add_done_callback(self._calls.discard)
        except (OSError, asyncio.IncompleteReadError):
            writer.close()

    async def _answer(self, writer, number, method, args) -> None:
        try:
            answer = (number, await getattr(self._target, method)(*args), None)
        except Exception as error:  # noqa: BLE001 - it travels to the caller, as Ray sends it
            answer = (number, None, error)
        _write(writer, answer)


class RpcClient:
    """
    The other end. ``path`` may be a link that points to whoever serves now.

    Like Ray it never repeats a call, and says OutcomeUnknown whenever no answer came.
    """

    def __init__(self, path: str, timeout_s: float) -> None:
        self._path, self._timeout_s = path, timeout_s
        self._numbers = itertools.count()
        self._writer: asyncio.StreamWriter | None = None
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._reading: asyncio.Task[None] | None = None
        self._connected_to = ""
        self._connecting = asyncio.Lock()

    async def call(self, method: str, *args: Any) -> Any:
        """Call a method there. Raises OutcomeUnknown, and what the method raised."""
        number = next(self._numbers)
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._connect()
                answer = self._waiting[number] = asyncio.get_running_loop().create_future()
                assert self._writer is not None
                _write(self._writer, (number, method, args))
                return await answer
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            raise OutcomeUnknown(f"{method}: {error or 'no answer'}", 0) from error
        finally:
            self._waiting.pop(number, None)

    async def _connect(self) -> None:
        async with self._connecting:
            serves_now = os.path.realpath(self._path)  # noqa: ASYNC240 - one link, on this disk
            if self._writer is not None and serves_now == self._connected_to:
                return
            self.close()
            reader, self._writer = await asyncio.open_unix_connection(serves_now)
            self._connected_to = serves_now
            self._reading = asyncio.create_task(self._read(reader, self._writer))

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                number, answer, error = await _read(reader)
                waiting = self._waiting.get(number)
                if waiting is None or waiting.done():
                    continue
                if error is None:
                    waiting.set_result(answer)
                else:
                    waiting.set_exception(error)
        except (OSError, asyncio.IncompleteReadError):
            if self._writer is writer:
                self._writer = None
            for waiting in self._waiting.values():
                if not waiting.done():
                    waiting.set_exception(ConnectionResetError("the other process is gone"))

    def close(self) -> None:
        """Drop the connection; calls without an answer get none."""
        if self._reading is not None:
            self._reading.cancel()
        if self._writer is not None:
            self._writer.transport.abort()
        self._writer = self._reading = None


class RpcRisk:
    """RiskGuard as a host calls it; implements ``RiskClient``."""

    def __init__(self, client: RpcClient) -> None:
        self._client = client

    async def reserve(self, intent):
        return await self._client.call("reserve", intent)

    async def settle(self, settlement):
        return await self._client.call("settle", settlement)

    async def mark(self, host, marks):
        return await self._client.call("mark", host, marks)

    async def free(self):
        return await self._client.call("free")


async def _read(reader: asyncio.StreamReader) -> Any:
    (size,) = struct.unpack("!I", await reader.readexactly(4))
    return pickle.loads(await reader.readexactly(size))


def _write(writer: asyncio.StreamWriter, message: Any) -> None:
    data = pickle.dumps(message)
    writer.write(struct.pack("!I", len(data)) + data)
