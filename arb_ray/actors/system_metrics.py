"""
What the Supervisor tells in metrics: who lives, and the session's results.

The results are told here and not by the hosts, because the Supervisor's counts go on when
a host is started again, and its open positions do not vanish with the process that held them.
A Supervisor that is started again begins its session's results anew; the ledger has them all.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from decimal import Decimal

import msgspec

from arb_ray.domain.ledger import PnlParts
from arb_ray.engine.status import HostStatus
from arb_ray.engine.topology import Role, Topology
from arb_ray.ports import Metrics


class _Results(msgspec.Struct, frozen=True):
    """What one host has earned in the session, over all lives of its name."""

    realized_usdt: Decimal
    fees_usdt: Decimal
    parts: PnlParts
    trades_closed: int
    trades_won: int
    by_symbol: dict[str, Decimal]


class SystemMetrics:
    """Gauges of the whole system."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._session_id = ""
        # Of every host that the session has had: what one earned that a new configuration
        # has replaced stays earned. As many as hosts times submits, some hundred bytes each.
        self._results: dict[str, _Results] = {}
        for role in Role:
            metrics.inc("actor_restarts", 0, role=str(role))

    def restarted(self, name: str) -> None:
        """Count an actor that was started again."""
        self._metrics.inc("actor_restarts", role=name.split(":", 1)[0])

    def actors(self, topology: Topology, missing: int) -> None:
        """Tell what is wanted and how much of it answers."""
        tell = self._metrics.set
        tell("actors_wanted", float(len(topology.actors)))
        tell("actors_alive", float(len(topology.actors) - missing))
        hosts = topology.of(Role.HOST)
        tell("symbols_wanted", float(sum(len(host.symbols) for host in hosts)))

    def session(self, session_id: str, hosts: Mapping[str, HostStatus]) -> None:
        """Tell how the session stands by its hosts' newest statuses, and what it has earned."""
        if session_id != self._session_id:
            self._session_id = session_id
            for symbol in {symbol for one in self._results.values() for symbol in one.by_symbol}:
                self._metrics.unset("symbol_pnl_usdt", symbol=symbol)
            self._results.clear()
        for name, host in hosts.items():
            self._results[name] = _results(host)
        tell = self._metrics.set
        tell("symbols_live", float(sum(len(host.live) for host in hosts.values())))
        tell("open_positions", float(sum(host.open_positions for host in hosts.values())))
        marks = [row.mark_usdt for host in hosts.values() for row in host.rows]
        tell("pnl_unrealized_usdt", _sum(mark for mark in marks if mark is not None))
        self._earned()

    def _earned(self) -> None:
        tell, results = self._metrics.set, list(self._results.values())
        tell("pnl_realized_usdt", _sum(one.realized_usdt for one in results))
        tell("fees_usdt", _sum(one.fees_usdt for one in results))
        for part in PnlParts.__struct_fields__:
            tell("pnl_part_usdt", _sum(getattr(one.parts, part) for one in results), part=part)
        by_symbol: defaultdict[str, Decimal] = defaultdict(Decimal)
        for one in results:
            for symbol, realized_usdt in one.by_symbol.items():
                by_symbol[symbol] += realized_usdt
        for symbol, realized_usdt in by_symbol.items():
            tell("symbol_pnl_usdt", float(realized_usdt), symbol=symbol)
        closed = sum(one.trades_closed for one in results)
        won = sum(one.trades_won for one in results)
        tell("win_rate_ratio", won / closed if closed else 0.0)


def _results(host: HostStatus) -> _Results:
    return _Results(
        host.realized_usdt,
        host.fees_usdt,
        host.parts,
        host.trades_closed,
        host.trades_won,
        {row.symbol: row.realized_usdt for row in host.rows},
    )


def _sum(amounts: Iterable[Decimal]) -> float:
    return float(sum(amounts, Decimal(0)))
