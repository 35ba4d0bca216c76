"""Metrics: declared once, refused otherwise, exported under the declared name."""

import ast
import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

import arb_ray
from arb_ray.adapters.telemetry.metric_registry import REGISTRY, MetricKind
from arb_ray.adapters.telemetry.metrics import SAMPLES_MAX, PrometheusMetrics
from arb_ray.engine.topology import Role
from arb_ray.ports import Metrics

KEY = "k"


def metrics_of(role):
    return PrometheusMetrics(role, KEY)


@pytest.fixture
def metrics():
    return metrics_of(Role.HOST)


def samples(metrics):
    families = text_string_to_metric_families(metrics.exposition().decode())
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def labelled(role, /, **labels):
    return tuple(sorted({"actor": f"{role}:{KEY}", **labels}.items()))


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


@pytest.mark.parametrize("role", Role)
def test_a_role_sets_its_own_metrics_which_carry_its_actor_and_no_others(role):
    metrics = metrics_of(role)
    for spec in REGISTRY.values():
        if role in spec.roles:
            use(metrics, spec)
        else:
            with pytest.raises(AssertionError, match="not one that"):
                use(metrics, spec)
    exported = samples(metrics)
    for spec in REGISTRY.values():
        suffix = "_count" if spec.kind is MetricKind.HISTOGRAM else ""
        name = spec.exported_name + suffix, labelled(role, **dict.fromkeys(spec.labels, "x"))
        assert exported.get(name) in ((1, 2, 2.5) if role in spec.roles else (None,)), spec.name
    assert not [name for name, _ in exported if name.endswith("_created")]


def test_a_counter_is_there_before_its_first_use_and_a_gauge_is_not():
    risk = samples(metrics_of(Role.RISK))
    assert risk[("arb_risk_grants_total", labelled(Role.RISK))] == 0
    assert ("arb_daily_loss_usdt", labelled(Role.RISK)) not in risk
    assert samples(metrics_of(Role.HOST))[("arb_reserve_ms_count", labelled(Role.HOST))] == 0


def test_counters_add_and_gauges_replace(metrics):
    for _ in range(3):
        metrics.inc("opportunities", symbol="BTC")
        metrics.set("fx_krw", 1400.0)
    exported = samples(metrics)
    assert exported[("arb_opportunities_total", labelled("host", symbol="BTC"))] == 3
    assert exported[("arb_fx_krw", labelled("host"))] == 1400


def test_labels_are_told_by_name_in_any_order(metrics):
    metrics.inc("orders", venue="upbit", status="filled")
    metrics.inc("orders", status="filled", venue="upbit")
    exported = samples(metrics)
    assert exported[("arb_orders_total", labelled("host", venue="upbit", status="filled"))] == 2


def test_what_is_not_known_any_more_is_not_exported_until_it_is_set_again(metrics):
    key = ("arb_premium_bps", labelled("host", symbol="BTC"))
    metrics.unset("premium_bps", symbol="BTC")  # it never was: nothing happens
    metrics.set("premium_bps", 5.0, symbol="BTC")
    metrics.set("premium_bps", 7.0, symbol="ETH")
    metrics.unset("premium_bps", symbol="BTC")
    assert key not in samples(metrics)
    metrics.set("premium_bps", 6.0, symbol="BTC")
    assert samples(metrics)[key] == 6.0


def test_a_followed_gauge_is_read_when_it_is_exported(metrics):
    depth = [1.0]
    metrics.follow("pool_used_ratio", lambda: depth[0])
    depth[0] = 0.5
    assert samples(metrics)[("arb_pool_used_ratio", labelled("host"))] == 0.5


