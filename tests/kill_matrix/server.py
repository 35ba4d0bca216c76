"""The PostgreSQL of the cells, which can be killed like any other process."""

from __future__ import annotations

import contextlib
import itertools
from pathlib import Path
from typing import Self

import asyncpg
import psutil

from arb_ray.adapters.storage import migrate
from arb_ray.adapters.storage.embedded_postgres import EmbeddedPostgres

SESSION = """
    INSERT INTO arb.sessions (env, session_id, source, started_ns) VALUES ($1, 'cell', 'sim', 1)"""


class Server:
    """One server with its data on the disk; an environment for each cell."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count(1)
        self._postgres = EmbeddedPostgres(folder)

    async def __aenter__(self) -> Self:
        await self._postgres.__aenter__()
        migrate.apply(self.dsn)
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._postgres.__aexit__(None, None, None)

    @property
    def dsn(self) -> str:
        """The database's address, the same after each start."""
        return self._postgres.dsn

    async def environment(self) -> str:
        """Return an environment that nothing belongs to yet."""
        env = f"cell{next(self._numbers)}"
        connection = await asyncpg.connect(self.dsn)
        try:
            await connection.execute(SESSION, env)
        finally:
            await connection.close()
        return env

    def kill(self) -> None:
        """SIGKILL the postmaster and all its children, as when a machine loses its power."""
        with contextlib.suppress(psutil.NoSuchProcess):
            postmaster = psutil.Process(self._postgres.pid)
            family = [postmaster, *postmaster.children(recursive=True)]
            for one in family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.kill()
            psutil.wait_procs(family, timeout=5)

    async def start_again(self) -> None:
        """Start on the same data and port: the server recovers from its log."""
        port = self._postgres.port
        await self._postgres.__aexit__(None, None, None)
        self._postgres = EmbeddedPostgres(self._folder, port)
        await self._postgres.__aenter__()
