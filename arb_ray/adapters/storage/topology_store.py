"""
The wanted state of an environment in PostgreSQL: append-only, the highest version is in force.

What a version says is its writer's and reader's matter (``app/deployment.py``); here it is
JSON text. Two submits at once cannot both write the version that follows: one is told so.
"""

from __future__ import annotations

import msgspec

from arb_ray.adapters.storage.postgres_pool import Postgres
from arb_ray.domain.errors import BadInput


class StoredTopology(msgspec.Struct, frozen=True):
    """One version of the wanted state, and who wrote it."""

    version: int
    desired: bytes  # JSON
    actor: str


class TopologyStore:
    """Reads and appends the wanted state of one environment."""

    def __init__(self, postgres: Postgres, env: str) -> None:
        self._postgres = postgres
        self._env = env

    async def newest(self, after: int = 0) -> StoredTopology | None:
        """
        Return the version in force, or None when it is not newer than ``after``.

        Raises:
            StoreUnavailable: PostgreSQL does not answer.
        """
        async with self._postgres.connection() as connection:
            row = await connection.fetchrow(
                "SELECT version, desired::text AS desired, actor FROM arb.topology"
                " WHERE env = $1 AND version > $2 ORDER BY version DESC LIMIT 1",
                self._env,
                after,
            )
        if row is None:
            return None
        return StoredTopology(row["version"], row["desired"].encode(), row["actor"])

    async def append(self, stored: StoredTopology) -> None:
        """
        Write the version that follows the newest.

        Raises:
            BadInput: Someone else has written that version meanwhile; nothing was changed.
            StoreUnavailable, OutcomeUnknown: As every write.
        """
        async with self._postgres.transaction("wanted state") as connection:
            written = await connection.fetchval(
                "INSERT INTO arb.topology (env, version, desired, actor) VALUES ($1, $2, $3, $4)"
                " ON CONFLICT DO NOTHING RETURNING version",
                self._env,
                stored.version,
                stored.desired.decode(),
                stored.actor,
            )
        if written is None:
            raise BadInput(
                f"wanted state {stored.version} of {self._env}",
                "another submit wrote it a moment ago",
                "Look at what it asked for (arb-ray status), and submit again if still meant",
            )

    async def close(self) -> None:
        """Give the connections back."""
        await self._postgres.close()
