"""What PostgreSQL itself says of the cluster's trading: no word of the actors is taken for it."""

from __future__ import annotations

from typing import Any

import psycopg

ENV = "staging"


class Books:
    """A reader of the environment's tables."""

    def __init__(self, stores: dict[str, str]) -> None:
        self._where: dict[str, Any] = {
            "host": stores["POSTGRES_HOST"],
            "port": int(stores["POSTGRES_PORT"]),
            "user": stores["POSTGRES_USER"],
            "dbname": stores["POSTGRES_DATABASE"],
            "password": stores["postgres_password"],
            "connect_timeout": 5,
        }

    def machines(self) -> dict[str, str]:
        """Return each symbol's machine: an owner is written as actor/machine/pid."""
        rows = self._rows("SELECT symbol, split_part(owner, '/', 2) FROM arb.symbol_owners")
        return dict(rows)

    def claimed_since(self, at_ns: int, *, besides: str) -> set[str]:
        """Return the symbols that a machine other than ``besides`` took over since."""
        rows = self._rows(
            "SELECT symbol FROM arb.symbol_owners"
            " WHERE claimed_ns > %s AND split_part(owner, '/', 2) <> %s",
            at_ns,
            besides,
        )
        return {symbol for (symbol,) in rows}

    def closed_trades(self) -> int:
        """Return how many trades went all the way."""
        rows = self._rows("SELECT count(*) FROM arb.trades WHERE outcome = 'posted'")
        return int(rows[0][0])

    def open_trades(self) -> list[str]:
        """Return the ids of open trades."""
        return [
            one for (one,) in self._rows("SELECT trade_id FROM arb.trades WHERE status = 'open'")
        ]

    def traded_since(self, at_ns: int) -> set[str]:
        """Return the symbols with a trade that was opened since and has fills."""
        rows = self._rows(
            "SELECT DISTINCT t.symbol FROM arb.trades t"
            " JOIN arb.orders o USING (env, trade_id)"
            " JOIN arb.fills f ON f.env = o.env AND f.client_order_id = o.client_order_id"
            " WHERE t.opened_ns > %s",
            at_ns,
        )
        return {symbol for (symbol,) in rows}

    def wanted_symbols(self) -> set[str]:
        """Return what is to be traded by the newest wanted state."""
        rows = self._rows("SELECT desired FROM arb.topology ORDER BY version DESC LIMIT 1")
        wanted = rows[0][0]
        return set(wanted["symbols"]) - set(wanted["leaving"])

    def _rows(self, query: str, *values: object) -> list[Any]:
        with psycopg.connect(**self._where) as connection:
            return connection.execute(query, values).fetchall()
