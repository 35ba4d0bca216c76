"""A ledger as runs make it: whole lives of trades, written through the very stores."""

from __future__ import annotations

from decimal import Decimal

import msgspec

from arb_ray.adapters.storage.ledger_store import PostgresLedgerStore
from arb_ray.adapters.storage.risk_store import PostgresRiskStore
from arb_ray.adapters.storage.session_store import SessionStore
from arb_ray.adapters.storage.snapshot_store import PostgresSnapshotStore
from arb_ray.domain.instrument import Venue
from arb_ray.domain.ledger import Account, Entry, EntryKind, Posting
from arb_ray.domain.risk_intent import Granted, RiskState
from arb_ray.engine.postings import hold_entry, report_entries
from arb_ray.engine.risk import StateChange
from arb_ray.engine.trade_events import ReserveAnswered, encode_event
from arb_ray.engine.trade_plan import trade_id_for
from arb_ray.ports import Snapshot
from tests.risk_world import LIMITS
from tests.trade_world import World, make_plan

OPENING = Decimal(10) ** 12

# The lives are random and no guard watches them: whatever they lose is within these.
WIDE = msgspec.structs.replace(
    LIMITS,
    daily_loss_usdt=Decimal(10) ** 6,
    symbol_daily_loss_usdt=Decimal(10) ** 6,
    drawdown_usdt=Decimal(10) ** 6,
    entries_per_minute_count=10**6,
    consecutive_losses_count=10**6,
    anomaly_window_count=10**6,
)


class Recorder(World):
    """A life that notes what the shell would have written, in its order."""

    def __init__(self, plan, seed, trouble=25):
        super().__init__(plan, seed, trouble)
        self.writes = []

    def feed(self, event):
        self.writes.append(("event", len(self.journal), event))
        return super().feed(event)

    def do_reserve_risk(self, effect):
        if f"hold:{effect.intent.trade_id}" in self.entries:  # asked again: the same answer
            granted = Granted(effect.intent.trade_id, 1, 1)
            self.feed(ReserveAnswered(at_ns=self.now, verdict=granted))
            return
        before = len(self.writes)
        super().do_reserve_risk(effect)
        if f"hold:{effect.intent.trade_id}" in self.entries:
            self.writes.insert(before, ("grant", effect.intent))

    def do_settle_risk(self, effect):
        self.writes.append(("settle", effect.settlement))
        super().do_settle_risk(effect)

    def do_post_entries(self, effect):
        self.writes.append(("post", effect.entries))
        super().do_post_entries(effect)

    def execute(self, order):
        is_new = order.client_order_id not in self.reports
        super().execute(order)
        if is_new:
            market, _, report = self.executions[-1]
            entries = report_entries(market, order, report)
            self.writes.append(("report", order, report, entries))


class LedgerWorld:
    """One environment in PostgreSQL, with a guard, owners and a session."""

    def __init__(self, postgres, env):
        self.env = env
        self.postgres = postgres
        self.ledger = PostgresLedgerStore(postgres, env)
        self.risk = PostgresRiskStore(postgres, env)
        self.sessions = SessionStore(postgres, env)
        self.owners = {}
        self.session_id = ""
        self.epoch = 0

    async def begin(self, limits=WIDE):
        """Take the lease, write the limits, open a session and the balances."""
        await self.take_over(limits)
        await self.resume()
        for venue, asset in (
            *((Venue.UPBIT, asset) for asset in ("KRW", "BTC", "PEPE")),
            *((Venue.BINANCE_SPOT, asset) for asset in ("USDT", "BTC", "PEPE")),
            (Venue.BINANCE_USDM, "USDT"),
        ):
            await self.risk.open_balances(self.epoch, opening(venue, asset))

    async def resume(self):
        """Begin a session, or go on with the one that is open."""
        session = await self.sessions.open(
            source="sim", preset="lively", seed=1, now_ns=1, is_new=False
        )
        self.session_id = session.session_id

    async def take_over(self, limits=WIDE):
        self.epoch = await self.risk.take_lease("guard")
        await self.risk.note_limits(self.epoch, limits)

    async def live(self, pair, direction, seed, trouble=25, kind=None, **changes):
        """Live one trade from its signal to its end, and write all of it."""
        life = await self.lived(pair, direction, seed, trouble, kind, **changes)
        await self.write(life)
        return life

    async def lived(self, pair, direction, seed, trouble=25, kind=None, **changes):
        """Live one trade, and write nothing of it but its number."""
        symbol = pair.symbol
        if symbol not in self.owners:
            self.owners[symbol] = await self.ledger.claim_symbol(symbol, "host")
        number = await self.ledger.next_trade_number(symbol)
        changes = await self.dust_of(pair) | changes
        plan = make_plan(
            pair,
            direction,
            number,
            trade_id=trade_id_for(self.env, symbol, number),
            session_id=self.session_id,
            owner_epoch=self.owners[symbol],
            **changes,
        )
        return (kind or Recorder)(plan, seed, trouble).live()

    async def dust_of(self, pair):
        """What a plan takes along of earlier trades."""
        dust = await self.ledger.dust(pair.a.instrument.asset)
        legs = {"dust_a": pair.a, "dust_b": pair.b}
        return {name: dust.get(leg.instrument.venue, Decimal(0)) for name, leg in legs.items()}

    async def write(self, life, until=None):
        """Write a life, or its first ``until`` writes."""
        for kind, *content in life.writes[:until]:
            await getattr(self, f"_{kind}")(life.plan, *content)

    async def _event(self, plan, seq, event):
        symbol, owner = plan.symbol, plan.owner_epoch
        await self.ledger.append_event(symbol, owner, plan.trade_id, seq, encode_event(event))

    async def _grant(self, plan, intent):
        verdict = await self.risk.grant(self.epoch, intent, hold_entry(intent, 1), 1)
        assert isinstance(verdict, Granted), verdict

    async def _report(self, plan, order, report, entries):
        symbol, owner = plan.symbol, plan.owner_epoch
        await self.ledger.accept_order(symbol, owner, order)
        await self.ledger.report_order(symbol, owner, order, report, entries)

    async def _post(self, plan, entries):
        await self.ledger.post(plan.symbol, plan.owner_epoch, entries)

    async def _settle(self, plan, settlement):
        if -settlement.realized_usdt > plan.worst_loss_usdt:
            at_ns = settlement.closed_ns
            await self.set_state(
                RiskState.HALTED, f"gap_loss: {plan.trade_id} lost more", "guard", at_ns
            )
            await self.risk.settle(self.epoch, settlement)
            await self.set_state(RiskState.ACTIVE, "seen", "operator", at_ns)
            return
        await self.risk.settle(self.epoch, settlement)

    async def set_state(self, state, reason, actor, at_ns=1):
        await self.risk.set_state(self.epoch, StateChange(state, reason, actor, at_ns))

    async def snap(self):
        """Write a batch of snapshots, one of each table."""
        tables = ("session", "position", "metrics", "risk_guard")
        rows = [
            Snapshot(f"{name}_snapshots", 1, self.session_id, "", {"ok": name}) for name in tables
        ]
        store = PostgresSnapshotStore(self.postgres, self.env)
        await store.write_batch(f"{self.env}:1", rows)


def opening(venue, asset, amount=OPENING):
    """Give the environment a balance out of nothing but ``opening``."""
    return Entry(
        f"opening:{venue}:{asset}",
        EntryKind.OPENING,
        None,
        None,
        1,
        (
            Posting(venue, Account.OPENING, asset, -amount),
            Posting(venue, Account.FREE, asset, amount),
        ),
    )
