"""What RiskGuard tells of itself in metrics."""

from __future__ import annotations

from arb_ray.domain.risk_intent import RiskRefusal, RiskState
from arb_ray.engine.risk import RiskBook
from arb_ray.ports import Metrics

STATE_CODES = {RiskState.ACTIVE: 0.0, RiskState.REDUCE_ONLY: 1.0, RiskState.HALTED: 2.0}


class RiskMetrics:
    """The guard's answers at once, its book's figures whenever they are exported."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        for reason in RiskRefusal:
            metrics.inc("risk_refusals", 0, reason=str(reason))

    def granted(self) -> None:
        """Count a yes."""
        self._metrics.inc("risk_grants")

    def written(self, count: int) -> None:
        """Count a commit that so many decisions share."""
        self._metrics.inc("risk_decisions", count)
        self._metrics.inc("risk_commits")

    def refused(self, reason: RiskRefusal) -> None:
        """Count a no."""
        self._metrics.inc("risk_refusals", reason=str(reason))

    def export(self, book: RiskBook, now_ns: int) -> None:
        """Tell the book's figures."""
        status, tell = book.status(now_ns), self._metrics.set
        tell("risk_state", STATE_CODES[status.state])
        tell("daily_loss_usdt", float(status.daily_loss_usdt))
        tell("daily_loss_limit_usdt", float(status.daily_limit_usdt))
        tell("reserved_usdt", float(status.reserved_usdt))
        tell("open_trades", float(status.open_trades))
        tell("drawdown_usdt", float(book.drawdown_usdt))
        tell("gap_loss_usdt", float(book.gap_loss_usdt))
        tell("guard_epoch", float(status.epoch))
