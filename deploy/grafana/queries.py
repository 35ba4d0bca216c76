"""
PromQL over declared metrics: the one way to fold a metric's series, by its kind.

Every process has series of its own. A gauge is folded by max, because a former process' last
value stays for some seconds; a counter by the sum of its rates. docs/decisions/0013 has the
reasons, also for the prefix ``ray_``.
"""

from __future__ import annotations

from arb_ray.adapters.telemetry.metric_registry import REGISTRY, MetricKind, MetricSpec

PREFIX = "ray_"
WINDOW = "$__rate_interval"
"""Grafana's own: four scrapes at least, and never less than the distance of two points."""


def gauge(name: str, *by: str) -> str:
    """Return the value of a gauge, folded to the labels ``by``."""
    return f"max{_by(by)} ({_series(name, MetricKind.GAUGE, by)})"


def total_of_gauge(name: str, *by: str) -> str:
    """Return the sum of a gauge over its actors."""
    return f"sum{_by(by)} ({gauge(name, 'actor', *by)})"


def rate(name: str, *by: str) -> str:
    """Return how often a counter grows, per second."""
    return f"sum{_by(by)} (rate({_series(name, MetricKind.COUNTER, by)}[{WINDOW}]))"


def count(name: str, *by: str) -> str:
    """Return how much a counter has grown in the range that is shown."""
    return f"sum{_by(by)} (increase({_series(name, MetricKind.COUNTER, by)}[$__range]))"


def quantile(part: float, name: str) -> str:
    """Return a quantile of a histogram over all actors."""
    series = f"{_series(name, MetricKind.HISTOGRAM, ())}_bucket"
    return f"histogram_quantile({part}, sum by (le) (rate({series}[{WINDOW}])))"


def about(*names: str) -> str:
    """Return what metrics mean, for a panel's description."""
    return "\n".join(f"{_spec(name).exported_name}: {_spec(name).help}" for name in names)


def _series(name: str, kind: MetricKind, by: tuple[str, ...]) -> str:
    spec = _spec(name)
    assert spec.kind is kind, f"metric {name} is a {spec.kind}, not a {kind}"
    missing = set(by) - set(spec.exported_labels)
    assert not missing, f"metric {name} has no label {sorted(missing)}"
    return PREFIX + spec.exported_name


def _spec(name: str) -> MetricSpec:
    assert name in REGISTRY, f"metric {name} is not declared in metric_registry.py"
    return REGISTRY[name]


def _by(labels: tuple[str, ...]) -> str:
    return f" by ({', '.join(labels)})" if labels else ""
