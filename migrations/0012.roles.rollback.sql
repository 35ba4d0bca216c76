ALTER FUNCTION arb.ensure_partitions(integer) SECURITY INVOKER RESET search_path;
CREATE OR REPLACE FUNCTION arb.ensure_partitions_of(moment timestamptz) RETURNS integer
LANGUAGE plpgsql SECURITY INVOKER AS $$
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
