DROP TABLE arb.snapshot_quarantine;
DROP TABLE arb.session_runs;
