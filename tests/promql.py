"""What a PromQL expression reads and groups by."""

import promql_parser
import yaml

from arb_ray.adapters.telemetry.metric_registry import REGISTRY, MetricKind
from tests.e2e.runs import ROOT

RULES = ROOT / "deploy/prometheus/rules"
RULE_TESTS = ROOT / "deploy/prometheus/tests"

EXPORTED = {
    f"ray_{spec.exported_name}{suffix}": {*spec.exported_labels, *(("le",) if suffix else ())}
    for spec in REGISTRY.values()
    for suffix in (("_bucket",) if spec.kind is MetricKind.HISTOGRAM else ("",))
}
"""The labels of every series that arb_ray exports through Ray, by its name in Prometheus."""


def parse(expression):
    """Parse what Prometheus will get, with Grafana's variables filled in as Grafana would."""
    return promql_parser.parse(filled(expression))


def filled(expression):
    """Fill in Grafana's own variables for a range of one minute."""
    return expression.replace("$__rate_interval", "1m").replace("$__range", "1m")


def selectors(expression):
    """Return every name that is read, with the labels that are asked for."""
    found = []

    def visit(node):
        if isinstance(node, promql_parser.VectorSelector):
            found.append((node.name, {matcher.name for matcher in node.matchers.matchers}))
        elif isinstance(node, promql_parser.MatrixSelector):
            visit(node.vector_selector)

    promql_parser.walk(parse(expression), visit)
    return found


def grouped_by(expression):
    """Return every label of a ``by`` in it."""
    labels = set()

    def visit(node):
        if isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None:
            labels.update(node.modifier.labels)

    promql_parser.walk(parse(expression), visit)
    return labels


def rules(kind):
    """Return all rules of a kind, ``alert`` or ``record``."""
    return [
        rule
        for path in sorted(RULES.glob("*.yml"))
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
        if kind in rule
    ]
