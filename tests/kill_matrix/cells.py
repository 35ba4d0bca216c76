"""
The matrix as data: what is harmed, how, and where.

``STATES`` x ``HARMS`` are the cells of the trade machine; ``WRITES`` x ``WHENS`` are the cells of
the journal. A script leads the market so that the trade comes by the place.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator

import msgspec


class Script(enum.StrEnum):
    """How the market leads a trade."""

    PLAIN = "plain"  # in, and out with a profit
    HEDGED = "hedged"  # Binance shows less at the entry than it did at the signal
    UNWOUND = "unwound"  # Upbit shows less at the exit
    GONE = "gone"  # the edge goes while RiskGuard is asked
    PERP = "perp"  # a perpetual, over a funding instant
    UNANSWERED = "unanswered"  # RiskGuard is frozen while it is asked, for longer than it may take
    OPERATED = "operated"  # an operator halts while the trade is held, and resumes after it


class When(enum.StrEnum):
    """Where in a write."""

    BEFORE = "before"  # nothing was sent
    WIRE = "wire"  # the process dies with its COMMIT on the wire
    AFTER = "after"  # committed, and the process dies before it hears of it
    LOST = "lost"  # committed, the wire breaks, the process lives
    SERVER = "server"  # the database's server dies with the COMMIT on the wire


class Harm(enum.StrEnum):
    """What is done."""

    KILL = "kill"  # SIGKILL, and started again as Ray would
    DOUBLE = "double"  # SIGSTOP, a second one takes over, SIGCONT
    CUT = "cut"  # its way to PostgreSQL is cut, a second one takes over, the way is back


class Trigger(msgspec.Struct, frozen=True):
    """When a process harms itself, or hands over to the stage that harms another one."""

    act: str  # kill, freeze, hand
    state: str = ""  # as the machine moves into it; its effects have not begun
    method: str = ""
    label: str = ""
    nth: int = 1
    when: When = When.BEFORE


class Cell(msgspec.Struct, frozen=True):
    """One test of the matrix."""

    id: str
    script: Script
    victim: str  # host, guard, feed-a, feed-b, postgres
    harm: Harm
    trigger: Trigger
    holder: str  # the process that carries the trigger: host or guard
    then: Trigger | None = None  # of its next life
    reach_within_s: float = 20.0  # a place that is not reached by then is not reached at all

    @property
    def place(self) -> str:
        """The state or the write, for the table."""
        one = self.trigger
        return one.state or f"{one.method}:{one.label or '-'}:{one.nth}"


class Write(msgspec.Struct, frozen=True):
    """A write of the journal that a script comes by: the ``nth`` of its kind in a life."""

    holder: str
    script: Script
    method: str
    label: str = ""
    nth: int = 1
    note: str = ""


P, H, U, G, F, N, O = (  # noqa: E741 - one letter a script keeps the table readable
    Script.PLAIN, Script.HEDGED, Script.UNWOUND, Script.GONE, Script.PERP, Script.UNANSWERED, Script.OPERATED,
)  # fmt: skip

STATES: dict[str, Script] = {
    "idle": P,  # with a signal: its number is about to be taken
    "reserving": P,
    "confirming": P,
    "entering": P,
    "hedging": H,
    "holding": P,
    "exiting": P,
    "unwinding": U,
    "settling": P,
}

HARMS: tuple[tuple[str, Harm], ...] = (
    ("host", Harm.KILL),
    ("host", Harm.DOUBLE),
    ("guard", Harm.KILL),
    ("guard", Harm.DOUBLE),
    ("guard", Harm.CUT),
    ("feed-a", Harm.KILL),
    ("feed-b", Harm.KILL),
    ("postgres", Harm.KILL),
)

WRITES: tuple[Write, ...] = (
    # The strategies' journal, in the order in which a trade writes it.
    Write("host", P, "claim_symbol"),
    Write("host", P, "next_trade_number"),
    Write("host", P, "append_event", "Signal"),
    Write("host", P, "append_event", "ReserveAnswered"),
    Write("host", P, "append_event", "EdgeConfirmed"),
    Write("host", P, "accept_order", "entry/upbit"),
    Write("host", P, "accept_order", "entry/binance"),
    Write("host", P, "report_order", "entry/upbit"),
    Write("host", P, "report_order", "entry/binance"),
    Write("host", P, "append_event", "OrderReported", 1, "first leg is in"),
    Write("host", P, "append_event", "OrderReported", 2, "second leg is in"),
    Write("host", P, "append_event", "ExitDecided"),
    Write("host", P, "accept_order", "exit/upbit"),
    Write("host", P, "accept_order", "exit/binance"),
    Write("host", P, "report_order", "exit/upbit"),
    Write("host", P, "report_order", "exit/binance"),
    Write("host", P, "append_event", "OrderReported", 3, "first leg is out"),
    Write("host", P, "append_event", "OrderReported", 4, "second leg is out"),
    Write("host", P, "append_event", "Settled"),
    Write("host", G, "append_event", "EdgeGone"),
    Write("host", G, "append_event", "Settled", 1, "of a void"),
    Write("host", N, "append_event", "ReserveUnanswered"),
    Write("host", H, "append_event", "OrderReported", 2, "legs filled unalike"),
    Write("host", H, "append_event", "Retry", 1, "prices of the hedge"),
    Write("host", H, "accept_order", "hedge"),
    Write("host", H, "report_order", "hedge"),
    Write("host", H, "append_event", "OrderReported", 3, "of the hedge"),
    Write("host", U, "append_event", "OrderReported", 4, "an exit filled short"),
    Write("host", U, "append_event", "Retry", 1, "prices of the rest"),
    Write("host", U, "accept_order", "unwind"),
    Write("host", U, "report_order", "unwind"),
    Write("host", U, "append_event", "OrderReported", 5, "of the rest"),
    Write("host", F, "append_event", "FundingPaid"),
    Write("host", F, "post", "funding"),
    Write("host", F, "post", "settle_perp"),
    # RiskGuard's.
    Write("guard", P, "take_lease"),
    Write("guard", P, "note_limits"),
    Write("guard", P, "open_balances"),
    Write("guard", P, "renew_lease"),
    Write("guard", P, "grant", "ETH"),
    Write("guard", P, "settle", "ETH/posted"),
    Write("guard", G, "settle", "ETH/voided"),
    Write("guard", O, "set_state", "halted"),
    Write("guard", O, "set_state", "active"),
)


UNREACHABLE = Cell(
    "never.reached", P, "host", Harm.KILL,
    Trigger("kill", method="append_event", label="NoSuchEvent"), "host", reach_within_s=3.0,
)  # fmt: skip
"""No part of the matrix: it shows that a place nobody comes by is a failure."""


def all_cells() -> list[Cell]:
    """Return the whole matrix, in the order of its table."""
    return [*_states(), *_writes(), *_again(), *_frozen()]


def _states() -> Iterator[Cell]:
    for state, script in STATES.items():
        for victim, harm in HARMS:
            own_act = "kill" if harm is Harm.KILL else "freeze"
            act = own_act if victim == "host" else "hand"
            trigger = Trigger(act, state=state)
            yield Cell(f"{state}.{victim}.{harm}", script, victim, harm, trigger, "host")


def _writes() -> Iterator[Cell]:
    for write in WRITES:
        for when in When:
            name = ".".join(
                part
                for part in (
                    write.holder,
                    write.method,
                    write.label.replace("/", "-"),
                    str(write.nth) if write.nth > 1 else "",
                    "" if write.script is P else str(write.script),
                    str(when),
                )
                if part
            )
            trigger = Trigger(
                "kill", method=write.method, label=write.label, nth=write.nth, when=when
            )
            victim = "postgres" if when is When.SERVER else write.holder
            yield Cell(name, write.script, victim, Harm.KILL, trigger, write.holder)


def _again() -> Iterator[Cell]:
    """The second life dies too, in its recovery."""
    first = Trigger("kill", state="entering")
    for method, label in (
        ("claim_symbol", ""),
        ("append_event", "QueryAnswered"),
        ("accept_order", "entry/upbit"),
    ):
        for when in (When.BEFORE, When.WIRE, When.AFTER):
            name = f"again.{method}{'.' + label.replace('/', '-') if label else ''}.{when}"
            then = Trigger("kill", method=method, label=label, when=when)
            yield Cell(name, P, "host", Harm.KILL, first, "host", then)


def _frozen() -> Iterator[Cell]:
    """A guard that is frozen with its own commit on the way, while a second one takes over."""
    for method, label in (("renew_lease", ""), ("grant", "ETH"), ("settle", "ETH/posted")):
        trigger = Trigger("freeze", method=method, label=label, when=When.WIRE)
        yield Cell(f"guard.{method}.frozen", P, "guard", Harm.DOUBLE, trigger, "guard")
