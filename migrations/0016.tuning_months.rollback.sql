CREATE TABLE arb.tuning_results_of_0002 (
    schema       smallint NOT NULL DEFAULT 1,
    env          text     NOT NULL,
    run_id       text     NOT NULL,
    trial        integer  NOT NULL,
    parameters   json     NOT NULL,
    scores       json     NOT NULL,
    recorded_ns  bigint   NOT NULL DEFAULT arb.now_ns(),
    CONSTRAINT tuning_results_of_0002_pkey PRIMARY KEY (env, run_id, trial)
);
INSERT INTO arb.tuning_results_of_0002
    (schema, env, run_id, trial, parameters, scores, recorded_ns)
    SELECT schema, env, run_id, trial, parameters, scores, at_ns FROM arb.tuning_results;
-- So with the months that retention detached and did not drop yet.
DO $$
DECLARE
    left_aside text;
BEGIN
    FOR left_aside IN SELECT relname FROM pg_class WHERE relnamespace = 'arb'::regnamespace
        AND relkind = 'r' AND relname ~ '^tuning_results_y\d{4}m\d{2}_aside$'
    LOOP
        EXECUTE format(
            'INSERT INTO arb.tuning_results_of_0002'
            ' (schema, env, run_id, trial, parameters, scores, recorded_ns)'
            ' SELECT schema, env, run_id, trial, parameters, scores, at_ns FROM arb.%I'
            ' ON CONFLICT DO NOTHING', left_aside);
        EXECUTE format('DROP TABLE arb.%I', left_aside);
    END LOOP;
END
$$;
DROP TABLE arb.tuning_results;
DROP TABLE arb.tuning_trials;
DROP FUNCTION arb.claim_trial();
ALTER TABLE arb.tuning_results_of_0002 RENAME TO tuning_results;
ALTER INDEX arb.tuning_results_of_0002_pkey RENAME TO tuning_results_pkey;

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
    FOREACH parent IN ARRAY ARRAY['session_snapshots', 'position_snapshots',
                                  'metrics_snapshots', 'risk_guard_snapshots']
    LOOP
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
