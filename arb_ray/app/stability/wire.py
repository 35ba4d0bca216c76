"""A wire to a server that can be taken away, so that the server itself is left in peace."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from arb_ray.adapters.storage.process import free_port


class Wire:
    """Forwards a local port to a server while it is ``up``."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self.port = free_port()
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    async def up(self) -> None:
        """Take connections."""
        self._server = await asyncio.start_server(self._forward, "127.0.0.1", self.port)

    async def down(self) -> None:
        """Cut what is open and take no more."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        for writer in tuple(self._open):
            writer.transport.abort()
        if server is not None:
            await server.wait_closed()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            to_server, from_us = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            self._open.discard(writer)
            return
        self._open.add(from_us)
        await asyncio.gather(_pump(reader, from_us), _pump(to_server, writer))
        self._open -= {writer, from_us}


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.transport.abort()


@contextlib.asynccontextmanager
async def wire_to(host: str, port: int) -> AsyncIterator[Wire]:
    """Lend a wire that is up."""
    wire = Wire(host, port)
    await wire.up()
    try:
        yield wire
    finally:
        await wire.down()
