"""
A TCP proxy that breaks the wire on request: latency, cut, stall, half-close, refuse.

    async with TcpProxy("127.0.0.1", server_port) as proxy:
        client = await connect(f"ws://127.0.0.1:{proxy.port}")
        proxy.cut()        # every open connection dies with a reset, at once
        proxy.stall()      # bytes stop both ways, the connections stay open
        proxy.resume()     # held bytes go on, in order
        proxy.refuse(True) # new connections meet ECONNREFUSED; open ones live on
        proxy.latency_s = 0.05  # each way; applies to bytes read from now on

Every method is synchronous and takes effect before it returns.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from types import TracebackType
from typing import Self

CHUNK_BYTES = 65_536
# A stalled direction holds this many chunks, then TCP's own window pushes back.
HELD_CHUNKS_MAX = 256
RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER with zero time-out sends RST, not FIN


class TcpProxy:
    """Forward a local port to ``target_host:target_port``, with faults."""

    def __init__(self, target_host: str, target_port: int) -> None:
        self.latency_s = 0.0
        self.port = 0
        self.accepted = 0  # connections taken since the start
        self.bytes_forwarded = 0
        self._target = (target_host, target_port)
        self._flowing = asyncio.Event()
        self._flowing.set()
        # Bound and never listening: it keeps the port ours while new connections are refused.
        self._reserved = _bound_socket(0)
        self._listener: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._links: set[_Link] = set()
        self._serving: set[asyncio.Task[None]] = set()

    @property
    def open_connections(self) -> int:
        """Return how many connections are being forwarded now."""
        return len(self._links)

    async def __aenter__(self) -> Self:
        self.port = self._reserved.getsockname()[1]
        self.refuse(False)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.refuse(True)
        self.resume()
        self.cut()
        await asyncio.gather(*self._serving, return_exceptions=True)
        self._reserved.close()

    def cut(self, *, reset: bool = True) -> None:
        """Kill every open connection on both sides; with ``reset=False`` by FIN, not RST."""
        for link in tuple(self._links):
            link.kill(reset=reset)

    def stall(self) -> None:
        """Stop the bytes of every connection, old and new, without closing anything."""
        self._flowing.clear()

    def resume(self) -> None:
        """Let the bytes go on; what was held arrives first."""
        self._flowing.set()

    def refuse(self, refusing: bool) -> None:
        """Refuse new connections (ECONNREFUSED), or take them again."""
        if refusing and self._listener is not None:
            assert self._accepting is not None
            self._accepting.cancel()
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = self._accepting = None
        elif not refusing and self._listener is None:
            self._listener = _bound_socket(self.port)
            self._listener.listen(64)
            self._accepting = self._keep(self._accept(self._listener))

    def _keep(self, coroutine) -> asyncio.Task[None]:  # type: ignore[no-untyped-def]
        task = asyncio.get_running_loop().create_task(coroutine)
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        return task

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            client, _ = await loop.sock_accept(listener)
            client.setblocking(False)
            self.accepted += 1
            self._keep(self._serve(client))

    async def _serve(self, client: socket.socket) -> None:
        near = await asyncio.open_connection(sock=client)
        try:
            far = await asyncio.open_connection(*self._target)
        except OSError:
            near[1].transport.abort()
            return
        link = _Link(self, near, far)
        self._links.add(link)
        try:
            await link.forward()
        finally:
            self._links.discard(link)
            await link.close()


Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class _Link:
    """One forwarded connection: two pumps, each a delay line."""

    def __init__(self, proxy: TcpProxy, near: Stream, far: Stream) -> None:
        self._proxy = proxy
        self._near = near
        self._far = far
        self._pumps: list[asyncio.Task[None]] = []

    async def forward(self) -> None:
        for source, sink in ((self._near, self._far), (self._far, self._near)):
            held: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(HELD_CHUNKS_MAX)
            self._pumps.append(asyncio.create_task(self._take(source[0], held)))
            self._pumps.append(asyncio.create_task(self._give(held, sink[1])))
        await asyncio.gather(*self._pumps, return_exceptions=True)

    def kill(self, *, reset: bool) -> None:
        for pump in self._pumps:
            pump.cancel()
        for _, writer in (self._near, self._far):
            sock = writer.get_extra_info("socket")
            if reset and sock is not None:
                with contextlib.suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
                writer.transport.abort()
            else:
                writer.close()

    async def close(self) -> None:
        for _, writer in (self._near, self._far):
            writer.close()
        for _, writer in (self._near, self._far):
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _take(
        self, reader: asyncio.StreamReader, held: asyncio.Queue[tuple[float, bytes]]
    ) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                chunk = await reader.read(CHUNK_BYTES)
            except OSError:
                self.kill(reset=True)
                return
            await held.put((loop.time() + self._proxy.latency_s, chunk))
            if not chunk:
                return

    async def _give(
        self, held: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter
    ) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due_s, chunk = await held.get()
            if (wait_s := due_s - loop.time()) > 0:
                await asyncio.sleep(wait_s)
            await self._proxy._flowing.wait()
            try:
                if not chunk:
                    if writer.can_write_eof():
                        writer.write_eof()
                    return
                writer.write(chunk)
                await writer.drain()
            except OSError:
                self.kill(reset=True)
                return
            self._proxy.bytes_forwarded += len(chunk)


def _bound_socket(port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(("127.0.0.1", port))
    return sock
