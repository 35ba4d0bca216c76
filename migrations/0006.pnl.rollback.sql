DROP INDEX arb.reservations_session;
DROP VIEW arb.session_pnl;
DROP VIEW arb.day_pnl;
DROP VIEW arb.symbol_pnl;
DROP VIEW arb.trade_pnl;
