-- depends: 0002.snapshots

-- The limits that a guard decides by from here on, written when it takes the lease and when a
-- new wanted state changes them: without them nobody could tell afterwards whether a grant
-- kept the promise. Between two grants of an epoch the newest row before the second holds.
CREATE TABLE arb.risk_limits (
    number       bigint   GENERATED ALWAYS AS IDENTITY,
    schema       smallint NOT NULL DEFAULT 1,
    env          text     NOT NULL,
    epoch        bigint   NOT NULL CHECK (epoch > 0),
    limits       json     NOT NULL,
    recorded_ns  bigint   NOT NULL DEFAULT arb.now_ns(),
    PRIMARY KEY (env, epoch, number)
);

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON arb.risk_limits
    FOR EACH ROW EXECUTE FUNCTION arb.refuse_change();

CREATE TRIGGER no_truncate BEFORE TRUNCATE ON arb.risk_limits
    FOR EACH STATEMENT EXECUTE FUNCTION arb.refuse_change();
