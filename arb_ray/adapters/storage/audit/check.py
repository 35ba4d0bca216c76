"""What a check is, and what looking gives."""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias

import asyncpg
import msgspec
from asyncpg.pool import PoolConnectionProxy

Connection: TypeAlias = "PoolConnectionProxy[asyncpg.Record]"

TOLD_MAX = 20
"""Violations of one check that are told in words; all of them are counted."""


class Scope(msgspec.Struct, frozen=True):
    """What is audited: an environment, or what one of its sessions did in it."""

    env: str
    session_id: str | None = None


class Outcome(msgspec.Struct, frozen=True):
    """
    What a check found.

    ``rows`` were looked at, ``unchecked`` of them could not be judged because the ledger
    does not hold what is needed, ``violations`` break the rule; ``told`` names the first.
    """

    name: str
    meaning: str
    rows: int
    unchecked: int
    violations: int
    told: tuple[str, ...]


class Check(Protocol):
    """One rule that must hold."""

    @property
    def name(self) -> str:
        """``topic.rule``."""
        ...

    @property
    def meaning(self) -> str:
        """The rule in one line."""
        ...

    async def look(self, connection: Connection, scope: Scope) -> Outcome:
        """Look at every row in scope."""
        ...


# A trade that another session was granted is left out; what belongs to no trade, or to one
# that nobody was granted, belongs to everybody.
_WRAPPER = """
SELECT count(*) AS rows, count(problem) AS violations,
       count(*) FILTER (WHERE problem IS NULL AND {unchecked}) AS unchecked,
       (array_agg(problem ORDER BY problem)
           FILTER (WHERE problem IS NOT NULL))[1:{told_max}] AS told
FROM ({sql}) AS looked
WHERE $2::text IS NULL OR trade_id IS NULL OR NOT EXISTS (
    SELECT FROM arb.reservations AS other
    WHERE other.env = $1 AND other.trade_id = looked.trade_id AND other.session_id <> $2)
"""


class SqlCheck(msgspec.Struct, frozen=True):
    """
    A rule as one query over the environment ``$1``.

    It yields a row for each thing looked at: ``trade_id`` (NULL when it belongs to no trade)
    and ``problem``, NULL or a sentence. With ``can_skip`` it yields ``unchecked`` too.
    """

    name: str
    meaning: str
    sql: str
    can_skip: bool = False

    async def look(self, connection: Connection, scope: Scope) -> Outcome:
        """Run the query."""
        unchecked = "unchecked" if self.can_skip else "false"
        sql = _WRAPPER.format(sql=self.sql, unchecked=unchecked, told_max=TOLD_MAX)
        found: Any = await connection.fetchrow(sql, scope.env, scope.session_id)
        return Outcome(
            self.name,
            self.meaning,
            found["rows"],
            found["unchecked"],
            found["violations"],
            tuple(found["told"] or ()),
        )
