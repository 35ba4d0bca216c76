ALTER TABLE arb.risk_events DROP COLUMN flatten;
