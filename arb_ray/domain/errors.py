"""
Every error arb_ray raises on purpose, sorted by what the caller must do next.

    ArbError
    |-- RETRY      VenueUnreachable, RateLimited, StoreUnavailable
    |-- GIVE_UP    BadConfig, BadInput, MalformedFrame, VenueRefused, OrderRejected,
    |              PlaneUnavailable
    |-- RECONCILE  OutcomeUnknown
    `-- HALT       AssetMismatch, InvalidTransition, LedgerViolation, Fenced

A bug is not in this tree: it trips an assertion and ends the process.
"""

from __future__ import annotations

import enum
from typing import ClassVar


class Remedy(enum.Enum):
    """What the caller must do about an error. There is no "ignore"."""

    RETRY = "retry"  # nothing happened; the same request may be sent again
    GIVE_UP = "give_up"  # refused for good; change the request
    RECONCILE = "reconcile"  # the outcome is unknown; ask before doing anything else
    HALT = "halt"  # our own state is wrong; stop trading and call a person


class ArbError(Exception):
    """
    Root of the tree, so an actor has one type to catch at its edge.

    Subclasses pass all their arguments to ``super().__init__``: pickle rebuilds an
    exception from ``args``, and Ray pickles it on its way to the calling actor.
    """

    remedy: ClassVar[Remedy]


class BadConfig(ArbError):
    """A setting is unknown or impossible; ``key`` is its dotted path in the config."""

    remedy = Remedy.GIVE_UP

    def __init__(self, key: str, problem: str, mend: str) -> None:
        super().__init__(key, problem, mend)
        self.key = key
        self.problem = problem
        self.mend = mend

    def __str__(self) -> str:
        return f"{self.key}: {self.problem}. {self.mend}"


class BadInput(ArbError):
    """An argument or a file cannot be used; ``place`` names it (and its line, if it has one)."""

    remedy = Remedy.GIVE_UP

    def __init__(self, place: str, problem: str, mend: str) -> None:
        super().__init__(place, problem, mend)
        self.place = place
        self.problem = problem
        self.mend = mend

    def __str__(self) -> str:
        return f"{self.place}: {self.problem}. {self.mend}"


class MalformedFrame(ArbError):
    """A venue sent what its protocol does not allow; ``excerpt`` is at most 200 characters."""

    remedy = Remedy.GIVE_UP

    def __init__(self, venue: str, problem: str, excerpt: str) -> None:
        super().__init__(venue, problem, excerpt[:200])
        self.venue = venue
        self.problem = problem
        self.excerpt = excerpt[:200]

    def __str__(self) -> str:
        return f"{self.venue}: malformed frame ({self.problem}): {self.excerpt}"


class VenueUnreachable(ArbError):
    """A request or a connection got no answer; nothing changed at the venue."""

    remedy = Remedy.RETRY

    def __init__(self, venue: str, problem: str) -> None:
        super().__init__(venue, problem)
        self.venue = venue
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.venue}: {self.problem}"


class RateLimited(ArbError):
    """The venue asks us to wait ``retry_after_s`` seconds before the next request."""

    remedy = Remedy.RETRY

    def __init__(self, venue: str, status: int, retry_after_s: float) -> None:
        super().__init__(venue, status, retry_after_s)
        self.venue = venue
        self.status = status
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return f"{self.venue}: HTTP {self.status}, wait {self.retry_after_s:g} s"


class VenueRefused(ArbError):
    """The venue understood a request and said no (unknown market, bad parameter)."""

    remedy = Remedy.GIVE_UP

    def __init__(self, venue: str, code: str, problem: str) -> None:
        super().__init__(venue, code, problem)
        self.venue = venue
        self.code = code
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.venue} refused ({self.code}): {self.problem}"


class PlaneUnavailable(ArbError):
    """Shared memory cannot be had for ticks, or not with this peer; Ray's plane can."""

    remedy = Remedy.GIVE_UP

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        return f"no shared memory for ticks: {self.problem}"


class OrderRejected(ArbError):
    """An order broke a rule of its market and was never accepted."""

    remedy = Remedy.GIVE_UP

    def __init__(self, client_order_id: str, reason: str) -> None:
        super().__init__(client_order_id, reason)
        self.client_order_id = client_order_id
        self.reason = reason

    def __str__(self) -> str:
        return f"order {self.client_order_id} rejected: {self.reason}"


class OutcomeUnknown(ArbError):
    """No answer came within ``waited_ms``; the request may or may not have taken effect."""

    remedy = Remedy.RECONCILE

    def __init__(self, what: str, waited_ms: int) -> None:
        super().__init__(what, waited_ms)
        self.what = what
        self.waited_ms = waited_ms

    def __str__(self) -> str:
        return f"{self.what}: no answer in {self.waited_ms} ms; ask before sending again"


class StoreUnavailable(ArbError):
    """A database did not take a write or answer a read; nothing is known to have changed."""

    remedy = Remedy.RETRY

    def __init__(self, store: str, problem: str) -> None:
        super().__init__(store, problem)
        self.store = store
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.store} is unavailable: {self.problem}"


class Fenced(ArbError):
    """A newer epoch owns this role; the process that holds the old one must exit."""

    remedy = Remedy.HALT

    def __init__(self, role: str, epoch: int, current: int) -> None:
        super().__init__(role, epoch, current)
        self.role = role
        self.epoch = epoch
        self.current = current

    def __str__(self) -> str:
        return f"{self.role}: epoch {self.epoch} was fenced by {self.current}"


class LedgerViolation(ArbError):
    """An entry does not balance, or a repeat of an id carries other content."""

    remedy = Remedy.HALT

    def __init__(self, entry_id: str, problem: str) -> None:
        super().__init__(entry_id, problem)
        self.entry_id = entry_id
        self.problem = problem

    def __str__(self) -> str:
        return f"ledger entry {self.entry_id}: {self.problem}"


class InvalidTransition(ArbError):
    """A state machine met an event its current state has no rule for."""

    remedy = Remedy.HALT

    def __init__(self, machine: str, state: str, event: str) -> None:
        super().__init__(machine, state, event)
        self.machine = machine
        self.state = state
        self.event = event

    def __str__(self) -> str:
        return f"{self.machine}: no rule for {self.event} in {self.state}"


class AssetMismatch(ArbError):
    """Two amounts of different assets met in one sum."""

    remedy = Remedy.HALT

    def __init__(self, left: str, right: str) -> None:
        super().__init__(left, right)
        self.left = left
        self.right = right

    def __str__(self) -> str:
        return f"cannot combine {self.left} with {self.right}"
