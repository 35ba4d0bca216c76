-- depends: 0001.ledger

-- Batched snapshots, one partition a month. The key that makes a repeated batch a no-op
-- lives in a table without partitions: a partitioned key must contain the time, and would
-- let a repeat pass at a month's end.
CREATE TABLE arb.snapshot_batches (
    schema       smallint NOT NULL DEFAULT 1,
    env          text     NOT NULL,
    batch_id     text     NOT NULL,
    row_count    integer  NOT NULL CHECK (row_count >= 0),
    digest       bytea    NOT NULL,
    recorded_ns  bigint   NOT NULL DEFAULT arb.now_ns(),
    PRIMARY KEY (env, batch_id)
);

CREATE INDEX snapshot_batches_age ON arb.snapshot_batches (recorded_ns);

-- json, not jsonb: ``crc32`` is the checksum of the text as written.
CREATE TABLE arb.session_snapshots (
    schema      smallint    NOT NULL DEFAULT 1,
    env         text        NOT NULL,
    session_id  text        NOT NULL,
    symbol      text        NOT NULL,
    at          timestamptz NOT NULL,
    at_ns       bigint      NOT NULL,
    batch_id    text        NOT NULL,
    crc32       bigint      NOT NULL,
    payload     json        NOT NULL
) PARTITION BY RANGE (at);

CREATE INDEX session_snapshots_newest ON arb.session_snapshots (env, session_id, at DESC);

CREATE TABLE arb.position_snapshots (
    LIKE arb.session_snapshots INCLUDING DEFAULTS
) PARTITION BY RANGE (at);

CREATE INDEX position_snapshots_newest
    ON arb.position_snapshots (env, session_id, symbol, at DESC);

CREATE TABLE arb.metrics_snapshots (
    LIKE arb.session_snapshots INCLUDING DEFAULTS
) PARTITION BY RANGE (at);

CREATE INDEX metrics_snapshots_newest
    ON arb.metrics_snapshots (env, session_id, symbol, at DESC);

CREATE TABLE arb.risk_guard_snapshots (
    LIKE arb.session_snapshots INCLUDING DEFAULTS
) PARTITION BY RANGE (at);

CREATE INDEX risk_guard_snapshots_newest
    ON arb.risk_guard_snapshots (env, session_id, at DESC);

-- Make the partitions of the month of ``moment``; return how many were missing.
CREATE FUNCTION arb.ensure_partitions_of(moment timestamptz) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
    first_day timestamp := date_trunc('month', moment AT TIME ZONE 'UTC');
    parent    text;
    child     text;
    made      integer := 0;
BEGIN
    -- Two callers at once take turns; the second finds the work done.
    PERFORM pg_advisory_xact_lock(hashtext('arb.ensure_partitions'));
    FOREACH parent IN ARRAY ARRAY['session_snapshots', 'position_snapshots',
                                  'metrics_snapshots', 'risk_guard_snapshots']
    LOOP
        child := parent || to_char(first_day, '"_y"YYYY"m"MM');
        IF to_regclass('arb.' || quote_ident(child)) IS NULL THEN
            EXECUTE format(
                'CREATE TABLE arb.%I PARTITION OF arb.%I FOR VALUES FROM (%L) TO (%L)',
                child, parent,
                first_day AT TIME ZONE 'UTC',
                (first_day + interval '1 month') AT TIME ZONE 'UTC');
            made := made + 1;
        END IF;
    END LOOP;
    RETURN made;
END
$$;

-- Make the partitions of this month and of the ``months_ahead`` that follow.
CREATE FUNCTION arb.ensure_partitions(months_ahead integer) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
    this_month timestamp := date_trunc('month', now() AT TIME ZONE 'UTC');
    made       integer := 0;
BEGIN
    IF months_ahead NOT BETWEEN 0 AND 120 THEN
        RAISE EXCEPTION 'months_ahead must lie between 0 and 120, not %', months_ahead;
    END IF;
    FOR month IN 0..months_ahead LOOP
        made := made + arb.ensure_partitions_of(
            (this_month + month * interval '1 month') AT TIME ZONE 'UTC');
    END LOOP;
    RETURN made;
END
$$;

DO $$ BEGIN PERFORM arb.ensure_partitions(2); END $$;

CREATE TABLE arb.tuning_results (
    schema       smallint NOT NULL DEFAULT 1,
    env          text     NOT NULL,
    run_id       text     NOT NULL,
    trial        integer  NOT NULL,
    parameters   json     NOT NULL,
    scores       json     NOT NULL,
    recorded_ns  bigint   NOT NULL DEFAULT arb.now_ns(),
    PRIMARY KEY (env, run_id, trial)
);
