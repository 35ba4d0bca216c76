DROP TABLE arb.tuning_results;
DROP FUNCTION arb.ensure_partitions(integer);
DROP FUNCTION arb.ensure_partitions_of(timestamptz);
DROP TABLE arb.risk_guard_snapshots;
DROP TABLE arb.metrics_snapshots;
DROP TABLE arb.position_snapshots;
DROP TABLE arb.session_snapshots;
DROP TABLE arb.snapshot_batches;
