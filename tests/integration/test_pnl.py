"""Profit by trade, symbol, day and session: the views, the command, and RiskGuard's own figure."""

import asyncio
import csv
import datetime as dt
import io
import json
from decimal import Decimal

import msgspec
import pytest

from arb_ray.adapters.storage import pnl_records
from arb_ray.adapters.storage.pnl_records import FIGURES, By, PnlScope, read_pnl
from arb_ray.cli.main import main
from arb_ray.domain.errors import BadInput
from arb_ray.domain.ledger import NO_PNL
from arb_ray.domain.risk_intent import SettleKind, Settlement
from arb_ray.engine.postings import hold_entry
from arb_ray.engine.risk import RiskBook
from arb_ray.engine.risk_limits import DAY_NS
from tests.integration.conftest import an_intent, execute, opening
from tests.ledger_world import LedgerWorld
from tests.risk_world import LIMITS
from tests.trade_world import BTC_PERP, BTC_SPOT, PEPE_PERP, make_plan

D = Decimal
DAY = 20_000  # days since 1970: 2024-10-04
DAY_NAME = "2024-10-04"
NOON = DAY * DAY_NS + DAY_NS // 2


class Books:
    """Trades with chosen figures, through the guard's store."""

    def __init__(self, postgres, env):
        self.world = LedgerWorld(postgres, env)
        self.count = 0

    async def start(self):
        await self.world.take_over()
        await self.world.risk.open_balances(self.world.epoch, opening())
        await self.world.resume()
        return self

    async def open(self, symbol="BTC", worst="100", granted_ns=NOON - 10):
        self.count += 1
        trade_id = f"{symbol}-{self.count}"
        owner = await self.world.ledger.claim_symbol(symbol, "host")
        intent = an_intent(
            trade_id,
            owner,
            symbol=symbol,
            hold="1",
            session_id=self.world.session_id,
            worst_loss_usdt=D(worst),
        )
        hold = hold_entry(intent, granted_ns)
        await self.world.risk.grant(self.world.epoch, intent, hold, granted_ns)
        return trade_id

    async def close(self, trade_id, spread, fees="-1", at_ns=NOON, notional="50"):
        parts = msgspec.structs.replace(NO_PNL, spread=D(spread), fees=D(fees))
        settlement = Settlement(
            trade_id, trade_id.split("-")[0], SettleKind.POSTED, parts, parts.total, -parts.fees,
            D(notional), at_ns, "take_profit",
        )  # fmt: skip
        await self.world.risk.settle(self.world.epoch, settlement)

    async def trade(self, spread, symbol="BTC", at_ns=NOON, worst="100", **more):
        await self.close(await self.open(symbol, worst), spread, at_ns=at_ns, **more)

    async def new_session(self):
        """Go on under another session, whatever is open."""
        self.world.session_id = f"later-{self.count}"
        async with self.world.postgres.transaction("a session") as connection:
            await connection.execute(
                "INSERT INTO arb.sessions (env, session_id, source, started_ns, closed_ns)"
                " VALUES ($1, $2, 'sim', 2, 3)",
                self.world.env,
                self.world.session_id,
            )


@pytest.fixture
async def books(postgres, env):
    return await Books(postgres, env).start()


@pytest.fixture
def ask(postgres, env):
    async def read(by, **scope):
        return await read_pnl(postgres, By(by), PnlScope(env, **scope))

    return read


def keys(report):
    return {row.key: row.realized_usdt for row in report.rows}


async def test_a_trade_counts_for_its_symbol_its_utc_day_and_the_session_that_reserved_it(
    books, ask
):
    first = books.world.session_id
    await books.trade("10", "BTC", at_ns=DAY * DAY_NS - 1)
    await books.trade("20", "BTC", at_ns=DAY * DAY_NS)
    held = await books.open("ETH")
    await books.new_session()
    await books.close(held, "40", at_ns=(DAY + 1) * DAY_NS - 1)
    await books.trade("80", "BTC", at_ns=(DAY + 1) * DAY_NS)
    assert keys(await ask("day")) == {"2024-10-03": 9, DAY_NAME: 58, "2024-10-05": 79}
    assert keys(await ask("symbol")) == {"BTC": 107, "ETH": 39}
    assert keys(await ask("session")) == {first: 67, books.world.session_id: 79}
    assert keys(await ask("trade")) == {"BTC-1": 9, "BTC-2": 19, "ETH-3": 39, "BTC-4": 79}
    for by in By:
        total = (await ask(by)).total
        assert (total.trades, total.realized_usdt, total.spread_usdt) == (4, 146, 150)
        assert (total.fees_usdt, total.notional_usdt, total.funding_usdt) == (-4, 200, 0)


