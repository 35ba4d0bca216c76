-- depends: 0004.flatten_orders

-- What a trade lost beyond its reservation: the only way past the daily limit. A view, as
-- balances are, so that it can never say anything else than the settlement and the reservation.
CREATE VIEW arb.gap_losses AS
    SELECT o.env, o.trade_id, r.session_id, o.symbol, o.closed_ns,
           to_char(to_timestamp(o.closed_ns / 1000000000) AT TIME ZONE 'UTC', 'YYYY-MM-DD') AS day,
           r.worst_loss_usdt AS reserved_usdt, -o.realized_usdt AS loss_usdt,
           -o.realized_usdt - r.worst_loss_usdt AS gap_loss_usdt
    FROM arb.reservation_outcomes AS o JOIN arb.reservations AS r USING (env, trade_id)
    WHERE o.kind = 'posted' AND -o.realized_usdt > r.worst_loss_usdt;
