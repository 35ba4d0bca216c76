"""What a start takes up from the session's runs before it: counts, and how the last one ended."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from arb_ray.adapters.storage.session_runs import CrashedRun
from arb_ray.adapters.storage.session_store import Session, SessionStore, SessionTotals
from arb_ray.adapters.storage.snapshot_store import PostgresSnapshotStore
from arb_ray.app.status_words import clock_text
from arb_ray.engine.session_snapshot import (
    Counts,
    Expected,
    counts_of,
    damage,
    objection,
    with_ledger,
)


class Restored(msgspec.Struct, frozen=True):
    """What was found; ``unused`` says why no snapshot was taken."""

    counts: Counts
    totals: SessionTotals = SessionTotals()
    snapshot_ns: int = 0
    quarantined: int = 0
    unused: str = ""

    def words(self, crashed: CrashedRun | None) -> Iterator[str]:
        """Tell a person."""
        if crashed is not None:
            began = clock_text(crashed.started_ns)
            yield f"the run before ({crashed.holder}, since {began}) ended without a clean stop"
        if self.totals.open_positions:
            yield f"{self.totals.open_positions} open positions are taken up"
        if self.quarantined:
            yield f"{self.quarantined} damaged snapshots were set aside in quarantine"
        if self.unused:
            yield f"counts begin anew: {self.unused}"


async def restore(
    store: PostgresSnapshotStore,
    sessions: SessionStore,
    session: Session,
    *,
    market: str,
    age_max_s: float,
    now_ns: int,
) -> Restored:
    """
    Return what a session's runs had counted: its newest sound snapshot, and the ledger over it.

    Raises:
        StoreUnavailable: PostgreSQL does not answer.
    """
    if not session.is_resumed:
        return Restored(Counts())
    expected = Expected(session.session_id, market, now_ns, int(age_max_s * 1e9))
    before = store.corrupt_skipped
    found = await store.newest(
        "session_snapshots", session.session_id, "", lambda p, at: damage(p, at, expected)
    )
    totals = await sessions.totals(session.session_id)
    unused = "there is no sound snapshot" if found is None else objection(*found, expected)
    counts = counts_of(found[0]) if found is not None and not unused else Counts()
    return Restored(
        with_ledger(counts, opened=totals.trades_opened, closed=totals.trades_closed),
        totals,
        found[1] if found is not None else 0,
        store.corrupt_skipped - before,
        unused,
    )