async def test_days_and_a_session_narrow_what_counts_both_ends_included(books, ask):
    first = books.world.session_id
    for day in range(4):
        await books.trade(str(10**day), at_ns=(DAY + day) * DAY_NS + day % 2 * (DAY_NS - 1))
    start = dt.date.fromisoformat(DAY_NAME)
    one, two = start + dt.timedelta(1), start + dt.timedelta(2)
    assert (await ask("day", first_day=one, last_day=two)).total.spread_usdt == 110
    assert (await ask("day", first_day=two)).total.spread_usdt == 1100
    assert (await ask("day", last_day=one)).total.spread_usdt == 11
    await books.new_session()
    assert (await ask("day", session_id=books.world.session_id)).rows == ()
    assert (await ask("day", session_id=first, first_day=two)).total.trades == 2
    with pytest.raises(BadInput, match="has no session nobody"):
        await ask("day", session_id="nobody")


async def test_what_filled_nothing_is_no_trade_and_what_is_open_is_told_apart(books, ask):
    await books.trade("0", fees="0", notional="0")
    first, second = await books.open("BTC"), await books.open("ETH")
    report = await ask("trade")
    assert (report.rows, report.total.trades, report.open_trades) == ((), 0, 2)
    await books.new_session()
    assert (await ask("trade", session_id=books.world.session_id)).open_trades == 0
    await books.close(first, "1")
    await books.close(second, "1")
    assert (await ask("trade")).open_trades == 0


