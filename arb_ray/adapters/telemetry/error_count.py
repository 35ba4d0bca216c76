"""Log lines of level error and above, counted whoever wrote them."""

from __future__ import annotations

import logging

from arb_ray.ports import Metrics


class _ErrorCount(logging.Handler):
    def __init__(self, metrics: Metrics) -> None:
        super().__init__(logging.ERROR)
        self._metrics = metrics

    def emit(self, record: logging.LogRecord) -> None:
        self._metrics.inc("errors_logged")


def count_errors(metrics: Metrics) -> None:
    """Count this process' errors from now on; a former count of this process ends."""
    root = logging.getLogger()
    for old in list(root.handlers):
        if isinstance(old, _ErrorCount):
            root.removeHandler(old)
    root.addHandler(_ErrorCount(metrics))
