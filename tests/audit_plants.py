"""Wrong rows for every table and every check of the audit, and the words that must name them."""

from __future__ import annotations

from typing import NamedTuple


class Plant(NamedTuple):
    """A wrong row: in which table, how, which check must find it, and by which words."""

    table: str
    check: str
    words: str
    sql: str


def _limits(name, value):
    return (
        f"UPDATE risk_limits SET limits = jsonb_set(limits::jsonb, '{{{name}}}', '{value}')::json"
    )


def in_plan(old, new, trade="dev:BTC:1"):
    return (
        f"UPDATE trade_events SET event = replace(event::text, '{old}', '{new}')::json"
        f" WHERE trade_id = '{trade}' AND seq = 0"
    )


FILL = "UPDATE fills SET {} WHERE fill_id = 'dev:BTC:1:0:0'"
TRADE = "UPDATE trades SET {} WHERE trade_id = 'dev:BTC:1'"
RESERVATION = "UPDATE reservations SET {} WHERE trade_id = 'dev:BTC:2'"
GIFT = (
    "INSERT INTO entries (env, entry_id, kind, symbol, trade_id, epoch, at_ns, posting_count,"
    " digest) VALUES ('dev', '{0}', '{1}', {2}, {3}, 1, 1, 2, sha256('x'));"
    "INSERT INTO postings (env, entry_id, line, trade_id, venue, account, asset, amount)"
    " VALUES ('dev', '{0}', 0, {3}, 'upbit', 'market', 'KRW', -7),"
    " ('dev', '{0}', 1, {3}, 'upbit', 'free', 'KRW', 7)"
)
EVENT = (
    "INSERT INTO risk_events (env, epoch, state, reason, actor, at_ns, recorded_ns)"
    " VALUES ('dev', {}, '{}', 'because', '{}', {}, {})"
)

FLATTEN = (
    "INSERT INTO risk_events (env, epoch, state, reason, actor, at_ns, flatten)"
    " VALUES ('dev', 2, '{}', 'because', '{}', 1, '{}')"
)

SESSION = (
    "INSERT INTO sessions (env, session_id, source, started_ns, closed_ns)"
    " VALUES ('dev', 's', 'sim', 1, 2)"
)
QUARANTINE = (
    "INSERT INTO snapshot_quarantine (env, session_id, symbol, at_ns, batch_id, table_name, crc32,"
    " payload, reason) SELECT env, session_id, symbol, at_ns, batch_id, {} FROM session_snapshots"
)
TUNED = (
    "INSERT INTO tuning_results (env, run_id, trial, at, at_ns, parameters, scores) SELECT 'dev',"
    " 'run', {}, {}, (extract(epoch FROM now()) * 1000000)::bigint * 1000, {}, '{{}}'"
)

