"""Metrics: declared once, refused otherwise, exported under the declared name."""

import re

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from arb_ray.adapters.telemetry.metric_registry import REGISTRY, MetricKind
from arb_ray.adapters.telemetry.metrics import PrometheusMetrics
from arb_ray.ports import Metrics


@pytest.fixture
def metrics():
    return PrometheusMetrics(CollectorRegistry())


def samples(metrics):
    families = text_string_to_metric_families(metrics.exposition().decode())
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def use(metrics, spec):
    labels = dict.fromkeys(spec.labels, "x")
    match spec.kind:
        case MetricKind.COUNTER:
            metrics.inc(spec.name, 2, **labels)
        case MetricKind.GAUGE:
            metrics.set(spec.name, 2.5, **labels)
        case MetricKind.HISTOGRAM:
            metrics.observe(spec.name, 2.5, **labels)


def test_it_is_the_port(metrics):
    assert isinstance(metrics, Metrics)


def test_every_declared_metric_can_be_used_and_is_exported_under_its_name(metrics):
    for spec in REGISTRY.values():
        use(metrics, spec)
    exported = samples(metrics)
    for spec in REGISTRY.values():
        labels = tuple(sorted(dict.fromkeys(spec.labels, "x").items()))
        suffix = "_count" if spec.kind is MetricKind.HISTOGRAM else ""
        assert exported[(spec.exported_name + suffix, labels)] in (1, 2, 2.5), spec.name


def test_a_metric_without_labels_is_there_before_its_first_use(metrics):
    assert samples(metrics)[("arb_daily_loss_usdt", ())] == 0


def test_counters_add_and_gauges_replace(metrics):
    for _ in range(3):
        metrics.inc("frames", venue="upbit")
        metrics.set("fx_krw", 1400.0)
    exported = samples(metrics)
    assert exported[("arb_frames_total", (("venue", "upbit"),))] == 3
    assert exported[("arb_fx_krw", ())] == 1400


@pytest.mark.parametrize(
    "call",
    [
        lambda m: m.inc("no_such_metric"),
        lambda m: m.inc("frames"),
        lambda m: m.inc("frames", venue="upbit", symbol="BTC"),
        lambda m: m.inc("frames", exchange="upbit"),
        lambda m: m.set("frames", 1, venue="upbit"),
        lambda m: m.observe("fx_krw", 1),
    ],
)
def test_what_is_not_declared_is_a_bug(metrics, call):
    with pytest.raises(AssertionError, match=r"declared|labels|is a"):
        call(metrics)


def test_a_counter_never_falls(metrics):
    with pytest.raises(ValueError, match="negative"):
        metrics.inc("risk_grants", -1)


def test_two_registries_do_not_share(metrics):
    other = PrometheusMetrics(CollectorRegistry())
    metrics.inc("risk_grants")
    assert samples(other)[("arb_risk_grants_total", ())] == 0


def test_names_are_sound():
    for spec in REGISTRY.values():
        assert re.fullmatch(r"[a-z][a-z0-9_]*[a-z0-9]", spec.name)
        assert not spec.name.endswith(("_total", "_count_count", "_bucket", "_sum"))
        assert spec.help.endswith(".")
        assert bool(spec.buckets) is (spec.kind is MetricKind.HISTOGRAM)
        assert list(spec.buckets) == sorted(set(spec.buckets))
        if spec.kind is not MetricKind.COUNTER:
            assert spec.unit, spec.name
        if spec.unit in {"ms", "bps", "bytes", "rows", "ratio"} and spec.kind is MetricKind.GAUGE:
            assert spec.name.endswith(spec.unit), spec.name