async def test_the_views_say_what_the_command_says(books, ask, shared_dsn, env):
    for number in range(6):
        await books.trade(str(number), "BTC" if number % 2 else "ETH", NOON + number * DAY_NS // 3)
    for by in (By.SYMBOL, By.DAY, By.SESSION):
        key = "session_id" if by is By.SESSION else by
        view = await execute(
            shared_dsn,
            f"SELECT {key}::text AS key, trades, {', '.join(FIGURES)}, last_closed_ns FROM arb.{by}_pnl "
            "WHERE env = $1 ORDER BY 1",
            env,
        )
        assert len(view) > (by is not By.SESSION)
        assert [tuple(row) for row in view] == [
            msgspec.structs.astuple(row) for row in (await ask(by)).rows
        ]


async def test_the_day_by_the_view_is_the_day_by_the_guard(books, ask, shared_dsn, env):
    """Profits, losses, a gap, midnight: one figure, told by RiskGuard's book and by the view."""
    await books.trade("-500", at_ns=DAY * DAY_NS - 1)
    await books.trade("7")
    await books.trade("-30", "ETH", worst="20")
    await books.trade("3", "ETH", at_ns=(DAY + 1) * DAY_NS - 1)
    stored = await books.world.risk.load(books.world.epoch, DAY * DAY_NS, 0, 5)
    book = RiskBook(LIMITS, books.world.epoch, stored, NOON)
    guard = book.status(NOON)
    (row,) = [row for row in (await ask("day")).rows if row.key == guard.day]
    assert (guard.day, row.realized_usdt) == (DAY_NAME, guard.realized_usdt)
    assert row.realized_usdt == -23
    assert max(0, -row.realized_usdt) == guard.daily_loss_usdt
    assert row.gap_loss_usdt == guard.gap_loss_usdt == 11, "it lost 31 of the 20 that were reserved"
    gaps = await execute(
        shared_dsn,
        "SELECT day, sum(gap_loss_usdt) FROM arb.gap_losses WHERE env = $1 GROUP BY 1 ORDER BY 1",
        env,
    )
    assert [tuple(gap) for gap in gaps] == [("2024-10-03", 401), (DAY_NAME, 11)]


async def test_the_parts_sum_to_the_whole_by_whatever_they_are_grouped(postgres, env, ask):
    world = LedgerWorld(postgres, env)
    await world.begin()
    posted = 0
    for seed in range(12):
        pair = (BTC_SPOT, BTC_PERP, PEPE_PERP)[seed % 3]
        life = await world.live(pair, make_plan(pair).direction, seed)
        posted += sum(len(entry.postings) for entry in life.entries.values())
    for by in By:
        report = await ask(by)
        assert report.total.trades > 3
        for row in (*report.rows, report.total):
            parts = sum(getattr(row, f"{p}_usdt") for p in
                        ("spread", "fx", "fees", "slippage", "funding"))  # fmt: skip
            assert abs(parts - row.realized_usdt) <= posted * D("1e-8")
        for name in FIGURES:
            assert sum(getattr(row, name) for row in report.rows) == getattr(report.total, name)


async def test_more_rows_than_the_bound_are_refused_and_not_cut_off(books, ask, monkeypatch):
    monkeypatch.setattr(pnl_records, "ROWS_MAX", 2)
    await books.trade("1")
    await books.trade("1")
    assert len((await ask("trade")).rows) == 2
    await books.trade("1")
    with pytest.raises(BadInput, match="more than 2 rows by trade"):
        await ask("trade")
    assert len((await ask("day")).rows) == 1


PLANTED = """
    INSERT INTO arb.trades (env, trade_id, symbol, status, outcome, closed_ns, notional_usdt,
        realized_usdt, spread_usdt, fx_usdt, fees_usdt, slippage_usdt, funding_usdt)
    SELECT 'big', n::text, 'S' || n % 50, 'closed', 'posted', n * 86400000000000 / 50, 1, 1, 1, 0,
        0, 0, 0 FROM generate_series(1, 20000) AS n;
    INSERT INTO arb.reservations (env, trade_id, symbol, session_id, epoch, owner_epoch,
        worst_loss_usdt, notional_usdt, granted_ns, intent)
    SELECT 'big', n::text, 'S', 's' || n % 200, 1, 1, 1, 1, n, '{}'
    FROM generate_series(1, 20000) AS n;
    ANALYZE arb.trades; ANALYZE arb.reservations
"""


@pytest.mark.parametrize(
    ("scope", "index"),
    [
        (PnlScope("big", first_day=dt.date(1970, 2, 1), last_day=dt.date(1970, 2, 2)),
         "trades_closed"),
        (PnlScope("big", session_id="s7"), "reservations_session"),
    ],
)  # fmt: skip
async def test_a_day_and_a_session_are_found_by_an_index(postgres_dsn, scope, index):
    for statement in PLANTED.split(";"):
        await execute(postgres_dsn, statement)
    where, arguments = pnl_records._where(scope)
    sql = pnl_records._ROWS[By.TRADE].format(where=where, count=100)
    plan = await execute(postgres_dsn, f"EXPLAIN {sql}", *arguments)
    text = "\n".join(row[0] for row in plan)
    assert index in text
    assert "Seq Scan on trades" not in text


async def run_command(*words):
    return await asyncio.to_thread(main, ["pnl", *words])


async def test_the_command_says_it_to_people_and_to_machines(postgres, shared_dsn, capsys):
    books = await Books(postgres, "staging").start()
    at = ("--env", "staging", "--dsn", shared_dsn)
    assert await run_command(*at) == 0
    assert capsys.readouterr().out == "staging: no trades closed.\n"
    await books.trade("1234.00000001")
    await books.trade("-31", "ETH", worst="20")
    await books.open("ETH")
    assert await run_command(*at, "--by", "symbol") == 0
    out = capsys.readouterr().out
    assert "realized = spread + fx + fees + slippage + funding" in out
    lines = [line.split() for line in out.splitlines()]
    assert ["BTC", "1", "50.00", "+1,233.0000", "+1,234.0000", "+0.0000", "-1.0000", "+0.0000",
            "+0.0000"] in lines  # fmt: skip
    assert ["total", "2", "100.00", "+1,201.0000"] in [line[:4] for line in lines]
    assert "Of it 12.0000 USDT were lost beyond reservations" in out
    assert "1 trade is open and not counted." in out
    assert await run_command(*at, "--by", "trade") == 0
    assert "BTC-1  2024-10-04 12:00:00 UTC" in capsys.readouterr().out
    assert await run_command(*at, "--by", "symbol", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["total"]["realized_usdt"] == "1201.00000001"
    assert [row["key"] for row in told["rows"]] == ["BTC", "ETH"]
    assert await run_command(*at, "--by", "trade", "--csv") == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [(row["trade"], D(row["realized_usdt"])) for row in rows] == [
        ("BTC-1", D("1233.00000001")),
        ("ETH-2", D(-32)),
    ]
    assert await run_command(*at, "--from", "2024-10-05", "--to", "2024-10-06") == 0
    out = capsys.readouterr().out
    assert out.startswith("staging, from 2024-10-05, to 2024-10-06: no trades closed.")
    assert await run_command(*at, "--from", "2024-10-05", "--to", "2024-10-04") == 2
    assert await run_command(*at, "--session", "nobody") == 2
    assert "List them: arb-ray sessions list" in capsys.readouterr().err


async def test_the_command_says_what_is_wrong_with_a_database(empty_dsn, capsys):
    assert await run_command("--dsn", empty_dsn) == 3
    assert "Run arb-ray db migrate" in capsys.readouterr().err
    assert await run_command("--dsn", "postgresql://nobody@127.0.0.1:1/none") == 3
    assert await run_command("--data-dir", "/nowhere") == 2
    with pytest.raises(SystemExit, match="2"):
        await run_command("--from", "yesterday")
    assert "'yesterday' is no day. Write YYYY-MM-DD" in capsys.readouterr().err
