-- depends: 0009.dust

-- A run of a session, from its start to its clean stop. One that has no end and that nobody
-- carries on any more has crashed; the next start says so here.
CREATE TABLE arb.session_runs (
    number      bigint   GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    schema      smallint NOT NULL DEFAULT 1,
    env         text     NOT NULL,
    session_id  text     NOT NULL,
    holder      text     NOT NULL,
    started_ns  bigint   NOT NULL,
    ended_ns    bigint,
    ending      text     CHECK (ending IN ('clean', 'crashed')),
    FOREIGN KEY (env, session_id) REFERENCES arb.sessions,
    CHECK ((ended_ns IS NULL) = (ending IS NULL))
);

CREATE UNIQUE INDEX session_runs_one_open ON arb.session_runs (env) WHERE ended_ns IS NULL;
CREATE INDEX session_runs_session ON arb.session_runs (env, session_id, number);

-- Snapshots that failed their check when they were read, as they were found. The text is kept
-- as text: what is damaged need not be JSON. A row that is here is not read again.
CREATE TABLE arb.snapshot_quarantine (
    schema      smallint NOT NULL DEFAULT 1,
    env         text     NOT NULL,
    table_name  text     NOT NULL,
    session_id  text     NOT NULL,
    symbol      text     NOT NULL,
    at_ns       bigint   NOT NULL,
    batch_id    text     NOT NULL,
    crc32       bigint   NOT NULL,
    payload     text     NOT NULL,
    reason      text     NOT NULL,
    found_ns    bigint   NOT NULL DEFAULT arb.now_ns(),
    PRIMARY KEY (env, table_name, session_id, symbol, at_ns, batch_id)
);

CREATE INDEX snapshot_quarantine_found ON arb.snapshot_quarantine (env, found_ns);
