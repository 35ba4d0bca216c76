"""``ports.Metrics`` over prometheus_client, with every declared metric and no other."""

from __future__ import annotations

from functools import cache
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from arb_ray.adapters.telemetry.metric_registry import (
    NAMESPACE,
    REGISTRY,
    MetricKind,
    MetricSpec,
    declared,
)

Made = TypeVar("Made", Counter, Gauge)

_declared = cache(declared)
"""Checked once for each name and label set: a metric costs under a microsecond after that."""


class PrometheusMetrics:
    """
    Metrics of this process in ``registry``, which the caller owns and exports.

    All are made at the start, so that one without labels is exported before its first use
    and an alert on it never meets an absent series. A name or label that is not declared
    trips an assertion.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._counters = _make(Counter, MetricKind.COUNTER, registry)
        self._gauges = _make(Gauge, MetricKind.GAUGE, registry)
        self._histograms: dict[str, Histogram] = {
            spec.name: Histogram(
                spec.name,
                spec.help,
                spec.labels,
                namespace=NAMESPACE,
                buckets=spec.buckets,
                registry=registry,
            )
            for spec in _of(MetricKind.HISTOGRAM)
        }

    def inc(self, name: str, amount: float = 1.0, **labels: str) -> None:
        """Add to a counter; a negative amount is refused by prometheus_client."""
        _declared(name, MetricKind.COUNTER, frozenset(labels))
        counter = self._counters[name]
        (counter.labels(**labels) if labels else counter).inc(amount)

    def set(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge."""
        _declared(name, MetricKind.GAUGE, frozenset(labels))
        gauge = self._gauges[name]
        (gauge.labels(**labels) if labels else gauge).set(value)

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Add a sample to a histogram."""
        _declared(name, MetricKind.HISTOGRAM, frozenset(labels))
        histogram = self._histograms[name]
        (histogram.labels(**labels) if labels else histogram).observe(value)

    def exposition(self) -> bytes:
        """Return all values in Prometheus' text format."""
        return generate_latest(self._registry)


def _of(kind: MetricKind) -> list[MetricSpec]:
    return [spec for spec in REGISTRY.values() if spec.kind is kind]


def _make(make: type[Made], kind: MetricKind, registry: CollectorRegistry) -> dict[str, Made]:
    return {
        spec.name: make(spec.name, spec.help, spec.labels, namespace=NAMESPACE, registry=registry)
        for spec in _of(kind)
    }
