"""
A look at every node from within, before anything is changed: has it all that an actor needs.

One task a node, pinned to it; what the task looks at is handed in, as with actors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

PROBE_TIMEOUT_S = 60.0
"""A node's first process takes seconds to start; a node that takes longer is not well."""


def node_labels() -> dict[str, dict[str, str]]:
    """Return the labels of the living nodes by their ids."""
    return {node["NodeID"]: dict(node.get("Labels") or {}) for node in _alive()}


def node_addresses() -> dict[str, str]:
    """Return the addresses of the living nodes by their ids."""
    return {node["NodeID"]: str(node["NodeManagerAddress"]) for node in _alive()}


def own_address() -> str:
    """Return the address at which other nodes reach this one."""
    return str(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]


def cpu_count() -> int:
    """Return the processors of all living nodes."""
    return int(sum(node["Resources"].get("CPU", 0) for node in _alive())) or 1


def probe_nodes(look: Callable[[], Any]) -> dict[str, Any]:
    """
    Run ``look`` on every living node, all at once; return what each said, by node id.

    A node on which it could not be run says the error's first line, as text.
    """
    task = ray.remote(_run)
    asked = {
        node_id: task.options(
            num_cpus=0,
            max_retries=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False),
        ).remote(look)
        for node_id in node_labels()
    }
    ray.wait(list(asked.values()), num_returns=len(asked), timeout=PROBE_TIMEOUT_S)
    return {node_id: _answer(ref) for node_id, ref in asked.items()}


def _run(look: Callable[[], Any]) -> Any:
    return look()


def _answer(ref: Any) -> Any:
    try:
        return ray.get(ref, timeout=0.1)
    except GetTimeoutError:
        return f"it gave no answer in {PROBE_TIMEOUT_S:g} s"
    except RayError as error:
        lines = str(error).strip().splitlines()
        return lines[-1] if lines else type(error).__name__


def _alive() -> list[dict[str, Any]]:
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    return [node for node in nodes if node["Alive"]]
