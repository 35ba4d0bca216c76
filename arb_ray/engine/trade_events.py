"""
What can happen to a trade, and what it can ask for.

Events are journaled before they are acted on, as JSON with money as text; effects are
orders to the shell, each safe to repeat.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from decimal import Decimal

import msgspec

from arb_ray.domain.errors import BadInput
from arb_ray.domain.ledger import Entry
from arb_ray.domain.order import OrderReport, OrderRequest
from arb_ray.domain.risk_intent import ReserveIntent, Settlement, Verdict
from arb_ray.engine.trade_plan import OrderPrice, TradePlan

SCHEMA = 1


class ExitReason(enum.StrEnum):
    """Why a position is left."""

    TAKE_PROFIT = "take_profit"
    STOP_LOSS = "stop_loss"
    REVERSAL = "reversal"
    MAX_HOLD = "max_hold"
    RISK_FLATTEN = "risk_flatten"
    SHUTDOWN = "shutdown"


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened, named in the past tense or as a noun."""

    at_ns: int  # when the shell received it; the engine never asks for the time
    schema: int = SCHEMA


class Signal(Event, frozen=True, tag=True, kw_only=True):
    """An edge was found and sized; its trade number is used up whatever follows."""

    plan: TradePlan


class ReserveAnswered(Event, frozen=True, tag=True, kw_only=True):
    """RiskGuard said yes or no."""

    verdict: Verdict


class ReserveUnanswered(Event, frozen=True, tag=True):
    """No answer came before the deadline: room may be held or not, so it must be voided."""


class EdgeConfirmed(Event, frozen=True, tag=True):
    """The edge is still there with the grant in hand."""


class EdgeGone(Event, frozen=True, tag=True, kw_only=True):
    """The edge is gone; nothing was sent."""

    reason: str


class OrderReported(Event, frozen=True, tag=True, kw_only=True):
    """The venue's last word on an order, or UNKNOWN when none came."""

    report: OrderReport


class QueryAnswered(Event, frozen=True, tag=True, kw_only=True):
    """The answer to a QueryOrder; ``report`` is None when the order was never accepted."""

    client_order_id: str
    report: OrderReport | None


class FundingPaid(Event, frozen=True, tag=True, kw_only=True):
    """
    A funding instant passed while the perpetual was open.

    ``mark_price`` is per venue unit, ``rate`` a ratio: longs pay when it is positive.
    """

    funding_ns: int
    mark_price: Decimal
    rate: Decimal


class ExitDecided(Event, frozen=True, tag=True, kw_only=True):
    """
    The position is to be left, at these prices.

    A price may be missing only for a leg that has nothing to close; ``fx_mid_krw`` is F's
    mid at this decision, ``mark_usdt`` what one unit of the asset is worth.
    """

    reason: ExitReason
    price_a: OrderPrice | None
    price_b: OrderPrice | None
    fx_mid_krw: Decimal
    mark_usdt: Decimal


class Retry(Event, frozen=True, tag=True, kw_only=True):
    """New prices for what could not be finished; None where a venue has no usable book."""

    price_a: OrderPrice | None
    price_b: OrderPrice | None
    mark_usdt: Decimal


class Settled(Event, frozen=True, tag=True, kw_only=True):
    """RiskGuard has taken the settlement; what was held is free."""

    trade_id: str


AnyEvent = (
    Signal
    | ReserveAnswered
    | ReserveUnanswered
    | EdgeConfirmed
    | EdgeGone
    | OrderReported
    | QueryAnswered
    | FundingPaid
    | ExitDecided
    | Retry
    | Settled
)


class Effect(msgspec.Struct, frozen=True):
    """An order to the shell. Carrying one out twice does what carrying it out once does."""


class ReserveRisk(Effect, frozen=True):
    """Ask RiskGuard; answer with ReserveAnswered or ReserveUnanswered."""

    intent: ReserveIntent


class ConfirmEdge(Effect, frozen=True):
    """Evaluate the edge again; answer with EdgeConfirmed or EdgeGone."""

    trade_id: str


class SubmitOrder(Effect, frozen=True):
    """
    Send an order; answer with OrderReported (UNKNOWN when no answer came).

    One that ``is_repeat`` may be on its way already: too old to be sent, it is withdrawn.
    """

    order: OrderRequest
    is_repeat: bool = False


class WithdrawOrder(Effect, frozen=True):
    """
    See to it that an order fills no more; answer with OrderReported, however long it takes.

    That the venue knew none when it was asked proves little: a submission without an answer
    may arrive after the question.
    """

    order: OrderRequest


class QueryOrder(Effect, frozen=True):
    """Ask for an order after ``wait_ms``; answer with QueryAnswered, however long it takes."""

    client_order_id: str
    wait_ms: int


class RequestRetry(Effect, frozen=True):
    """Price what is still to be done (``wanted``) after ``wait_ms``; answer with Retry."""

    trade_id: str
    attempt: int
    wait_ms: int


class PostEntries(Effect, frozen=True):
    """Post entries that belong to no order; nothing comes back."""

    entries: tuple[Entry, ...]


class SettleRisk(Effect, frozen=True):
    """Post or void the reservation until RiskGuard answers; then Settled."""

    settlement: Settlement


class Note(Effect, frozen=True):
    """A fact for the logs and counters."""

    kind: str
    data: Mapping[str, str]


AnyEffect = (
    ReserveRisk
    | ConfirmEdge
    | SubmitOrder
    | WithdrawOrder
    | QueryOrder
    | RequestRetry
    | PostEntries
    | SettleRisk
    | Note
)

LiveEvent = OrderReported | QueryAnswered | FundingPaid | ExitDecided | Retry
"""What moves a trade that has orders or a position: it must be possible whatever is away."""

_event_decoder = msgspec.json.Decoder(AnyEvent)


def encode_event(event: AnyEvent) -> bytes:
    """Return the journal's form of an event."""
    return msgspec.json.encode(event)


def decode_event(data: bytes) -> AnyEvent:
    """
    Read an event from the journal.

    Raises:
        BadInput: It is not an event, or of a schema that this code does not know.
    """
    try:
        event: AnyEvent = _event_decoder.decode(data)
    except msgspec.DecodeError as error:
        raise BadInput("trade event", str(error), "Look at the journal's row") from error
    if event.schema != SCHEMA:
        mend = f"This code reads schema {SCHEMA}; run the version that wrote it"
        raise BadInput("trade event", f"schema {event.schema}", mend)
    return event
