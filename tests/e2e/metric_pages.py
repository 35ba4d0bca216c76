"""The metrics of a run as Prometheus reads them: the Gateway's page, and Ray's export."""

from __future__ import annotations

import time
import urllib.request
from collections import defaultdict

from prometheus_client.parser import text_string_to_metric_families

from arb_ray.actors.gateway_metrics import PAGE_AGE_MAX_S
from arb_ray.adapters.telemetry.metric_registry import REGISTRY, MetricKind

RAY_REPORT_MS = "2000"
PAGE_TIMEOUT_S = 60.0
COUNTED_EXACTLY = ("arb_frames_total", "arb_trades_opened_total", "arb_risk_grants_total")


def read(url):
    """Return (name, labels, value) of every sample of ours on a page."""
    with urllib.request.urlopen(url, timeout=15) as answer:  # loopback, plain HTTP
        families = text_string_to_metric_families(answer.read().decode())
    return [
        (sample.name, sample.labels, sample.value)
        for family in families
        for sample in family.samples
        if "arb_" in sample.name
    ]


def by_name(samples, prefix=""):
    found = defaultdict(list)
    for name, labels, value in samples:
        found[name.removeprefix(prefix)].append((labels, value))
    return found


def total(page, name):
    return sum(value for _, value in page[name])


def missing(found):
    """Return declared metrics without a sample from a role that sets them."""
    absent = []
    for spec in REGISTRY.values():
        name = spec.exported_name + ("_count" if spec.kind is MetricKind.HISTOGRAM else "")
        roles = {labels["actor"].split(":")[0] for labels, _ in found.get(name, ())}
        if not roles or not roles <= {str(role) for role in spec.roles}:
            absent.append(name)
    return absent


def rays_page(folder):
    """Return the metrics page of the run's node; Ray leaves its port in the session's folder."""
    (port,) = {path.read_text().strip() for path in folder.rglob("metrics_export_port_*")}
    return f"http://127.0.0.1:{port}/metrics"


def pages_of(run, folder):
    """Return the Gateway's page of a run that has traded, Ray's a little later, and its own again."""
    url = f"http://127.0.0.1:{run.gateway}/metrics"
    run.until(lambda _: not missing(by_name(read(url))), "every metric", PAGE_TIMEOUT_S)
    gateway = by_name(read(url))

    def has_caught_up(_):
        ray = by_name(read(rays_page(folder)), prefix="ray_")
        return not missing(ray) and all(
            total(ray, name) >= total(gateway, name) for name in COUNTED_EXACTLY
        )

    run.until(has_caught_up, "what the Gateway told, behind Ray", PAGE_TIMEOUT_S)
    ray = by_name(read(rays_page(folder)), prefix="ray_")
    time.sleep(2 * PAGE_AGE_MAX_S)  # a page so old is not served again
    return gateway, ray, by_name(read(url))
