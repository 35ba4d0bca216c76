"""All checks in one read-only transaction, so that they see one ledger, also while it grows."""

from __future__ import annotations

import asyncpg
import msgspec

from arb_ray.adapters.storage.audit import (
    double_entry,
    fencing,
    fills,
    journal,
    pnl,
    records,
    replay,
    risk,
    risk_pace,
    schema,
    trades,
)
from arb_ray.adapters.storage.audit.check import Check, Connection, Outcome, Scope
from arb_ray.adapters.storage.postgres_pool import Postgres
from arb_ray.domain.errors import BadInput

CHECKS: tuple[Check, ...] = (
    *double_entry.CHECKS,
    *replay.CHECKS,
    *trades.CHECKS,
    *fills.CHECKS,
    *pnl.CHECKS,
    *risk.CHECKS,
    *risk_pace.CHECKS,
    *fencing.CHECKS,
    *journal.CHECKS,
    *records.CHECKS,
    *schema.CHECKS,
)

STATEMENT_TIMEOUT_MS = 600_000
"""One check over years of trades may take minutes; a stuck one ends here, as unavailable."""

# Nothing here may be found by another name than its schema's; sums over all postings are
# hashed in memory instead of sorted on disk; a plan's compilation costs more than its run.
_SETTINGS = {"search_path": "", "work_mem": "64MB", "jit": "off"}


class AuditReport(msgspec.Struct, frozen=True):
    """What all checks found."""

    env: str
    session_id: str | None
    outcomes: tuple[Outcome, ...]

    @property
    def violations(self) -> int:
        """Of all checks together."""
        return sum(outcome.violations for outcome in self.outcomes)

    @property
    def is_empty(self) -> bool:
        """Whether there was nothing to look at but the schema, which belongs to everybody."""
        return not any(o.rows for o in self.outcomes if not o.name.startswith("schema."))

    @property
    def grants(self) -> int:
        """How many reservations were granted in scope: without one there was no trade."""
        return sum(o.rows for o in self.outcomes if o.name == "reservations.trade")


async def audit(dsn: str, scope: Scope) -> AuditReport:
    """
    Look at everything in scope.

    Raises:
        StoreUnavailable: The database is not there.
        BadInput: Its schema is not that of this code, or there is no such session.
    """
    postgres = Postgres(dsn, size=1, statement_timeout_ms=STATEMENT_TIMEOUT_MS)
    try:
        async with (
            postgres.connection() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            for name, value in _SETTINGS.items():
                await connection.execute("SELECT set_config($1, $2, true)", name, value)
            await _check_scope(connection, scope)
            outcomes = [await _looked(check, connection, scope) for check in CHECKS]
    finally:
        await postgres.close()
    return AuditReport(scope.env, scope.session_id, tuple(outcomes))


async def _check_scope(connection: Connection, scope: Scope) -> None:
    if await connection.fetchval("SELECT to_regproc('arb.numbers_only_grow')") is None:
        raise BadInput("the database", "it lacks tables of this code", "Run arb-ray db migrate")
    if scope.session_id is not None and not await connection.fetchval(
        "SELECT EXISTS (SELECT FROM arb.sessions WHERE env = $1 AND session_id = $2)",
        scope.env,
        scope.session_id,
    ):
        problem = f"{scope.env} has no session {scope.session_id}"
        raise BadInput("--session", problem, "List them: arb-ray sessions")


async def _looked(check: Check, connection: Connection, scope: Scope) -> Outcome:
    # In a savepoint of its own: a row that cannot even be read ends one check and not all.
    try:
        async with connection.transaction():
            return await check.look(connection, scope)
    except (asyncpg.DataError, asyncpg.CardinalityViolationError, ArithmeticError) as error:
        told = f"{check.name}: its rows cannot be read: {[*str(error).splitlines(), ''][0]}"
        return Outcome(check.name, check.meaning, 0, 0, 1, (told,))
