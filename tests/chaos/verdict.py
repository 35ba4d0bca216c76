"""
Did anything break that must not, whatever was injected?

Read after the drain, from PostgreSQL itself and around every proxy: the audit, and a few sums of
our own that share no code with it. Everything that is wrong is a sentence; none is the verdict.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psycopg

from arb_ray.adapters.storage.audit.check import Scope
from arb_ray.adapters.storage.audit.runner import AuditReport, audit
from tests.chaos.adversary import Episode

BUGS_MAX = 20

OWN_CHECKS = {
    "still open after the drain": "SELECT trade_id FROM arb.trades WHERE status = 'open'",
    "a reservation that nobody settled": """
        SELECT r.trade_id FROM arb.reservations AS r
        LEFT JOIN arb.reservation_outcomes AS o USING (env, trade_id) WHERE o.trade_id IS NULL""",
    "left over after the drain": """
        SELECT concat_ws(' ', venue, account, amount, asset) FROM arb.balances
        WHERE account IN ('held', 'position', 'unsettled') AND amount <> 0""",
    # Dust is what no order can be sent for; a forgotten position is an eighth of what was opened.
    "exposed by more than dust": """
        SELECT concat_ws(' ', asset, net) FROM (
            SELECT env, asset, sum(amount) AS net,
                   -sum(amount) FILTER (WHERE account = 'opening') AS opened
            FROM arb.postings WHERE asset NOT IN ('KRW', 'USDT')
                AND account IN ('free', 'held', 'position', 'unsettled', 'dust', 'opening')
            GROUP BY env, asset) AS sums WHERE abs(net) > opened / 40""",
    "two trades on one symbol at once": """
        WITH lives AS (  -- by the database's own clock, which nobody steps
            SELECT r.env, r.symbol, trade_id, r.recorded_ns AS from_ns, o.recorded_ns AS to_ns
            FROM arb.reservations AS r JOIN arb.reservation_outcomes AS o USING (env, trade_id))
        SELECT concat_ws(' ', a.trade_id, b.trade_id) FROM lives AS a
        JOIN lives AS b ON (a.env, a.symbol) = (b.env, b.symbol) AND a.trade_id < b.trade_id
        WHERE a.from_ns < b.to_ns AND b.from_ns < a.to_ns""",
    # A leg whose first order ended unfilled may be completed by a second one, and no further.
    "more entered than was planned": """
        SELECT concat_ws(' ', o.trade_id, o.instrument, sum(f.qty)) FROM arb.orders AS o
        JOIN arb.fills AS f USING (env, client_order_id) WHERE o.purpose = 'entry'
        GROUP BY o.env, o.trade_id, o.instrument HAVING sum(f.qty) > max(o.qty)""",
    "an entry sent while another had no last word": """
        SELECT concat_ws(' ', a.client_order_id, b.client_order_id) FROM arb.orders AS a
        JOIN arb.orders AS b ON (a.env, a.trade_id, a.instrument) = (b.env, b.trade_id, b.instrument)
            AND a.recorded_ns < b.recorded_ns
        LEFT JOIN arb.order_reports AS r ON (r.env, r.client_order_id) = (a.env, a.client_order_id)
        WHERE a.purpose = 'entry' AND b.purpose = 'entry'
            AND coalesce(r.recorded_ns, b.recorded_ns) >= b.recorded_ns""",
}


async def judge(
    *,
    dsn: str,
    env: str,
    episodes: Sequence[Episode],
    above: Iterable[str],
    stop: Any,
    logs: Path | None,
) -> tuple[list[str], dict[str, int]]:
    """Return every violation in a sentence, and how many trades there were."""
    with psycopg.connect(dsn) as connection:
        trades = _trades(connection)
        found = [
            *_not_back(episodes),
            *(f"limit: {one}" for one in dict.fromkeys(above)),
            *stop_problems(stop),
            *own_problems(connection),
        ]
    found += audit_problems(await audit(dsn, Scope(env)))
    if not trades["posted"]:
        found.append("nothing was traded: this run shows nothing")
    if logs is not None:
        found += bugs_in(logs)
    return found, trades


def _not_back(episodes: Sequence[Episode]) -> Iterator[str]:
    for episode in episodes:
        if episode.why_not:
            words = " + ".join(fault.words() for fault in episode.faults)
            yield f"no recovery from {words}: {episode.why_not}"


def stop_problems(stop: Any) -> Iterator[str]:
    """What the stop after the heal says: it must be clean."""
    if stop.returncode != 0:
        words = " ".join(stop.stderr.split())[-400:]
        yield f"the stop ended with {stop.returncode}: {words}"


def own_problems(connection: Any) -> Iterator[str]:
    """Our own look at the ledger."""
    for what, query in OWN_CHECKS.items():
        for row in connection.execute(query).fetchall():
            yield f"{what}: {row[0]}"


def audit_problems(report: AuditReport) -> Iterator[str]:
    """What the audit says, each violation by its sentence."""
    for outcome in report.outcomes:
        yield from (f"audit {outcome.name}: {sentence}" for sentence in outcome.told)
        more = outcome.violations - len(outcome.told)
        if more > 0:
            yield f"audit {outcome.name}: {more} more"


def bugs_in(logs: Path) -> Iterator[str]:
    """Tracebacks in the actors' logs that no typed error explains: a bug, whoever provoked it."""
    seen: dict[str, str] = {}
    for path in sorted(logs.glob("worker-*.err")):
        for line in path.read_text(errors="replace").splitlines():
            if '"exception"' not in line:
                continue
            try:
                told = json.loads(line)
            except json.JSONDecodeError:
                continue
            trace = [part for part in str(told.get("exception", "")).splitlines() if part.strip()]
            last = trace[-1] if trace else ""
            if not last.startswith("arb_ray.domain.errors."):
                where = next((part.strip() for part in reversed(trace) if "File " in part), "")
                seen.setdefault(f"{told.get('event')}: {last} {where}", str(told.get("actor")))
    for text, actor in list(seen.items())[:BUGS_MAX]:
        yield f"bug in {actor}: {text[:400]}"


def _trades(connection: Any) -> dict[str, int]:
    query = """SELECT count(*) FILTER (WHERE outcome = 'posted'),
        count(*) FILTER (WHERE outcome = 'voided'), count(*) FILTER (WHERE status = 'open'),
        (SELECT count(*) FROM arb.fills) FROM arb.trades"""
    posted, voided, left, fills = connection.execute(query).fetchone()
    return {"posted": posted, "voided": voided, "open": left, "fills": fills}
