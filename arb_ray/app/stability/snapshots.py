"""Snapshots that were damaged: found, put aside with the reason, and the one before used."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from arb_ray.adapters.storage.postgres_pool import Postgres
from arb_ray.adapters.storage.snapshot_store import PostgresSnapshotStore
from arb_ray.app.stability.check import Check, require
from arb_ray.engine.session_snapshot import REQUIRED, SCHEMA, Expected, damage
from arb_ray.ports import Snapshot

S = 10**9
MARKET = "sim/stability/spot"


class SnapshotChecks:
    """The checks in one database, a session each."""

    def __init__(self, postgres: Postgres, env: str) -> None:
        self._postgres = postgres
        self._env = env
        self._now_ns = time.time_ns()

    def checks(self) -> tuple[Check, ...]:
        """Return them."""
        made: tuple[tuple[str, Callable[[str], Awaitable[None]]], ...] = (
            ("missing key", self._missing_key),
            ("wrong session", self._wrong_session),
            ("too many orders", self._too_many),
            ("flipped bytes", self._flipped),
            ("truncated", self._truncated),
        )
        return tuple(
            Check(f"snapshot: {name}", self._one(name.replace(" ", "-"), spoil))
            for name, spoil in made
        )

    def _one(
        self, session_id: str, spoil: Callable[[str], Awaitable[None]]
    ) -> Callable[[], Awaitable[str]]:
        async def run() -> str:
            store = PostgresSnapshotStore(self._postgres, self._env)
            await self._write(session_id, 2, {})
            await spoil(session_id)
            expected = Expected(session_id, MARKET, self._now_ns, 60 * S)
            found = await store.newest(
                "session_snapshots", session_id, "", lambda p, at: damage(p, at, expected)
            )
            require(found is not None, "the sound snapshot before it was not found")
            assert found is not None
            require(found[1] == self._now_ns - 2 * S, "the damaged snapshot was believed")
            kept = [one for one in await store.quarantined(0) if one.session_id == session_id]
            require(len(kept) == 1, f"{len(kept)} rows lie in quarantine instead of the one")
            return f"put aside ({kept[0].reason}); the one before was used"

        return run

    async def _missing_key(self, session_id: str) -> None:
        payload = dict(_payload(session_id))
        del payload[REQUIRED[-1]]
        await self._write(session_id, 1, payload)

    async def _wrong_session(self, session_id: str) -> None:
        await self._write(session_id, 1, {"session_id": "another"})

    async def _too_many(self, session_id: str) -> None:
        await self._write(session_id, 1, {"open_positions": 21})

    async def _flipped(self, session_id: str) -> None:
        await self._write(session_id, 1, {})
        await self._spoil(session_id, "replace(payload::text, '100', '900')::json")

    async def _truncated(self, session_id: str) -> None:
        await self._write(session_id, 1, {})
        await self._spoil(session_id, "to_json(left(payload::text, 40))")

    async def _write(self, session_id: str, age_s: int, changes: Mapping[str, Any]) -> None:
        payload = changes if len(changes) > 1 else {**_payload(session_id), **changes}
        store = PostgresSnapshotStore(self._postgres, self._env)
        at_ns = self._now_ns - age_s * S
        text = msgspec.json.encode(payload).decode()
        row = Snapshot("session_snapshots", at_ns, session_id, "", text)
        await store.write_batch(f"{session_id}:{age_s}", [row])

    async def _spoil(self, session_id: str, payload: str) -> None:
        async with self._postgres.transaction("damage") as connection:
            await connection.execute(
                f"UPDATE arb.session_snapshots SET payload = {payload}"
                " WHERE env = $1 AND session_id = $2 AND at_ns = $3",
                self._env,
                session_id,
                self._now_ns - S,
            )


def _payload(session_id: str) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "session_id": session_id,
        "market": MARKET,
        "symbols": 20,
        "decisions": 100,
        "opportunities": 10,
        "trades_opened": 5,
        "trades_closed": 3,
        "open_positions": 2,
        "frames": {"upbit": 1},
    }
