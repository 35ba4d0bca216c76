"""What a fault's beginning gives back."""

from __future__ import annotations

from collections.abc import Callable

import msgspec


class NotHere(Exception):
    """A fault cannot be brought about on this machine, or found no victim."""


def _nothing() -> None:
    """Nothing is to be healed."""


def at_once() -> bool:
    """Nobody is replaced by this fault."""
    return True


class Broken(msgspec.Struct, frozen=True):
    """How it is healed, and whether the victim has been replaced where it must be."""

    heal: Callable[[], None] = _nothing
    is_replaced: Callable[[], bool] = at_once
