"""
Mistakes to plant, so that it can be seen what the matrix is worth: ``--plant BUG``.

Each is one that somebody could make in a shell or a store. The cells that it is paired with must
fall; ``--plant all`` runs just those.
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import msgspec

from arb_ray.actors import effect_runner, symbol_runner
from arb_ray.adapters.storage import ledger_store, risk_store
from arb_ray.adapters.venues import paper_execution
from arb_ray.domain.errors import OutcomeUnknown, StoreUnavailable
from arb_ray.domain.order import OrderReport, OrderStatus
from arb_ray.engine import risk
from arb_ray.engine.trade import resume_effects
from arb_ray.engine.trade_events import QueryOrder
from arb_ray.engine.trade_state import Idle

patch = mock.patch.object
BUGS: dict[str, tuple[Callable[[], Any], tuple[str, ...]]] = {}


NO_BUG = {"nothing_at_all": (contextlib.nullcontext, ("idle.feed-a.kill",))}
"""What no cell may see; for the test of those who say that a bug was seen."""


def bug(*cells: str) -> Callable[[Callable[[], Any]], Callable[[], Any]]:
    """Register a bug by its function's name, with cells that must see it."""

    def register(plant: Callable[[], Any]) -> Callable[[], Any]:
        BUGS[plant.__name__] = (plant, cells)
        return plant

    return register


@contextlib.contextmanager
def planted(name: str) -> Iterator[None]:
    """Run with a bug inside."""
    with {**BUGS, **NO_BUG}[name][0]():
        yield


DECIDING = ("release_held", "write_grant", "write_settlement", "write_decision", "write_decisions")
"""The database's functions that write RiskGuard's decisions; each calls those before it."""


@contextlib.contextmanager
def _in_sql(*changes: tuple[str, str]) -> Iterator[None]:
    """Let decisions be written by copies of ``DECIDING`` in which some words are others."""
    # A schema of their own: other cells share the server.
    schema = f"planted_{zlib.crc32(repr(changes).encode()):08x}"
    right = risk_store.PostgresRiskStore.write

    async def wrong(self: Any, epoch: int, group: Any) -> Any:
        if not hasattr(self, "is_planted"):
            await _copy_functions(self._postgres, schema, changes)
            self.is_planted = True
        return await right(self, epoch, group)

    with (
        patch(risk_store.PostgresRiskStore, "write", wrong),
        patch(risk_store, "WRITE", risk_store.WRITE.replace("arb.", f"{schema}.")),
    ):
        yield


async def _copy_functions(postgres: Any, schema: str, changes: tuple[tuple[str, str], ...]) -> None:
    async with postgres.transaction("a planted bug") as connection:
        await connection.execute("SELECT pg_advisory_xact_lock(1)")  # a rival plants it too
        await connection.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
        sources = [
            await connection.fetchval(
                "SELECT pg_get_functiondef(p.oid) FROM pg_proc AS p "
                "WHERE pronamespace = 'arb'::regnamespace AND proname = $1",
                name,
            )
            for name in DECIDING
        ]
        for before, _ in changes:
            assert any(before in source for source in sources), f"nobody says {before!r} any more"
        for source in sources:
            copy = source
            for before, after in changes:
                copy = copy.replace(before, after)
            for name in DECIDING:
                copy = copy.replace(f"arb.{name}(", f"{schema}.{name}(")
            await connection.execute(copy)


@bug("entering.host.kill", "host.accept_order.entry-upbit.after")
def recovery_forgets_to_ask() -> Any:
    """Orders that were in flight are not asked for after a restart."""

    def wrong(trade: Any) -> Any:
        return tuple(one for one in resume_effects(trade) if not isinstance(one, QueryOrder))

    return patch(symbol_runner, "resume_effects", wrong)


@bug("host.report_order.entry-upbit.after", "host.accept_order.entry-upbit.after")
def recovery_declares_orders_dead() -> Any:
    """An order without an answer is taken as cancelled, instead of being asked for."""

    async def wrong(self: Any, effect: Any) -> None:
        report = OrderReport(
            effect.client_order_id, OrderStatus.CANCELLED, (), self._parts.clock.now_ns(), "lost"
        )
        event = effect_runner.QueryAnswered(
            at_ns=self._parts.clock.now_ns(),
            client_order_id=effect.client_order_id,
            report=report,
        )
        await self._master.serve(event)

    return patch(effect_runner.EffectRunner, "_query", wrong)


@bug("host.report_order.entry-upbit.after", "host.accept_order.entry-binance.after")
def recovery_sends_anew_under_another_id() -> Any:
    """What was in flight is sent again, under an id that the venue does not know."""

    async def wrong(self: Any, effect: Any) -> None:
        trade = self._master.trade
        for order in getattr(trade, "working", ()):
            if order.client_order_id == effect.client_order_id:
                again = msgspec.structs.replace(order, client_order_id=f"{order.client_order_id}b")
                report = await self._parts.execution.submit(self._master.owner_epoch, again)
                report = msgspec.structs.replace(report, client_order_id=order.client_order_id)
                event = effect_runner.OrderReported(at_ns=self._parts.clock.now_ns(), report=report)
                await self._master.serve(event)

    return patch(effect_runner.EffectRunner, "_query", wrong)


@bug("guard.settle.ETH-posted.before", "settling.guard.kill")
def settlement_is_not_repeated() -> Any:
    """A settlement that got no answer counts as done."""

    async def wrong(self: Any, write: Any) -> None:
        with contextlib.suppress(StoreUnavailable, OutcomeUnknown):
            await write()

    return patch(effect_runner.EffectRunner, "_until_stored", wrong)


