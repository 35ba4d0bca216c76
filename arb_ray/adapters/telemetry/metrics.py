"""``ports.MetricsSource`` over prometheus_client: a role's declared metrics and no other."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from arb_ray.adapters.telemetry.metric_registry import (
    ACTOR,
    REGISTRY,
    MetricKind,
    MetricSpec,
    declared,
)
from arb_ray.engine.topology import Role
from arb_ray.ports import MetricReading

SAMPLES_MAX = 50
"""
Samples of a histogram that are kept for the next reading; beyond it each of them is as
likely to be among the kept. Ray's node agent spends 27 us on each, a whole batch 1.4 ms.
"""

Labels = tuple[tuple[str, str], ...]

# A series of its own for when each counter began: it tells nothing that we ask for.
prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]


class PrometheusMetrics:
    """
    The metrics of one actor's process, each series with the label ``actor``.

    A metric that the role does not set, a name or a label that is not declared trips an
    assertion. A counter or a histogram without labels is exported from birth, so that an
    alert never meets an absent series; a gauge once it has a value, because a zero that
    nobody measured would be a lie.
    """

    def __init__(self, role: Role, key: str) -> None:
        self._role = role
        self._actor = actor_label(role, key)
        self._registry = CollectorRegistry()
        self._families: dict[str, Any] = {
            spec.name: _family(spec, self._registry)
            for spec in REGISTRY.values()
            if role in spec.roles
        }
        # One look-up a call: a child, checked when it was made. Bounded by the label values.
        self._counters: dict[tuple[str, Labels], Counter] = {}
        self._gauges: dict[tuple[str, Labels], Gauge] = {}
        self._histograms: dict[tuple[str, Labels], _Sampled] = {}
        for name in self._families:
            spec = REGISTRY[name]
            if not spec.labels and spec.kind is MetricKind.COUNTER:
                self.inc(name, 0)
            elif not spec.labels and spec.kind is MetricKind.HISTOGRAM:
                self._histogram(name, ())

    def inc(self, name: str, amount: float = 1.0, **labels: str) -> None:
        """Add to a counter; a negative amount is refused by prometheus_client."""
        key = (name, tuple(labels.items()))
        counter = self._counters.get(key)
        if counter is None:
            counter = self._counters[key] = self._child(name, MetricKind.COUNTER, labels)
        counter.inc(amount)

    def set(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge."""
        self._gauge(name, labels).set(value)

    def unset(self, name: str, **labels: str) -> None:
        """Export a gauge no more until it is set again."""
        family = self._checked(name, MetricKind.GAUGE, labels)
        if self._gauges.pop((name, tuple(sorted(labels.items()))), None) is not None:
            family.remove(*_values(REGISTRY[name], self._actor, labels))

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Add a sample to a histogram."""
        self._histogram(name, tuple(labels.items())).observe(value)

    def follow(self, name: str, read: Callable[[], float], **labels: str) -> None:
        """Let a gauge be read by calling ``read``, which is cheap, whenever it is exported."""
        self._gauge(name, labels).set_function(read)

    def pieces(self) -> Iterator[bytes]:
        """Return all values in Prometheus' text format, one family after the other."""
        for family in self._families.values():
            yield generate_latest(family)

    def exposition(self) -> bytes:
        """Return all values in Prometheus' text format."""
        return b"".join(self.pieces())

    def readings(self) -> Iterator[MetricReading]:
        """Return every series as it stands; a histogram's samples are handed out once."""
        for name, family in self._families.items():
            spec = REGISTRY[name]
            if spec.kind is MetricKind.HISTOGRAM:
                continue
            for sample in next(iter(family.collect())).samples:
                yield _reading(spec, sample.labels, value=sample.value)
        for (name, labels), sampled in list(self._histograms.items()):
            known = {ACTOR: self._actor, **dict(labels)}
            yield _reading(REGISTRY[name], known, samples=sampled.take())

    def _gauge(self, name: str, labels: dict[str, str]) -> Gauge:
        # Sorted, so that what is unset is all there is: no second way to the same series.
        key = (name, tuple(sorted(labels.items())))
        gauge = self._gauges.get(key)
        if gauge is None:
            gauge = self._gauges[key] = self._child(name, MetricKind.GAUGE, labels)
        return gauge

    def _histogram(self, name: str, labels: Labels) -> _Sampled:
        sampled = self._histograms.get((name, labels))
        if sampled is None:
            child = self._child(name, MetricKind.HISTOGRAM, dict(labels))
            sampled = self._histograms[name, labels] = _Sampled(child)
        return sampled

    def _child(self, name: str, kind: MetricKind, labels: dict[str, str]) -> Any:
        family = self._checked(name, kind, labels)
        return family.labels(*_values(REGISTRY[name], self._actor, labels))

    def _checked(self, name: str, kind: MetricKind, labels: dict[str, str]) -> Any:
        declared(name, kind, frozenset(labels))
        family = self._families.get(name)
        assert family is not None, f"metric {name} is not one that a {self._role} sets"
        return family


class _Sampled:
    """A histogram, and a bounded fair choice of its samples for the next reading."""

    __slots__ = ("_child", "_kept", "_seen")

    def __init__(self, child: Histogram) -> None:
        self._child = child
        self._kept: list[float] = []
        self._seen = 0

    def observe(self, value: float) -> None:
        self._child.observe(value)
        self._seen += 1
        if len(self._kept) < SAMPLES_MAX:
            self._kept.append(value)
        elif (at := random.randrange(self._seen)) < SAMPLES_MAX:  # noqa: S311  # no secret
            self._kept[at] = value

    def take(self) -> tuple[float, ...]:
        taken = tuple(self._kept)
        self._kept.clear()
        self._seen = 0
        return taken


def actor_label(role: Role, key: str) -> str:
    """Return what names an actor over all its lives: ``host:000``, ``feed:upbit``."""
    return f"{role}:{key}"


def _values(spec: MetricSpec, actor: str, labels: dict[str, str]) -> list[str]:
    return [actor, *(labels[label] for label in spec.labels)]


def _reading(
    spec: MetricSpec,
    labels: dict[str, str],
    *,
    value: float = 0.0,
    samples: tuple[float, ...] = (),
) -> MetricReading:
    return MetricReading(
        spec.series_name, spec.kind, spec.help, labels, spec.buckets, value, samples
    )


def _family(spec: MetricSpec, registry: CollectorRegistry) -> Counter | Gauge | Histogram:
    name, text, labels = spec.series_name, spec.help, spec.exported_labels
    if spec.kind is MetricKind.COUNTER:
        return Counter(name, text, labels, registry=registry)
    if spec.kind is MetricKind.GAUGE:
        return Gauge(name, text, labels, registry=registry)
    return Histogram(name, text, labels, buckets=spec.buckets, registry=registry)
