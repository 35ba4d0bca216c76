-- depends: 0003.risk_limits 0004.flatten_orders

-- What trades earned, for people who read the ledger. The figures are those that were settled,
-- with the rates that the trade stated; arb-ray audit holds them against the postings. A trade
-- belongs to the session that reserved it and to the UTC day in which it closed. One that
-- filled nothing is none: it has no turnover and realized 0.
CREATE VIEW arb.trade_pnl AS
    SELECT t.env, t.trade_id, t.symbol, r.session_id,
           date '1970-01-01' + (t.closed_ns / 86400000000000)::integer AS day,
           t.opened_ns, t.closed_ns, t.exit_reason, t.notional_usdt, t.realized_usdt,
           t.spread_usdt, t.fx_usdt, t.fees_usdt, t.slippage_usdt, t.funding_usdt,
           greatest(0, -t.realized_usdt - r.worst_loss_usdt) AS gap_loss_usdt
    FROM arb.trades AS t LEFT JOIN arb.reservations AS r USING (env, trade_id)
    WHERE t.status = 'closed' AND t.outcome = 'posted'
        AND (t.notional_usdt <> 0 OR t.realized_usdt <> 0);

DO $$
DECLARE
    word text;
BEGIN
    FOREACH word IN ARRAY ARRAY['symbol', 'day', 'session'] LOOP
        EXECUTE format(
            'CREATE VIEW arb.%I AS
             SELECT env, %I, count(*) AS trades, sum(notional_usdt) AS notional_usdt,
                    sum(realized_usdt) AS realized_usdt, sum(spread_usdt) AS spread_usdt,
                    sum(fx_usdt) AS fx_usdt, sum(fees_usdt) AS fees_usdt,
                    sum(slippage_usdt) AS slippage_usdt, sum(funding_usdt) AS funding_usdt,
                    sum(gap_loss_usdt) AS gap_loss_usdt, max(closed_ns) AS last_closed_ns
             FROM arb.trade_pnl GROUP BY 1, 2',
            word || '_pnl', CASE word WHEN 'session' THEN 'session_id' ELSE word END);
    END LOOP;
END
$$;

-- Days are found by trades_closed; a session's trades by this.
CREATE INDEX reservations_session ON arb.reservations (env, session_id);
