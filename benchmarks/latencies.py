"""Delays from socket to decision between two statuses: what the hosts' histograms gained."""

from __future__ import annotations

from arb_ray.engine.latency import LatencyHistogram, upper_edge_ns
from arb_ray.engine.status import SystemStatus


def gained(before: SystemStatus, after: SystemStatus) -> LatencyHistogram:
    """
    Return the delays of the decisions that were made between two statuses of one run.

    A host that was born between the two is taken whole. The worst delay is the upper edge of the
    highest bucket that grew, so that a slow begin is not told of what came later.
    """
    gain = LatencyHistogram()
    for name, host in after.hosts.items():
        earlier = before.hosts.get(name)
        known = earlier.latency_counts if earlier and earlier.born_ns == host.born_ns else {}
        grown = {
            index: times - known.get(index, 0)
            for index, times in host.latency_counts.items()
            if times > known.get(index, 0)
        }
        edge_ns = upper_edge_ns(max(grown, default=0))
        gain.merge(grown, min(edge_ns, host.latency_max_ns) if grown else 0)
    return gain
