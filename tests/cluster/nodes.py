"""The cluster's nodes, as Ray lists them to the guide's reader."""

from __future__ import annotations

import json

from tests.cluster import site
from tests.cluster.control import Control
from tests.cluster.progress import Failed

ALL = frozenset(site.HOSTS.values())
LABEL = ("arb-env", "staging")


def alive(control: Control) -> frozenset[str]:
    """Return the addresses of the nodes that are alive; each must bear its label."""
    nodes = json.loads(control.ask("nodes", timeout_s=60))
    found = [node for node in nodes if node["state"] == "ALIVE"]
    bare = [node["node_ip"] for node in found if node["labels"].get(LABEL[0]) != LABEL[1]]
    if bare:
        raise Failed(f"{', '.join(bare)} lacks the label {'='.join(LABEL)}")
    return frozenset(node["node_ip"] for node in found)
