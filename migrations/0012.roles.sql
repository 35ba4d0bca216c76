-- depends: 0009.dust

-- The running system logs in as a role that cannot alter the schema (arb-ray db roles). The one
-- thing of the kind that it needs, next month's partitions, these two do in the owner's name. The
-- search path is theirs, so that nobody can put a table of his own in the way.
--
-- A partition is made aside and attached: CREATE TABLE ... PARTITION OF would lock every reader and
-- writer of the parent out, ATTACH lets them go on.
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

ALTER FUNCTION arb.ensure_partitions(integer) SECURITY DEFINER SET search_path = arb, pg_temp;