@pytest.mark.parametrize(
    "call",
    [
        lambda m: m.inc("no_such_metric"),
        lambda m: m.inc("orders"),
        lambda m: m.inc("opportunities", symbol="BTC", venue="upbit"),
        lambda m: m.inc("opportunities", coin="BTC"),
        lambda m: m.inc("opportunities", symbol="BTC", actor="host:1"),
        lambda m: m.set("decisions", 1),
        lambda m: m.observe("fx_krw", 1),
        lambda m: m.unset("decisions"),
    ],
)
def test_what_is_not_declared_is_a_bug(metrics, call):
    with pytest.raises(AssertionError, match=r"declared|labels|is a"):
        call(metrics)


def test_a_counter_never_falls(metrics):
    with pytest.raises(ValueError, match="negative"):
        metrics.inc("decisions", -1)


def test_two_processes_do_not_share(metrics):
    other = metrics_of(Role.HOST)
    metrics.inc("decisions")
    assert samples(other)[("arb_decisions_total", labelled("host"))] == 0


def test_readings_are_every_series_with_its_value(metrics):
    metrics.inc("orders", 3, venue="upbit", status="filled")
    metrics.set("fx_krw", 1400.0)
    metrics.observe("reserve_ms", 7.0)
    told = {(one.name, tuple(sorted(one.labels.items()))): one for one in metrics.readings()}
    orders = told[("arb_orders", labelled("host", venue="upbit", status="filled"))]
    assert (orders.kind, orders.value) == (MetricKind.COUNTER, 3)
    assert told[("arb_fx_krw", labelled("host"))].value == 1400
    reserve = told[("arb_reserve_ms", labelled("host"))]
    assert (reserve.samples, reserve.buckets) == ((7.0,), REGISTRY["reserve_ms"].buckets)


def sampled(metrics):
    return next(one.samples for one in metrics.readings() if one.name == "arb_reserve_ms")


def test_a_histograms_samples_are_a_bounded_fair_choice_and_handed_out_once(metrics):
    count = 40 * SAMPLES_MAX
    for value in range(count):
        metrics.observe("reserve_ms", float(value))
    chosen = sampled(metrics)
    assert len(set(chosen)) == len(chosen) == SAMPLES_MAX
    # Neither the first nor the last ones only: the mean of a fair choice is near the middle
    # (eight standard errors of the mean wide).
    assert abs(sum(chosen) / SAMPLES_MAX / count - 0.5) < 8 * 0.29 / SAMPLES_MAX**0.5
    assert sampled(metrics) == ()
    assert samples(metrics)[("arb_reserve_ms_count", labelled("host"))] == count
    metrics.observe("reserve_ms", 1.0)
    assert sampled(metrics) == (1.0,)


def test_names_are_sound():
    for spec in REGISTRY.values():
        assert re.fullmatch(r"[a-z][a-z0-9_]*[a-z0-9]", spec.name)
        assert not spec.name.endswith(("_total", "_count_count", "_bucket", "_sum"))
        assert spec.help.endswith(".")
        assert spec.roles
        assert "actor" not in spec.labels, "every series has it already"
        assert bool(spec.buckets) is (spec.kind is MetricKind.HISTOGRAM)
        assert list(spec.buckets) == sorted(set(spec.buckets))
        assert all(bound > 0 for bound in spec.buckets), "Ray refuses others"
        if spec.kind is not MetricKind.COUNTER:
            assert spec.unit, spec.name
        if spec.unit in {"ms", "bps", "bytes", "rows", "ratio"} and spec.kind is MetricKind.GAUGE:
            assert spec.name.endswith(spec.unit), spec.name


SETTERS = {"inc", "set", "observe", "follow", "tell", "_set", "_total", "_known"}
"""What a metric is told by: the port's methods, and what the actors wrap around them."""


def names_told(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func
            name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            if name in SETTERS:
                yield node.args[0].value


def test_every_declared_metric_is_set_somewhere():
    package = Path(arb_ray.__file__).parent
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in package.rglob("*.py")]
    told = {name for tree in trees for name in names_told(tree)}
    assert sorted(set(REGISTRY) - told) == []