PLANTS = (
    # Double entry
    Plant("postings", "entries.balance", "fill:dev:BTC:1:0:0: its postings of BTC sum to 1",
          "UPDATE postings SET amount = amount + 1 WHERE (entry_id, line)"
          " = ('fill:dev:BTC:1:0:0', 0)"),
    Plant("postings", "assets.balance", "asset BTC: all its postings sum to 1",
          "UPDATE postings SET amount = amount + 1 WHERE (entry_id, line)"
          " = ('fill:dev:BTC:1:0:0', 0)"),
    Plant("postings", "entries.whole", "entry ghost: it has 1 postings and no row",
          "INSERT INTO postings (env, entry_id, line, venue, account, asset, amount)"
          " VALUES ('dev', 'ghost', 0, 'upbit', 'free', 'KRW', 0)"),
    Plant("postings", "entries.whole", "name another trade than dev:BTC:1",
          "UPDATE postings SET trade_id = 'dev:BTC:2' WHERE entry_id = 'hold:dev:BTC:1'"),
    Plant("entries", "entries.whole", "postings where 1 were declared",
          "UPDATE entries SET posting_count = 1 WHERE entry_id = 'hold:dev:BTC:1'"),
    Plant("entries", "entries.digest", "entry hold:dev:BTC:1: its content does not meet",
          "UPDATE entries SET digest = sha256('x') WHERE entry_id = 'hold:dev:BTC:1'"),
    Plant("postings", "entries.digest", "entry hold:dev:BTC:1: its content does not meet",
          "UPDATE postings SET venue = 'binance_spot' WHERE entry_id = 'hold:dev:BTC:1'"),
    Plant("free_totals", "free.totals", "the running total says 7, its postings sum to",
          "UPDATE free_totals SET amount = 7 WHERE asset = 'KRW'"),
    Plant("entries", "entries.kind", "nobody knows its kind 'gift'",
          GIFT.format("gift:1", "gift", "NULL", "NULL")),
    Plant("entries", "entries.kind", "there is no trade dev:BTC:77",
          GIFT.format("fill:dev:BTC:77:0:0", "fill", "'BTC'", "'dev:BTC:77'")),
    Plant("trade_events", "trades.dust",
          "trade dev:BTC:1: it takes 1 BTC of dust along at upbit, where",
          in_plan('"dust_a":"0"', '"dust_a":"1"')),
    # Replay
    Plant("entries", "entries.dated", "entry fill:dev:BTC:1:0:0: it is dated 5, and what it books",
          "UPDATE entries SET at_ns = 5 WHERE entry_id = 'fill:dev:BTC:1:0:0'"),
    Plant("entries", "entries.dated", "entry release:dev:BTC:1: it is dated 5",
          "UPDATE entries SET at_ns = 5 WHERE entry_id = 'release:dev:BTC:1'"),
    Plant("risk_events", "risk.events", "nobody ever owned DOGE",
          FLATTEN.format("active", "ann", "DOGE")),
    Plant("risk_events", "risk.events", "to flatten BTC made the guard halted",
          FLATTEN.format("halted", "ann", "BTC")),
    Plant("risk_events", "risk.events", "no operator says to flatten BTC",
          FLATTEN.format("active", "guard", "BTC")),
    Plant("entries", "postings.explained", "entry fill:ghost: 7 KRW on free of upbit are booked",
          GIFT.format("fill:ghost", "fill", "'BTC'", "'dev:BTC:1'")),
    Plant("postings", "postings.explained", "entry release:dev:BTC:1",
          "DELETE FROM postings WHERE entry_id = 'release:dev:BTC:1'"),
    Plant("entries", "balances.replayed", "balance of KRW on free at upbit",
          GIFT.format("fill:ghost", "fill", "'BTC'", "'dev:BTC:1'")),
    Plant("entries", "openings.once", "opening of KRW at upbit: it was booked 2 times",
          GIFT.format("opening:again", "opening", "NULL", "NULL")),
    Plant("postings", "openings.once", "it touches other accounts",
          "UPDATE postings SET account = 'held' WHERE (entry_id, line) = ('opening:upbit:KRW', 1)"),
    Plant("trade_events", "postings.explained", "entry funding:dev:PEPE:1",
          "UPDATE trade_events SET event = jsonb_set(event::jsonb, '{rate}', '\"0.5\"')::json"
          " WHERE event->>'type' = 'FundingPaid'"),
    # Trades
    Plant("trades", "trades.complete", "trade dev:BTC:9: it has no reservation",
          "INSERT INTO trades (env, trade_id, symbol, status, outcome, closed_ns, realized_usdt,"
          " notional_usdt) VALUES ('dev', 'dev:BTC:9', 'BTC', 'closed', 'voided', 1, 0, 0)"),
    Plant("trades", "trades.complete", "was opened at 5 and granted at 1",
          TRADE.format("opened_ns = 5")),
    Plant("reservation_outcomes", "trades.complete", "dev:BTC:1: it is closed and its reservation",
          "DELETE FROM reservation_outcomes WHERE trade_id = 'dev:BTC:1'"),
    Plant("trades", "reservations.trade", "reservation dev:BTC:1: it was granted and there is no",
          "DELETE FROM trades WHERE trade_id = 'dev:BTC:1'"),
    Plant("reservations", "outcomes.reservation", "dev:BTC:1: it was posted and never granted",
          "DELETE FROM reservations WHERE trade_id = 'dev:BTC:1'"),
    Plant("orders", "orders.trade", "order dev:BTC:77:0: there is no trade dev:BTC:77",
          "INSERT INTO orders SELECT schema, env, 'dev:BTC:77:0', 'dev:BTC:77', symbol,"
          " owner_epoch, instrument, side, qty, limit_price, decision_price, purpose, decided_ns,"
          " request, recorded_ns FROM orders WHERE client_order_id = 'dev:BTC:1:0'"),
    Plant("order_reports", "orders.trade", "dev:BTC:1:0: its trade is closed and it has no last",
          "DELETE FROM order_reports WHERE client_order_id = 'dev:BTC:1:0'"),
    Plant("order_reports", "orders.trade", "its last word is cancelled",
          "UPDATE order_reports SET status = 'cancelled' WHERE client_order_id = 'dev:BTC:1:0'"),
    Plant("orders", "orders.trade", "market upbit:ETH-KRW is not of its trade",
          "UPDATE orders SET instrument = 'upbit:ETH-KRW' WHERE client_order_id = 'dev:BTC:1:0'"),
    Plant("order_reports", "reports.order", "report of ghost: there is no such order",
          "INSERT INTO order_reports (env, client_order_id, owner_epoch, status, reason, at_ns,"
          " report) VALUES ('dev', 'ghost', 1, 'cancelled', '', 1, '{}')"),
    Plant("fills", "fills.order", "fill ghost: there is no order nobody",
          "INSERT INTO fills (env, fill_id, client_order_id, owner_epoch, price, qty, fee_amount,"
          " fee_asset, at_ns, book_slice) VALUES ('dev', 'ghost', 'nobody', 1, 1, 1, 0, 'KRW', 1,"
          " '[]')"),
    Plant("fills", "fills.order", "fill dev:BTC:1:0:0: it is of 5", FILL.format("at_ns = 5")),
    Plant("postings", "trades.released", "dev:BTC:1: it is closed and",
          "DELETE FROM postings WHERE entry_id = 'release:dev:BTC:1'"),
    Plant("reservations", "trades.one_open", "dev:BTC:2 was granted while dev:BTC:1 was open",
          "UPDATE reservations SET recorded_ns = 1 + (SELECT recorded_ns FROM reservations"
          " WHERE trade_id = 'dev:BTC:1') WHERE trade_id = 'dev:BTC:2'"),
    Plant("trades", "trades.one_open", "dev:BTC:5 was granted while dev:BTC:4 was open",
          "DROP INDEX trades_one_open; INSERT INTO trades (env, trade_id, symbol)"
          " VALUES ('dev', 'dev:BTC:5', 'BTC')"),
    # Fills
    Plant("fills", "fills.fee", "fill dev:BTC:1:0:0: a fee of",
          FILL.format("fee_amount = fee_amount + 0.00000001")),
    Plant("fills", "fills.fee", "BTC was booked where", FILL.format("fee_asset = 'BTC'")),
    Plant("trade_events", "fills.fee", "says a fee of 4 bps from quote, the schedule 5 bps",
          in_plan('"taker_bps":"5"', '"taker_bps":"4"')),
    Plant("trade_events", "fills.fee", "fill dev:BTC:1:0:0: a fee of",
          in_plan('"taker_bps":"5","fee_asset":"quote","valid_from_ns":0,"source":""',
                   '"taker_bps":"4","fee_asset":"quote","valid_from_ns":0,'
                   '"source":"configuration"')),
    Plant("fills", "fills.grid", "off the tick grid of 1000", FILL.format("price = price + 1")),
    Plant("fills", "fills.grid", "off the lot grid of 1E-8",
          FILL.format("qty = qty + 0.000000001")),
    Plant("orders", "fills.grid", "order dev:BTC:1:0: notional",
          "UPDATE orders SET qty = 0.00000001 WHERE client_order_id = 'dev:BTC:1:0'"),
    Plant("fills", "fills.book", "where the book showed", FILL.format("price = price - 1000")),
    Plant("fills", "fills.book", "fill dev:BTC:1:0:0: it is of", FILL.format("qty = 1000")),
    Plant("fills", "fills.book", "no book was kept", FILL.format("book_slice = '[]'")),
    Plant("fills", "fills.book", "not sorted",
          FILL.format("book_slice = jsonb_build_array(book_slice->0, book_slice->0)")),
    Plant("orders", "fills.book", "is beyond the limit of 1",
          "UPDATE orders SET limit_price = CASE side WHEN 'buy' THEN 1 ELSE 1000000000000 END"
          " WHERE client_order_id = 'dev:BTC:1:0'"),
    # PnL
    *(
        Plant("trades", check, "trade dev:BTC:1: " + words, TRADE.format(f"{column} = {column} + 1"))
        for column, check, words in (
            ("realized_usdt", "pnl.postings", ""),
            ("realized_usdt", "pnl.sum", "its parts sum to"),
            ("spread_usdt", "pnl.parts", "its spread is"),
            ("fx_usdt", "pnl.parts", "its FX part is"),
            ("fees_usdt", "pnl.parts", "its fees are"),
            ("slippage_usdt", "pnl.parts", "its slippage is"),
            ("funding_usdt", "pnl.parts", "its funding is"),
            ("notional_usdt", "pnl.parts", "its turnover is"),
        )
    ),
    Plant("trade_events", "pnl.postings", "trade dev:BTC:1",
          "UPDATE trade_events SET event = jsonb_set(event::jsonb, '{fx_mid_krw}', '\"1000\"')"
          "::json WHERE event->>'type' = 'ExitDecided'"),
    # Risk
    Plant("risk_limits", "risk.daily_loss", "pass the daily limit of 10",
          _limits("daily_loss_usdt", '"10"')),
    Plant("risk_limits", "risk.daily_loss", "lost on BTC that day",
          _limits("symbol_daily_loss_usdt", '"12"')),
    Plant("reservations", "risk.daily_loss", "grant of dev:BTC:2: ",
          RESERVATION.format("worst_loss_usdt = 1000001")),
    Plant("reservation_outcomes", "risk.daily_loss", "1000000",
          "UPDATE reservation_outcomes SET realized_usdt = -1000000 WHERE trade_id = 'dev:BTC:1'"),
    Plant("risk_limits", "risk.sizes", "it is the 1. open trade of at most 0",
          _limits("open_trades_count", "0")),
    Plant("reservations", "risk.sizes", "its notional of 5000 USDT passes",
          RESERVATION.format("notional_usdt = 5000")),
    Plant("risk_limits", "risk.sizes", "of notional are open, 3 are the limit",
          _limits("total_notional_usdt", '"3"')),
    Plant("reservations", "risk.grants", "the yes came", RESERVATION.format("granted_ns = 2^60")),
    Plant("reservations", "risk.grants", "it reserved 0 USDT",
          RESERVATION.format("worst_loss_usdt = 0")),
    Plant("risk_events", "risk.state", "ms after operator made the guard halted (because)",
          EVENT.format(1, "halted", "operator", 0, 1)),
    Plant("risk_events", "risk.events", "the guard made itself active after halted",
          EVENT.format(2, "halted", "operator", 1, "now_ns()") + ";"
          + EVENT.format(2, "active", "guard", 1, "now_ns()")),
    Plant("risk_events", "risk.events", "nobody says who",
          EVENT.format(2, "active", "", 1, "now_ns()")),
    Plant("reservations", "risk.gaps", "and nothing was halted",
          "UPDATE reservations SET worst_loss_usdt = 0.0001"),
    Plant("risk_events", "risk.gaps", "and nothing was halted for it",
          "UPDATE reservations SET worst_loss_usdt = 0.0001; INSERT INTO risk_events (env, epoch,"
          " state, reason, actor, at_ns, recorded_ns) SELECT 'dev', 1, state, reason, actor, 1,"
          " (SELECT min(recorded_ns) + 1 FROM reservations) FROM (VALUES ('halted',"
          " 'gap_loss: another lost more', 'guard'), ('active', 'seen', 'operator'))"
          " AS earlier(state, reason, actor)"),
    Plant("risk_limits", "risk.pace", "it is the 1. of a minute of at most 0",
          _limits("entries_per_minute_count", "0")),
    Plant("risk_limits", "risk.pace", "below its best, 0 are the limit",
          _limits("drawdown_usdt", '"0"')),
    Plant("risk_limits", "risk.limits", "no guard ever had it",
          "INSERT INTO risk_limits (env, epoch, limits) VALUES ('dev', 99, '{}')"),
    # Epochs
    Plant("reservations", "epochs.guard", "under guard epoch 99, and the lease is at 2",
          RESERVATION.format("epoch = 99")),
    Plant("risk_events", "epochs.guard", "under guard epoch 1 after 2 had taken over",
          EVENT.format(1, "active", "operator", 1, "now_ns()")),
    Plant("risk_lease", "epochs.guard", "and the lease is at 1",
          "UPDATE risk_lease SET epoch = 1"),
    Plant("orders", "epochs.owner", "order dev:BTC:1:0: it was written under epoch 7 of BTC",
          "UPDATE orders SET owner_epoch = 7 WHERE client_order_id = 'dev:BTC:1:0'"),
    Plant("fills", "epochs.owner", "fill dev:BTC:1:0:0: it was written under epoch 0",
          FILL.format("owner_epoch = 0")),
    Plant("symbol_owners", "epochs.owner", "whose owner is at 0",
          "DELETE FROM symbol_owners WHERE symbol = 'BTC'"),
    Plant("risk_lease", "epochs.leases", "guard's lease: epoch 2",
          "UPDATE risk_lease SET holder = ''"),
    Plant("symbol_owners", "epochs.leases", "owner of BTC", "UPDATE symbol_owners SET owner = ''"),
    # Journal
    Plant("trade_events", "journal.whole", "trade dev:BTC:1: its journal has",
          "DELETE FROM trade_events WHERE (trade_id, seq) = ('dev:BTC:1', 1)"),
    Plant("trade_events", "journal.whole", "begins with Settled, not with a plan",
          "INSERT INTO trade_events (env, trade_id, seq, symbol, owner_epoch, event) VALUES"
          " ('dev', 'dev:BTC:9', 0, 'BTC', 1, '{\"type\":\"Settled\",\"schema\":1}')"),
    Plant("trade_events", "journal.whole", "an event of unknown type 'Wish'",
          "INSERT INTO trade_events SELECT schema, env, trade_id, max(seq) OVER () + 1, symbol,"
          " owner_epoch, '{\"type\":\"Wish\",\"schema\":1}', recorded_ns FROM trade_events"
          " WHERE trade_id = 'dev:BTC:1' ORDER BY seq DESC LIMIT 1"),
    Plant("trade_numbers", "journal.plan", "only 1 numbers of BTC were ever given out",
          "UPDATE trade_numbers SET last_number = 1 WHERE symbol = 'BTC'"),
    Plant("trade_events", "journal.plan", "its reservation is not the one",
          in_plan('"worst_loss_usdt":"', '"worst_loss_usdt":"9')),
    Plant("trade_events", "journal.markets", "has multiplier 1000 and is called BTC",
          in_plan('"multiplier":"1"', '"multiplier":"1000"')),
    Plant("fills", "journal.fills", "the journal of trade dev:BTC:1 has it and the ledger does not",
          "DELETE FROM fills WHERE fill_id = 'dev:BTC:1:0:0'"),
    Plant("fills", "journal.fills", "fill dev:BTC:1:0:0: 1000 at", FILL.format("qty = 1000")),
    # Records
    Plant("reservations", "records.reservations", "reservation dev:BTC:2: its columns",
          RESERVATION.format("worst_loss_usdt = worst_loss_usdt + 1")),
    Plant("sessions", "records.reservations", "there is no session", "DELETE FROM sessions"),
    Plant("orders", "records.orders", "order dev:BTC:1:0: its columns and its request differ",
          "UPDATE orders SET decision_price = 1 WHERE client_order_id = 'dev:BTC:1:0'"),
    Plant("order_reports", "records.reports", "report of dev:BTC:1:0: its columns",
          "UPDATE order_reports SET reason = 'x' WHERE client_order_id = 'dev:BTC:1:0'"),
    Plant("fills", "records.reports", "report of dev:BTC:1:0: it tells of",
          "DELETE FROM fills WHERE fill_id = 'dev:BTC:1:0:0'"),
    Plant("fills", "records.fills", "fill dev:BTC:1:0:0: it is not what the report",
          FILL.format("book_slice = '[[\"1\", \"1\"]]'")),
    Plant("reservation_outcomes", "records.outcomes", "outcome of dev:BTC:1: its columns",
          "UPDATE reservation_outcomes SET realized_usdt = 7 WHERE trade_id = 'dev:BTC:1'"),
    Plant("trades", "records.outcomes", "what was settled and what its trade says differ",
          TRADE.format("exit_reason = 'whim'")),
    Plant("trade_numbers", "records.numbers", "trade numbers of BTC: 4 is in use",
          "DELETE FROM trade_numbers WHERE symbol = 'BTC'"),
    Plant("trade_numbers", "records.numbers", "trade numbers of DOGE: 3 were given out",
          "INSERT INTO trade_numbers VALUES ('dev', 'DOGE', 3)"),
    Plant("sessions", "records.sessions", "closed before it was started",
          "UPDATE sessions SET closed_ns = started_ns - 1"),
    Plant("sessions", "records.sessions", "another one is open too",
          "DROP INDEX sessions_one_open; INSERT INTO sessions (env, session_id, source, started_ns)"
          " VALUES ('dev', 's', 'sim', 9)"),
    Plant("session_runs", "records.runs", "of session s: it ended before it began",
          f"{SESSION}; INSERT INTO session_runs (env, session_id, holder, started_ns, ended_ns, ending)"
          " VALUES ('dev', 's', 'h', 2, 1, 'clean')"),
    Plant("session_runs", "records.runs", "of session s: a later one was begun while it was open",
          f"{SESSION}; DROP INDEX session_runs_one_open;"
          " INSERT INTO session_runs (env, session_id, holder, started_ns)"
          " VALUES ('dev', 's', 'h', 1), ('dev', 's', 'h', 2)"),
    Plant("topology", "records.topology", "topology 7: it is the 3. of its environment",
          "INSERT INTO topology (env, version, desired) VALUES ('dev', 7, '{}')"),
    Plant("tuning_results", "records.tuning", "tuning result run/1",
          TUNED.format("1", "now()", "'[]'")),
    Plant("tuning_results", "records.tuning", "run/1: it does not lie at its instant",
          TUNED.format("1", "now() + interval '1 second'", "'{}'")),
    Plant("tuning_results", "records.tuning", "run/1: its trial was never claimed",
          TUNED.format("1", "now()", "'{}'")),
    Plant("tuning_results", "records.tuning", "run/1: it is there twice",
          "; ".join([TUNED.format("1", "now()", "'{}'")] * 2)),
    Plant("tuning_results", "schema.triggers", "tuning_results: its trigger claims_its_trial is",
          "ALTER TABLE tuning_results DISABLE TRIGGER claims_its_trial"),
    Plant("tuning_trials", "records.tuning", "run/1: its trial was never claimed",
          "INSERT INTO tuning_trials (schema, env, run_id, trial) VALUES (2, 'dev', 'run', 1);"
          + TUNED.format("1", "now()", "'{}'")),
    # Snapshots
    Plant("snapshot_batches", "snapshots.batches", "of a batch that was never written",
          "DELETE FROM snapshot_batches"),
    Plant("snapshot_batches", "snapshots.batches", "4 rows where the batch had 3",
          "UPDATE snapshot_batches SET row_count = 3"),
    *(
        Plant(table, "snapshots.checksum", f"{table} dev:1 at 1: it does not meet its checksum",
              f"UPDATE {table} SET payload = '{{\"ok\":\"wrong\"}}'")
        for table in ("session_snapshots", "position_snapshots", "metrics_snapshots",
                      "risk_guard_snapshots")
    ),
    Plant("snapshot_quarantine", "snapshots.quarantine", "there is no table of snapshots trades",
          QUARANTINE.format("'trades', 1, '{}', 'r'")),
    Plant("snapshot_quarantine", "snapshots.quarantine", "quarantine dev:1 at 1: it has no reason",
          QUARANTINE.format("'session_snapshots', 1, '{}', ''")),
    Plant("snapshot_quarantine", "snapshots.quarantine", "its row in session_snapshots is another",
          QUARANTINE.format("'session_snapshots', 1, '{}', 'r'")),
    # The database's own guards
    Plant("fills", "schema.triggers", "table fills: its trigger append_only is switched off",
          "ALTER TABLE fills DISABLE TRIGGER append_only"),
    Plant("trades", "schema.triggers", "table trades: its trigger only_close is missing",
          "DROP TRIGGER only_close ON trades"),
    Plant("orders", "schema.triggers", "table orders: its trigger append_only is another one",
          "DROP TRIGGER append_only ON orders; CREATE TRIGGER append_only BEFORE DELETE ON orders"
          " FOR EACH ROW EXECUTE FUNCTION refuse_change()"),
    Plant("trades", "schema.keys", "index trades_one_open", "DROP INDEX trades_one_open"),
    Plant("postings", "schema.keys", "table postings: it has no primary key",
          "ALTER TABLE postings DROP CONSTRAINT postings_pkey"),
    Plant("fills", "schema.keys", "table fills: nothing keeps NaN",
          "ALTER TABLE fills DROP CONSTRAINT finite"),
    Plant("trade_numbers", "schema.triggers", "trade_numbers: its trigger numbers_only_grow is",
          "ALTER TABLE trade_numbers DISABLE TRIGGER numbers_only_grow"),
    Plant("entries", "schema.functions", "function refuse_change: it is missing, or refuses",
          "CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS"
          " $$ BEGIN RETURN NEW; END $$"),
    Plant("entries", "schema.functions", "which switches every trigger off",
          "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET session_replication_role = replica',"
          " current_database()); END $$"),
)  # fmt: skip