@bug("guard.settle.ETH-posted.before", "host.report_order.exit-upbit.before")
def settlement_releases_nothing() -> Any:
    """The trade is closed and what was held for it stays held."""
    return _in_sql(
        ("a.said := arb.release_held(the_env, guard_epoch, one)::text", "a.said := '[]'")
    )


@bug("host.append_event.OrderReported.lost", "host.append_event.ExitDecided.lost")
def journal_forgets_the_repeat() -> Any:
    """A write without an answer is done again as the next one."""
    right = ledger_store.PostgresLedgerStore.append_event

    async def wrong(
        self: Any, symbol: Any, epoch: Any, trade_id: Any, seq: Any, event: Any
    ) -> None:
        tried = self.__dict__.setdefault("tried", {})
        shift = tried.setdefault(trade_id, 0)
        try:
            await right(self, symbol, epoch, trade_id, seq + shift, event)
        except OutcomeUnknown:
            tried[trade_id] += 1
            raise

    return patch(ledger_store.PostgresLedgerStore, "append_event", wrong)


@bug("host.report_order.entry-upbit.after", "host.report_order.exit-upbit.after")
def venue_accepts_an_id_twice() -> Any:
    """An order that was stored before travels again."""
    right = ledger_store.PostgresLedgerStore.accept_order

    async def store(self: Any, symbol: Any, epoch: Any, order: Any) -> bool:
        await right(self, symbol, epoch, order)
        return True

    async def last_word(self: Any, epoch: Any, order: Any, if_lost: str = "") -> Any:
        return await self._carry(epoch, order)

    @contextlib.contextmanager
    def both() -> Iterator[None]:
        with (
            patch(ledger_store.PostgresLedgerStore, "accept_order", store),
            patch(paper_execution.PaperExecution, "_last_word", last_word),
        ):
            yield

    return both()


@bug("entering.host.double", "exiting.host.double")
def owner_is_not_fenced() -> Any:
    """A host that lost its symbol writes on."""

    async def wrong(self: Any, *_: Any) -> None:
        return None

    return patch(ledger_store.PostgresLedgerStore, "_check_owner", wrong)


@bug("holding.guard.double", "holding.guard.cut")
def guard_is_not_fenced() -> Any:
    """A guard that lost its lease writes on."""

    right = risk_store.PostgresRiskStore._write_fenced

    @contextlib.asynccontextmanager
    async def block(self: Any, _epoch: int, what: str, **options: Any) -> Any:
        async with self._postgres.transaction(what, **options) as connection:
            yield connection

    async def row(self: Any, epoch: int, what: str, sql: str, *arguments: Any) -> None:
        sql = sql.replace("epoch = $2", "$2::bigint > 0")
        await right(self, epoch, what, sql, *arguments)

    @contextlib.contextmanager
    def all_of_it() -> Iterator[None]:
        with (
            patch(risk_store.PostgresRiskStore, "_fenced", block),
            patch(risk_store.PostgresRiskStore, "_write_fenced", row),
            _in_sql(("IF current IS DISTINCT FROM guard_epoch", "IF false")),
        ):
            yield

    return all_of_it()


@bug("holding.guard.kill", "entering.guard.kill")
def guard_starts_with_an_empty_book() -> Any:
    """What is reserved is not read back at a start."""
    right = risk_store.PostgresRiskStore.load

    async def wrong(self: Any, *args: Any) -> Any:
        return msgspec.structs.replace(await right(self, *args), open_reservations=())

    return patch(risk_store.PostgresRiskStore, "load", wrong)


@bug("guard.grant.ETH.lost", "guard.grant.ETH.after")
def no_answer_counts_as_no() -> Any:
    """A reservation without an answer is given up instead of voided."""
    right = symbol_runner.step

    def wrong(trade: Any, event: Any) -> Any:
        if isinstance(event, symbol_runner.ReserveUnanswered):
            return Idle(trade.plan.number), ()
        return right(trade, event)

    return patch(symbol_runner, "step", wrong)


@bug("host.append_event.ReserveAnswered.before")
def recovery_forgets_what_it_asked() -> Any:
    """A trade that was asked for and not answered is dropped at a restart."""

    async def wrong(self: Any) -> None:
        await right(self)
        if str(self.trade.phase) == "reserving":
            self.trade = Idle(self.trade.plan.number)

    right = symbol_runner.SymbolRunner.recover
    return patch(symbol_runner.SymbolRunner, "recover", wrong)


@bug("reserving.guard.kill")
def guard_forgets_limits() -> Any:
    """What is reserved does not count against the limit."""
    from decimal import Decimal

    return patch(risk.RiskBook, "_exposure_usdt", lambda self: Decimal(0))


@bug("entering.host.double", "exiting.host.double")
def claim_raises_no_epoch() -> Any:
    """A new owner takes the symbol under the epoch of the old one."""
    right = ledger_store.PostgresLedgerStore.claim_symbol

    async def wrong(self: Any, symbol: Any, owner: str) -> int:
        async with self._postgres.connection() as connection:
            found = await ledger_store.owner_epoch_of(connection, self._env, symbol)
        return found or await right(self, symbol, owner)

    return patch(ledger_store.PostgresLedgerStore, "claim_symbol", wrong)


@bug("guard.settle.ETH-posted.before", "settling.host.kill")
def settlement_leaves_the_trade_open() -> Any:
    """The outcome is written and the trade not closed."""
    return _in_sql(("AND trade_id = id;\n    IF NOT FOUND AND", "AND false;\n    IF false AND"))
