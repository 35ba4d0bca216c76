DROP TABLE arb.risk_limits;
