"""What trades earned, by trade, symbol, day or session: the ledger's views, read for people."""

from __future__ import annotations

import datetime as dt
import enum
from decimal import Decimal
from typing import Any

import msgspec

from arb_ray.adapters.storage.postgres_pool import Connection, Postgres
from arb_ray.domain.errors import BadInput

ROWS_MAX = 100_000
"""Rows of one answer. More are refused and not cut off: a sum without its tail is a lie."""

EPOCH = dt.date(1970, 1, 1)
DAY_NS = 86_400 * 10**9

FIGURES = (
    "notional_usdt", "realized_usdt", "spread_usdt", "fx_usdt", "fees_usdt", "slippage_usdt",
    "funding_usdt", "gap_loss_usdt",
)  # fmt: skip


class By(enum.StrEnum):
    """What a row of the answer is about."""

    TRADE = "trade"
    SYMBOL = "symbol"
    DAY = "day"
    SESSION = "session"


class PnlScope(msgspec.Struct, frozen=True):
    """Which trades count: of an environment, of one session of it, closed on these UTC days."""

    env: str
    session_id: str | None = None
    first_day: dt.date | None = None
    last_day: dt.date | None = None  # included


class PnlRow(msgspec.Struct, frozen=True):
    """
    What the trades of one group earned, in USDT.

    ``key`` is a trade's id, a symbol, a day or a session's id. ``notional_usdt`` is the
    turnover of all fills; ``gap_loss_usdt`` what was lost beyond reservations, and a part of
    ``realized_usdt``.
    """

    key: str
    trades: int
    notional_usdt: Decimal
    realized_usdt: Decimal
    spread_usdt: Decimal
    fx_usdt: Decimal
    fees_usdt: Decimal
    slippage_usdt: Decimal
    funding_usdt: Decimal
    gap_loss_usdt: Decimal
    last_closed_ns: int  # 0 when no trade closed


class PnlReport(msgspec.Struct, frozen=True):
    """The groups, their total by the database, and how many trades of the scope are open."""

    by: By
    scope: PnlScope
    rows: tuple[PnlRow, ...]
    total: PnlRow
    open_trades: int


async def read_pnl(postgres: Postgres, by: By, scope: PnlScope) -> PnlReport:
    """
    Read one consistent answer.

    Raises:
        StoreUnavailable: The database is not there.
        BadInput: There is no such session, or there are more than ``ROWS_MAX`` rows.
    """
    async with (
        postgres.connection() as connection,
        connection.transaction(isolation="repeatable_read", readonly=True),
    ):
        await _check_session(connection, scope)
        where, arguments = _where(scope)
        rows = await connection.fetch(_ROWS[by].format(where=where, count=ROWS_MAX + 1), *arguments)
        if len(rows) > ROWS_MAX:
            problem = f"there are more than {ROWS_MAX:,} rows by {by}"
            raise BadInput("--from", problem, "Ask for fewer days, with --from and --to")
        total = await connection.fetch(_TOTAL.format(where=where), *arguments)
        open_trades = await connection.fetchval(_OPEN, scope.env, scope.session_id)
    return PnlReport(by, scope, tuple(map(_row, rows)), _row(total[0]), open_trades)


async def _check_session(connection: Connection, scope: PnlScope) -> None:
    if scope.session_id is not None and not await connection.fetchval(
        "SELECT EXISTS (SELECT FROM arb.sessions WHERE env = $1 AND session_id = $2)",
        scope.env,
        scope.session_id,
    ):
        problem = f"{scope.env} has no session {scope.session_id}"
        raise BadInput("--session", problem, "List them: arb-ray sessions list")


def _where(scope: PnlScope) -> tuple[str, list[Any]]:
    """Return the condition and its arguments. Days as instants, which have an index."""
    conditions = ["env = $1"]
    arguments: list[Any] = [scope.env]
    after_last = scope.last_day and scope.last_day + dt.timedelta(days=1)
    for condition, argument in (
        ("session_id = ${}", scope.session_id),
        ("closed_ns >= ${}", scope.first_day and start_ns(scope.first_day)),
        ("closed_ns < ${}", after_last and start_ns(after_last)),
    ):
        if argument is not None:
            arguments.append(argument)
            conditions.append(condition.format(len(arguments)))
    return " AND ".join(conditions), arguments


def start_ns(day: dt.date) -> int:
    """Return the first instant of a UTC day."""
    return (day - EPOCH).days * DAY_NS


def _row(found: Any) -> PnlRow:
    return PnlRow(**{name: found[name] for name in PnlRow.__struct_fields__})


_SUMS = ", ".join(
    (
        *(f"coalesce(sum({name}), 0) AS {name}" for name in FIGURES),
        "coalesce(max(closed_ns), 0) AS last_closed_ns",
    )
)

_TOTAL = f"SELECT 'total' AS key, count(*) AS trades, {_SUMS} FROM arb.trade_pnl WHERE {{where}}"


def _grouped(key: str, order: str) -> str:
    return (
        f"SELECT {key}::text AS key, count(*) AS trades, {_SUMS} FROM arb.trade_pnl "
        f"WHERE {{where}} GROUP BY {key} ORDER BY {order} LIMIT {{count}}"
    )


_ROWS = {
    By.TRADE: (
        f"SELECT trade_id AS key, 1 AS trades, {', '.join(FIGURES)}, "
        "closed_ns AS last_closed_ns FROM arb.trade_pnl "
        "WHERE {where} ORDER BY closed_ns, trade_id LIMIT {count}"
    ),
    By.SYMBOL: _grouped("symbol", "1"),
    By.DAY: _grouped("day", "day"),
    # Ids begin with the instant of their session's start. A trade without a reservation, which
    # the audit tells, has none and is summed under no name rather than left out.
    By.SESSION: _grouped("coalesce(session_id, '')", "1"),
}

_OPEN = """
    SELECT count(*) FROM arb.trades AS t LEFT JOIN arb.reservations AS r USING (env, trade_id)
    WHERE t.env = $1 AND t.status = 'open' AND ($2::text IS NULL OR r.session_id = $2)
"""
