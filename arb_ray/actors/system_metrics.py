"""
What the Supervisor tells in metrics: who lives, and the session's results.

The results are told here and not by the hosts, because the Supervisor's counts go on when
a host is started again, and its open positions do not vanish with the process that held them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal

from arb_ray.domain.ledger import PnlParts
from arb_ray.engine.status import HostStatus
from arb_ray.engine.topology import Role, Topology
from arb_ray.ports import Metrics


class SystemMetrics:
    """Gauges of the whole system."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
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

    def session(self, hosts: Sequence[HostStatus]) -> None:
        """Tell the session's results by the hosts' newest statuses."""
        tell = self._metrics.set
        tell("symbols_live", float(sum(len(host.live) for host in hosts)))
        tell("open_positions", float(sum(host.open_positions for host in hosts)))
        tell("pnl_realized_usdt", _sum(host.realized_usdt for host in hosts))
        tell("fees_usdt", _sum(host.fees_usdt for host in hosts))
        for part in PnlParts.__struct_fields__:
            tell("pnl_part_usdt", _sum(getattr(host.parts, part) for host in hosts), part=part)
        rows = [row for host in hosts for row in host.rows]
        marks = [row.mark_usdt for row in rows if row.mark_usdt is not None]
        tell("pnl_unrealized_usdt", _sum(marks))
        for row in rows:
            tell("symbol_pnl_usdt", float(row.realized_usdt), symbol=row.symbol)
        closed = sum(host.trades_closed for host in hosts)
        won = sum(host.trades_won for host in hosts)
        tell("win_rate_ratio", won / closed if closed else 0.0)


def _sum(amounts: Iterable[Decimal]) -> float:
    return float(sum(amounts, Decimal(0)))
