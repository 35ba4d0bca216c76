"""Every kind of fault: whom it may meet, for how long, and how fast all must trade again."""

from __future__ import annotations

import msgspec

from arb_ray.actors.supervisor import SupervisorTimes

FEEDS = ("feed:upbit", "feed:binance_spot")
HOSTS = ("host:000", "host:001")
VENUES = ("upbit", "binance_spot")
EVERYBODY = (*HOSTS, *FEEDS, "risk")


def health_timeout_s() -> float:
    """How long a process that does not answer is waited for, by the Supervisor's own terms."""
    return SupervisorTimes().health_timeout_s


class Kind(msgspec.Struct, frozen=True):
    """
    A kind of fault.

    Recovery is timed from the injection where the fault has no end of its own, otherwise from
    its heal. ``median_s`` and ``most_s`` are what issue 4 asks; None where it asks nothing.
    """

    name: str
    family: str
    targets: tuple[str, ...]
    duration_s: tuple[float, float] = (0.0, 0.0)
    amount: tuple[float, float] = (0.0, 0.0)
    back_s: float = 5.0  # what the schedule allows for the recovery; a longer one is waited for
    median_s: float | None = None
    most_s: float | None = None
    is_short: bool = True  # fits a run of less than two minutes

    @property
    def has_end(self) -> bool:
        """Whether the adversary ends it, so that recovery is timed from there."""
        return self.duration_s[1] > 0


def _kill(role: str, targets: tuple[str, ...], median_s: float | None = 3.0) -> Kind:
    most_s = 10.0 if median_s else None
    return Kind(f"kill_{role}", "processes", targets, median_s=median_s, most_s=most_s)


def _exchange(name: str, *, duration_s: float = 4.0, amount: float = 0.0) -> Kind:
    return Kind(
        name,
        "exchange",
        VENUES,
        duration_s=(duration_s / 2, duration_s),
        amount=(amount / 4, amount),
        back_s=2.0,
    )


def _wire(name: str, longest_s: float, *, most_s: float | None = None, amount: float = 0.0) -> Kind:
    return Kind(
        name,
        "network",
        (name.partition("_")[0],),
        duration_s=(longest_s / 3, longest_s),
        amount=(amount / 5, amount),
        back_s=3.0,
        most_s=most_s,
    )


KINDS: tuple[Kind, ...] = (
    _kill("host", HOSTS),
    _kill("feed", FEEDS),
    _kill("risk", ("risk",)),
    _kill("persistence", ("persistence",), None),
    _kill("supervisor", ("supervisor",), None),
    _kill("gateway", ("gateway",), None),
    _kill("source", ("source",), None),
    # SIGSTOP, and SIGCONT before the health check gives it up.
    Kind("freeze", "processes", (*EVERYBODY, "persistence", "supervisor"), (1.0, 5.0), most_s=3.0),
    # SIGSTOP for good: whoever watches it must end it.
    Kind(
        "hang",
        "processes",
        (*EVERYBODY, "persistence"),
        back_s=health_timeout_s() + 3.0,
        most_s=health_timeout_s() + 3.0,
        is_short=False,
    ),
    Kind("kill_node", "node", ("worker",), back_s=15.0, most_s=15.0, is_short=False),
    _wire("postgres_cut", 0.3, most_s=2.0),
    _wire("postgres_stall", 6.0, most_s=2.0),
    _wire("postgres_refuse", 8.0, most_s=2.0),
    _wire("postgres_slow", 5.0, amount=0.1),
    _wire("redis_cut", 0.3),
    _wire("redis_stall", 5.0),
    _wire("redis_refuse", 6.0),
    _exchange("silence", duration_s=6.0),
    _exchange("gap", amount=40),
    _exchange("reorder", amount=40),
    _exchange("duplicate", amount=40),
    _exchange("malformed", amount=20),
    _exchange("stale_book", duration_s=6.0),
    _exchange("clock_skew", duration_s=5.0, amount=8_000),
    _exchange("disconnect", duration_s=1.0),
    _exchange("slow_consumer", duration_s=4.0, amount=2_000),
    Kind("calls_lost", "calls", (*HOSTS, *FEEDS), (2.0, 5.0), (0.3, 1.0), back_s=2.0),
    Kind("answers_lost", "calls", (*HOSTS, *FEEDS), (2.0, 5.0), (0.3, 1.0), back_s=2.0),
    Kind("calls_late", "calls", (*HOSTS, *FEEDS), (2.0, 5.0), (0.2, 1.5), back_s=2.0),
    Kind("clock_ahead", "clock", EVERYBODY, (3.0, 6.0), (0.5, 60.0), back_s=3.0),
    Kind("clock_behind", "clock", EVERYBODY, (3.0, 6.0), (0.5, 60.0), back_s=3.0),
)

BY_NAME = {kind.name: kind for kind in KINDS}
