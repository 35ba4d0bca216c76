"""
Looks at the run from outside, five times a second: is it well, since when, within its limit?

Well means: every actor answered, every feed and host is ready, the guard is ready and has renewed
its lease in PostgreSQL just now, PostgreSQL is up, every wanted symbol is live with both books
fresh, no idle symbol's entry is held up by a gate that tells of a fault, and every host has decided
something since the moment asked for.
"""

from __future__ import annotations

import threading
import time
from decimal import Decimal

import msgspec
import psycopg
import requests

from arb_ray.domain.opportunity import Refusal
from arb_ray.engine.health import judge
from arb_ray.engine.status import SystemStatus
from tests.chaos.faults.broken import at_once

POLL_S = 0.2
FRESH_MS = 3_000.0  # strategy.max_age_a_ms and max_age_b_ms
STATUS_AGE_S = 2.0

HELD_UP = frozenset(
    {
        Refusal.NOT_OWNER, Refusal.BOOK_MISSING, Refusal.BOOK_INVALID, Refusal.STALE_A,
        Refusal.STALE_B, Refusal.STALE_FX, Refusal.FX_OUT_OF_RANGE, Refusal.CLOCK_OFFSET,
        Refusal.VENUE_UNHEALTHY, Refusal.ASSET_UNKNOWN, Refusal.RISK_UNREACHABLE,
        Refusal.STORE_UNAVAILABLE, Refusal.DRAINING,
    }
)  # fmt: skip
"""
Refusals that tell of a fault. The others tell of the market (no edge, books of different moments),
of the strategy's own pace (warming up after a start, cooling down), or of a bound that is met.
"""

LEASE_AGE_S = 2.5  # renewed every second
LEASE_SQL = "SELECT (arb.now_ns() - renewed_ns) / 1e9 FROM arb.risk_lease"


class Look(msgspec.Struct, frozen=True):
    """What was seen at one moment; ``problems`` is empty when all trade."""

    at_s: float  # monotonic
    asked_s: float  # when the supervisor had asked every actor: older news tell nothing
    problems: tuple[str, ...]
    decisions: dict[str, int]
    risk: dict[str, object]


def what_is_wrong(
    status: SystemStatus, symbols: tuple[str, ...], lease_age_s: float | None
) -> tuple[str, ...]:
    """Return why not all trade on fresh books, in sentences."""
    problems = list(judge(status).problems)
    if status.age_s is not None and status.age_s > STATUS_AGE_S:
        problems.append(f"the status is {status.age_s:.1f} s old")
    if lease_age_s is None or lease_age_s > LEASE_AGE_S:
        problems.append("the guard's lease was not renewed")
    rows = {row.symbol: row for host in status.hosts.values() for row in host.rows}
    for symbol in symbols:
        row = rows.get(symbol)
        if row is None:
            problems.append(f"{symbol} has no row")
        elif max(row.age_a_ms, row.age_b_ms) > FRESH_MS:
            problems.append(f"{symbol}: books {row.age_a_ms:.0f} and {row.age_b_ms:.0f} ms old")
        elif row.phase == "idle" and row.refusal in HELD_UP:
            problems.append(f"{symbol}: no entry because {row.refusal}")
    return tuple(problems)


def above_the_limit(risk: dict[str, object]) -> str:
    """Return how the guard's own figures break the promise; empty when they hold it."""
    if not risk.get("ready"):
        return ""
    loss = Decimal(str(risk["daily_loss_usdt"]))
    reserved = Decimal(str(risk["reserved_usdt"]))
    limit = Decimal(str(risk["daily_limit_usdt"]))
    if loss + reserved <= limit or not reserved:
        return ""  # without a reservation it is a gap's loss, which the audit judges
    return f"loss {loss} and reserved {reserved} are above the limit {limit}"


class Watch:
    """A thread that looks and remembers the newest; what breaks the promise is kept for good."""

    def __init__(self, gateway_port: int, symbols: tuple[str, ...], dsn: str) -> None:
        self._url = f"http://127.0.0.1:{gateway_port}/status"
        self._symbols, self._dsn = symbols, dsn
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._session = requests.Session()
        self.newest: Look | None = None
        self.above: list[str] = []
        self.looks = 0

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join(15)

    def _run(self) -> None:
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            while not self._over.is_set():
                self.newest = self._look(connection)
                self.looks += 1
                self._over.wait(POLL_S)

    def _look(self, connection) -> Look:
        at_s = time.monotonic()
        try:
            answer = self._session.get(self._url, timeout=3)
            status = msgspec.json.decode(answer.content, type=SystemStatus)
        except (requests.RequestException, msgspec.DecodeError) as error:
            return Look(
                at_s, at_s, (f"the Gateway does not answer: {type(error).__name__}",), {}, {}
            )
        row = connection.execute(LEASE_SQL).fetchone()
        problems = what_is_wrong(status, self._symbols, float(row[0]) if row else None)
        if told := above_the_limit(status.risk):
            self.above.append(told)
        decisions = {name: host.decisions for name, host in status.hosts.items()}
        return Look(at_s, at_s - (status.age_s or 0.0), problems, decisions, status.risk)

    def until_well(self, since_s: float, is_replaced, timeout_s: float) -> tuple[float, str]:
        """
        Wait until all trade again, with everything seen after ``since_s``.

        Returns:
            Seconds from ``since_s``, and what still was wrong when the time was over, or "".
        """
        before: dict[str, int] | None = None
        replaced_s: float | None = None
        why = "nothing was seen"
        while time.monotonic() < since_s + timeout_s:
            look = self.newest
            if replaced_s is None and _is(is_replaced):
                replaced_s = time.monotonic() if is_replaced is not at_once else since_s
            if replaced_s is None:
                why = "the victim was not replaced"
            elif look is None or look.asked_s < replaced_s:
                why = "not looked at since"
            elif look.problems:
                before, why = None, "; ".join(look.problems[:4])
            elif before is None or before.keys() != look.decisions.keys():
                before, why = look.decisions, "not seen deciding"
            elif any(look.decisions[name] <= before[name] for name in before):
                why = "a host decides nothing"
            else:
                return look.at_s - since_s, ""
            time.sleep(POLL_S / 2)
        return time.monotonic() - since_s, why


def _is(is_replaced) -> bool:
    try:
        return is_replaced()
    except (LookupError, requests.RequestException):
        return False
