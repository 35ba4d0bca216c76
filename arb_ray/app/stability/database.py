"""A database of its own on the configured server: no live row is read, written or in the way."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncIterator
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from arb_ray.adapters.storage import migrate
from arb_ray.adapters.storage.postgres_pool import Postgres, connect_alone
from arb_ray.domain.errors import BadInput


@contextlib.asynccontextmanager
async def own_database(dsn: str) -> AsyncIterator[Postgres]:
    """
    Lend a pool to a fresh database with all migrations; it is dropped afterwards.

    Raises:
        BadInput: The login may not make databases.
        StoreUnavailable: The server does not answer.
    """
    name = f"arb_stability_{secrets.token_hex(6)}"
    await _carry_out(dsn, f'CREATE DATABASE "{name}" TEMPLATE template0')
    own = urlunsplit(urlsplit(dsn)._replace(path=f"/{name}"))
    try:
        migrate.apply(own)
        postgres = Postgres(own)
        try:
            yield postgres
        finally:
            await postgres.close()
    finally:
        await _carry_out(dsn, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


async def _carry_out(dsn: str, sql: str) -> None:
    connection = await connect_alone(dsn)
    try:
        await connection.execute(sql)
    except asyncpg.InsufficientPrivilegeError as error:
        raise BadInput(
            "the database's login",
            f"it may not make the database that the checks use: {error}",
            "Name a login with CREATEDB by --dsn",
        ) from error
    finally:
        await connection.close()
