-- depends: 0012.roles 0015.session_runs

-- Tuning results, one partition a month like the snapshots. That a trial has one result is kept by
-- a table without partitions: a partitioned key must contain the time, and would let a second
-- result pass at another moment.
ALTER TABLE arb.tuning_results RENAME TO tuning_results_of_0002;
ALTER INDEX arb.tuning_results_pkey RENAME TO tuning_results_of_0002_pkey;

CREATE TABLE arb.tuning_trials (
    schema       smallint NOT NULL DEFAULT 1,
    env          text     NOT NULL,
    run_id       text     NOT NULL,
    trial        integer  NOT NULL,
    recorded_ns  bigint   NOT NULL DEFAULT arb.now_ns(),
    PRIMARY KEY (env, run_id, trial)
);

CREATE INDEX tuning_trials_age ON arb.tuning_trials (recorded_ns);

CREATE TABLE arb.tuning_results (
    schema      smallint    NOT NULL DEFAULT 1,
    env         text        NOT NULL,
    run_id      text        NOT NULL,
    trial       integer     NOT NULL,
    at          timestamptz NOT NULL,
    at_ns       bigint      NOT NULL,
    parameters  json        NOT NULL,
    scores      json        NOT NULL
) PARTITION BY RANGE (at);

CREATE INDEX tuning_results_run ON arb.tuning_results (env, run_id, trial);

-- Whoever writes a result claims its trial by it; the second one is refused by the key.
CREATE FUNCTION arb.claim_trial() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO arb.tuning_trials (env, run_id, trial) VALUES (NEW.env, NEW.run_id, NEW.trial);
    RETURN NEW;
END
$$;

-- As in 0012, with the fifth table. A table that is a hypertable of TimescaleDB (arb-ray db migrate
-- makes it one) makes its chunks itself.
CREATE OR REPLACE FUNCTION arb.ensure_partitions_of(moment timestamptz) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = arb, pg_temp AS $$
DECLARE
    first_day timestamp := date_trunc('month', moment AT TIME ZONE 'UTC');
    parent    text;
    child     text;
    made      integer := 0;
BEGIN
    -- Two callers at once take turns; the second finds the work done.
    PERFORM pg_advisory_xact_lock(hashtext('arb.ensure_partitions'));
    FOREACH parent IN ARRAY ARRAY['session_snapshots', 'position_snapshots', 'metrics_snapshots',
                                  'risk_guard_snapshots', 'tuning_results']
    LOOP
        CONTINUE WHEN (SELECT relkind <> 'p' FROM pg_catalog.pg_class
                       WHERE oid = to_regclass('arb.' || quote_ident(parent)));
        child := parent || to_char(first_day, '"_y"YYYY"m"MM');
        IF to_regclass('arb.' || quote_ident(child)) IS NULL THEN
            EXECUTE format('CREATE TABLE arb.%I (LIKE arb.%I INCLUDING DEFAULTS INCLUDING CONSTRAINTS)',
                child, parent);
            EXECUTE format(
                'ALTER TABLE arb.%I ATTACH PARTITION arb.%I FOR VALUES FROM (%L) TO (%L)',
                parent, child,
                first_day AT TIME ZONE 'UTC',
                (first_day + interval '1 month') AT TIME ZONE 'UTC');
            made := made + 1;
        END IF;
    END LOOP;
    RETURN made;
END
$$;

DO $$
DECLARE
    month timestamptz;
BEGIN
    PERFORM arb.ensure_partitions(2);
    FOR month IN SELECT DISTINCT date_trunc('month', timestamptz 'epoch'
                     + recorded_ns / 1000 * interval '1 microsecond', 'UTC')
                 FROM arb.tuning_results_of_0002
    LOOP
        PERFORM arb.ensure_partitions_of(month);
    END LOOP;
END
$$;

INSERT INTO arb.tuning_trials (schema, env, run_id, trial, recorded_ns)
    SELECT schema, env, run_id, trial, recorded_ns FROM arb.tuning_results_of_0002;
INSERT INTO arb.tuning_results (schema, env, run_id, trial, at, at_ns, parameters, scores)
    SELECT schema, env, run_id, trial,
           timestamptz 'epoch' + recorded_ns / 1000 * interval '1 microsecond', recorded_ns,
           parameters, scores
    FROM arb.tuning_results_of_0002;

-- After the rows that were there, which have their trials already.
CREATE TRIGGER claims_its_trial BEFORE INSERT ON arb.tuning_results
    FOR EACH ROW EXECUTE FUNCTION arb.claim_trial();

DROP TABLE arb.tuning_results_of_0002;
