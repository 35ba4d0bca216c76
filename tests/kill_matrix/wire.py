"""
The way to PostgreSQL, inside the process that goes it: it knows a COMMIT when it passes.

A transaction is told apart by what is in its statements, so that the right COMMIT is hit while
others go by on other connections.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable

BEGIN, COMMIT, ROLLBACK = b"BEGIN", b"COMMIT;", b"ROLLBACK;"
CHUNK_BYTES = 65_536


class CommitWire:
    """A proxy on the loopback; one COMMIT can be marked, and the whole way can be cut."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._marker = b""
        self._on_commit: Callable[[], None] | None = None
        self._then = ""
        self._is_cut = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def mark(self, marker: bytes, on_commit: Callable[[], None], then: str) -> None:
        """
        Hit the next transaction whose statements hold ``marker``, at its COMMIT.

        ``then``: ``die`` sends the COMMIT and kills this process; ``lose`` waits for the answer
        and breaks the wire; ``go`` sends it after ``on_commit``, which may take its time.
        """
        self._marker, self._on_commit, self._then = marker, on_commit, then

    def cut(self, is_cut: bool) -> None:
        """Break every connection and refuse new ones, or let them through again."""
        self._is_cut = is_cut
        if is_cut:
            for writer in tuple(self._writers):
                writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            if self._is_cut:
                return
            far_reader, far_writer = await asyncio.open_connection(*self._target)
            self._writers |= {writer, far_writer}
            try:
                lost = asyncio.Event()
                back = asyncio.create_task(self._back(far_reader, writer, lost))
                await self._forth(reader, far_writer, lost)
                await asyncio.wait({back}, timeout=1)
                back.cancel()
            finally:
                self._writers -= {writer, far_writer}
                far_writer.transport.abort()
        except OSError:
            pass  # a server that is away; the client sees its own connection end
        finally:
            writer.transport.abort()
            self._tasks.discard(task)

    async def _forth(
        self, reader: asyncio.StreamReader, far: asyncio.StreamWriter, lost: asyncio.Event
    ) -> None:
        is_marked = is_in_transaction = False
        while chunk := await reader.read(CHUNK_BYTES):
            if BEGIN in chunk:
                is_in_transaction = True
            elif ROLLBACK in chunk:
                is_in_transaction = is_marked = False
            if self._marker and self._marker in chunk:
                is_marked = True
            # A statement outside of a transaction is its own COMMIT.
            is_commit = COMMIT in chunk or not is_in_transaction
            if COMMIT in chunk:
                is_in_transaction = False
            if is_marked and is_commit and self._on_commit is not None:
                is_marked = False
                on_commit, self._on_commit, self._marker = self._on_commit, None, b""
                if self._then == "die":
                    far.write(chunk)
                    await far.drain()
                    on_commit()
                    os.kill(os.getpid(), signal.SIGKILL)
                elif self._then == "lose":
                    lost.set()
                    far.write(chunk)
                    on_commit()
                    continue
                else:
                    on_commit()
            far.write(chunk)
            await far.drain()

    async def _back(
        self, far: asyncio.StreamReader, writer: asyncio.StreamWriter, lost: asyncio.Event
    ) -> None:
        with contextlib.suppress(OSError):
            while chunk := await far.read(CHUNK_BYTES):
                if lost.is_set():
                    break  # the answer to the COMMIT: it has happened, and nobody hears of it
                writer.write(chunk)
                await writer.drain()
        writer.transport.abort()
