"""Which library opens a socket: ``websockets`` always can, picows is an optional extra."""

from __future__ import annotations

import importlib.util

from arb_ray.adapters.transport.connection_policy import ConnectionPolicy
from arb_ray.adapters.transport.websockets_wire import open_websockets
from arb_ray.adapters.transport.wire import Opener
from arb_ray.domain.errors import BadConfig


def has_picows() -> bool:
    """Tell whether picows is installed here."""
    return importlib.util.find_spec("picows") is not None


def opener_of(policy: ConnectionPolicy) -> Opener:
    """
    Return what opens the policy's sockets.

    Raises:
        BadConfig: picows is asked for by name and not installed.
    """
    if policy.transport == "websockets" or policy.compression:
        return open_websockets
    if has_picows():
        # Imported late: it is an extra.
        from arb_ray.adapters.transport.picows_wire import open_picows

        return open_picows
    if policy.transport == "picows":
        raise BadConfig("transport", "picows is not installed here", "Install arb_ray[fast].")
    return open_websockets
