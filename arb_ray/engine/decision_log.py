"""
A fingerprint of what was decided, so that two runs over the same input can be compared.

Each symbol has its own chain: ``head = sha256(former head + line)``. Chains depend on nothing
but their own symbol's lines, so it does not matter how symbols are spread over processes, nor
how their evaluations interleave; heads are combined in the order of the symbols' names. Lines
carry the recording's time and no session id, no wall time, no feed epoch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from decimal import Decimal

import msgspec

from arb_ray.domain.instrument import Symbol
from arb_ray.domain.opportunity import Opportunity
from arb_ray.engine.evaluation import Evaluation

START = b""

Field = str | int | float | Decimal
"""What a line may hold; each has one spelling (floats the shortest that reads back)."""

LineSink = Callable[[str], None]


class ChainHead(msgspec.Struct, frozen=True):
    """The fingerprint of one symbol's decisions so far; crosses processes."""

    symbol: Symbol
    count: int
    digest: bytes


class DecisionLog:
    """
    The chains of the symbols that one process decides for.

    Args:
        sink: Gets every line, in the order of this process; for a person comparing two runs.
        heads: Where chains continue that another process began.
    """

    def __init__(self, sink: LineSink | None = None, heads: Iterable[ChainHead] = ()) -> None:
        self._sink = sink
        self._counts: dict[Symbol, int] = {}
        self._digests: dict[Symbol, bytes] = {}
        for head in heads:
            assert head.symbol not in self._digests, "one chain a symbol"
            self._counts[head.symbol] = head.count
            self._digests[head.symbol] = head.digest

    def record(self, symbol: Symbol, at_ns: int, what: str, *fields: Field) -> None:
        """Add one decision; ``at_ns`` is the recording's time in a replay."""
        line = "|".join((symbol, str(at_ns), what, *(_text(field) for field in fields)))
        assert "\n" not in line, "one decision, one line"
        before = self._digests.get(symbol, START)
        self._digests[symbol] = hashlib.sha256(before + line.encode()).digest()
        self._counts[symbol] = self._counts.get(symbol, 0) + 1
        if self._sink is not None:
            self._sink(line)

    def record_evaluation(self, symbol: Symbol, at_ns: int, evaluation: Evaluation) -> None:
        """Add what one look at the market led to."""
        found = evaluation.opportunity
        if found is None:
            refusal = evaluation.refusal
            assert refusal is not None, "a refusal or an opportunity"
            self.record(symbol, at_ns, "refused", refusal.value, int(evaluation.is_repeat))
        else:
            self.record(symbol, at_ns, "opportunity", *_opportunity_fields(found))

    def heads(self) -> tuple[ChainHead, ...]:
        """Return every chain's head, sorted by symbol."""
        return tuple(
            ChainHead(symbol, self._counts[symbol], self._digests[symbol])
            for symbol in sorted(self._digests)
        )

    def hexdigest(self) -> str:
        """Return the fingerprint of everything this process decided."""
        return combined_hash(self.heads())


def combined_hash(heads: Iterable[ChainHead]) -> str:
    """Combine the chains of any number of processes; a symbol must appear once only."""
    ordered = sorted(heads, key=lambda head: head.symbol)
    symbols = [head.symbol for head in ordered]
    assert len(set(symbols)) == len(symbols), "two processes decided for one symbol"
    whole = hashlib.sha256()
    for head in ordered:
        whole.update(f"{head.symbol}|{head.count}|{head.digest.hex()}\n".encode())
    return whole.hexdigest()


def _opportunity_fields(found: Opportunity) -> tuple[Field, ...]:
    costs = found.costs
    return (
        found.direction.value,
        found.qty,
        found.notional_usdt,
        found.price_a,
        found.price_b,
        found.fx_krw,
        found.fx_mid_krw,
        found.gross_bps,
        *(getattr(costs, name) for name in costs.__struct_fields__),
    )


def _text(field: Field) -> str:
    if isinstance(field, float):
        return repr(field)
    if isinstance(field, Decimal):
        return format(field.normalize(), "f")
    return str(field)
