-- The journal and the ledger: what must survive (DESIGN section 4).
-- Money is NUMERIC, times are BIGINT ns UTC, every row says its schema.

CREATE SCHEMA arb;

CREATE FUNCTION arb.now_ns() RETURNS bigint LANGUAGE sql VOLATILE AS $$
    SELECT (extract(epoch FROM clock_timestamp()) * 1000000000)::bigint
$$;

CREATE FUNCTION arb.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'arb.% is append-only: % refused', TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'integrity_constraint_violation';
END
$$;

-- Sessions: one is open per environment; --resume continues it.
CREATE TABLE arb.sessions (
    schema      smallint NOT NULL DEFAULT 1,
    env         text     NOT NULL,
    session_id  text     NOT NULL,
    source      text     NOT NULL,
    preset      text     NOT NULL DEFAULT '',
    seed        bigint,
    config      json     NOT NULL DEFAULT '{}',
    started_ns  bigint   NOT NULL,
    closed_ns   bigint,
    summary     json,
    PRIMARY KEY (env, session_id)
);

CREATE UNIQUE INDEX sessions_one_open ON arb.sessions (env) WHERE closed_ns IS NULL;

-- Fencing: the one guard of an environment, the one owner of a symbol. Every fenced write
-- locks its row FOR SHARE and compares the epoch in its own transaction.
CREATE TABLE arb.risk_lease (
    schema      smallint NOT NULL DEFAULT 1,
    env         text     PRIMARY KEY,
    epoch       bigint   NOT NULL CHECK (epoch > 0),
    holder      text     NOT NULL,
    taken_ns    bigint   NOT NULL DEFAULT arb.now_ns(),
    renewed_ns  bigint   NOT NULL DEFAULT arb.now_ns()
);

CREATE TABLE arb.symbol_owners (
    schema      smallint NOT NULL DEFAULT 1,
    env         text     NOT NULL,
    symbol      text     NOT NULL,
    epoch       bigint   NOT NULL CHECK (epoch > 0),
    owner       text     NOT NULL,
    claimed_ns  bigint   NOT NULL DEFAULT arb.now_ns(),
    PRIMARY KEY (env, symbol)
);

CREATE FUNCTION arb.epochs_only_grow() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' OR NEW.epoch < OLD.epoch THEN
        RAISE EXCEPTION 'arb.%: an epoch never goes back', TG_TABLE_NAME
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END
$$;

CREATE TRIGGER epochs_only_grow BEFORE UPDATE OR DELETE ON arb.risk_lease
    FOR EACH ROW EXECUTE FUNCTION arb.epochs_only_grow();

CREATE TRIGGER epochs_only_grow BEFORE UPDATE OR DELETE ON arb.symbol_owners
    FOR EACH ROW EXECUTE FUNCTION arb.epochs_only_grow();

CREATE TABLE arb.trade_numbers (
    env          text   NOT NULL,
    symbol       text   NOT NULL,
    last_number  bigint NOT NULL CHECK (last_number > 0),
    PRIMARY KEY (env, symbol)
);

-- A trade is opened by the grant of its reservation, and closed by its settlement.
CREATE TABLE arb.trades (
    schema         smallint NOT NULL DEFAULT 1,
    env            text     NOT NULL,
    trade_id       text     NOT NULL,
    symbol         text     NOT NULL,
    opened_ns      bigint   NOT NULL DEFAULT arb.now_ns(),
    status         text     NOT NULL DEFAULT 'open' CHECK (status IN ('open', 'closed')),
    outcome        text     CHECK (outcome IN ('posted', 'voided')),
    closed_ns      bigint,
    exit_reason    text     NOT NULL DEFAULT '',
    notional_usdt  numeric,
    realized_usdt  numeric,
    spread_usdt    numeric,
    fx_usdt        numeric,
    fees_usdt      numeric,
    slippage_usdt  numeric,
    funding_usdt   numeric,
    PRIMARY KEY (env, trade_id),
    CHECK ((status = 'closed') = (closed_ns IS NOT NULL)),
    CHECK ((status = 'closed') = (outcome IS NOT NULL)),
    CHECK ((outcome = 'posted') IS NOT TRUE OR (
        realized_usdt IS NOT NULL AND spread_usdt IS NOT NULL AND fx_usdt IS NOT NULL
        AND fees_usdt IS NOT NULL AND slippage_usdt IS NOT NULL AND funding_usdt IS NOT NULL))
);

CREATE UNIQUE INDEX trades_one_open ON arb.trades (env, symbol) WHERE status = 'open';
CREATE INDEX trades_closed ON arb.trades (env, closed_ns) WHERE status = 'closed';

CREATE FUNCTION arb.trades_only_close() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'UPDATE' OR OLD.status <> 'open' OR NEW.status <> 'closed'
       OR (OLD.schema, OLD.env, OLD.trade_id, OLD.symbol, OLD.opened_ns)
          IS DISTINCT FROM (NEW.schema, NEW.env, NEW.trade_id, NEW.symbol, NEW.opened_ns)
    THEN
        RAISE EXCEPTION 'arb.trades: a trade may only move from open to closed'
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END
$$;

CREATE TRIGGER only_close BEFORE UPDATE OR DELETE ON arb.trades
    FOR EACH ROW EXECUTE FUNCTION arb.trades_only_close();

CREATE TRIGGER no_truncate BEFORE TRUNCATE ON arb.trades
    FOR EACH STATEMENT EXECUTE FUNCTION arb.refuse_change();

-- The trade machine's events; the first ones come before the grant. json, not jsonb: the text that comes back is the text
-- that was written, and a repeat is compared with it.
CREATE TABLE arb.trade_events (
    schema       smallint NOT NULL DEFAULT 1,
    env          text     NOT NULL,
    trade_id     text     NOT NULL,
    seq          integer  NOT NULL CHECK (seq >= 0),
    symbol       text     NOT NULL,
    owner_epoch  bigint   NOT NULL,
    event        json     NOT NULL,
    recorded_ns  bigint   NOT NULL DEFAULT arb.now_ns(),
    PRIMARY KEY (env, trade_id, seq)
);

CREATE TABLE arb.orders (
    schema           smallint NOT NULL DEFAULT 1,
    env              text     NOT NULL,
    client_order_id  text     NOT NULL,
    trade_id         text     NOT NULL,
    symbol           text     NOT NULL,
    owner_epoch      bigint   NOT NULL,
    instrument       text     NOT NULL,
    side             text     NOT NULL CHECK (side IN ('buy', 'sell')),
    qty              numeric  NOT NULL CHECK (qty > 0),
    limit_price      numeric  NOT NULL CHECK (limit_price > 0),
    decision_price   numeric  NOT NULL,
    purpose          text     NOT NULL,
    decided_ns       bigint   NOT NULL,
    request          json     NOT NULL,
    recorded_ns      bigint   NOT NULL DEFAULT arb.now_ns(),
    PRIMARY KEY (env, client_order_id),
    FOREIGN KEY (env, trade_id) REFERENCES arb.trades
);

CREATE INDEX orders_trade ON arb.orders (env, trade_id);

-- The venue's last word, at most one an order.
CREATE TABLE arb.order_reports (
    schema           smallint NOT NULL DEFAULT 1,
    env              text     NOT NULL,
    client_order_id  text     NOT NULL,
    owner_epoch      bigint   NOT NULL,
    status           text     NOT NULL
        CHECK (status IN ('filled', 'partial', 'cancelled', 'rejected')),
    reason           text     NOT NULL,
    at_ns            bigint   NOT NULL,
    report           json     NOT NULL,
    recorded_ns      bigint   NOT NULL DEFAULT arb.now_ns(),
    PRIMARY KEY (env, client_order_id),
    FOREIGN KEY (env, client_order_id) REFERENCES arb.orders
);

CREATE TABLE arb.fills (
    schema           smallint NOT NULL DEFAULT 1,
    env              text     NOT NULL,
    fill_id          text     NOT NULL,
    client_order_id  text     NOT NULL,
    owner_epoch      bigint   NOT NULL,
    price            numeric  NOT NULL CHECK (price > 0),
    qty              numeric  NOT NULL CHECK (qty > 0),
    fee_amount       numeric  NOT NULL CHECK (fee_amount >= 0),
    fee_asset        text     NOT NULL,
    at_ns            bigint   NOT NULL,
    book_slice       jsonb    NOT NULL,
    PRIMARY KEY (env, fill_id),
    FOREIGN KEY (env, client_order_id) REFERENCES arb.orders
);

CREATE INDEX fills_order ON arb.fills (env, client_order_id);

-- Double entry. ``posting_count`` and the deferred check close an entry at its commit:
-- it balances per asset, and nothing can be added to it later.
CREATE TABLE arb.entries (
    schema         smallint NOT NULL DEFAULT 1,
    env            text     NOT NULL,
    entry_id       text     NOT NULL,
    kind           text     NOT NULL,
    symbol         text,
    trade_id       text,
    epoch          bigint   NOT NULL,
    at_ns          bigint   NOT NULL,
    posting_count  smallint NOT NULL CHECK (posting_count >= 0),
    digest         bytea    NOT NULL,
    recorded_ns    bigint   NOT NULL DEFAULT arb.now_ns(),
    PRIMARY KEY (env, entry_id)
);

CREATE INDEX entries_trade ON arb.entries (env, trade_id);

CREATE TABLE arb.postings (
    schema    smallint NOT NULL DEFAULT 1,
    env       text     NOT NULL,
    entry_id  text     NOT NULL,
    line      smallint NOT NULL,
    trade_id  text,
    venue     text     NOT NULL,
    account   text     NOT NULL CHECK (account IN (
        'free', 'held', 'position', 'unsettled', 'dust',
        'market', 'fees', 'funding', 'opening')),
    asset     text     NOT NULL,
    amount    numeric  NOT NULL CHECK (amount NOT IN ('NaN', 'Infinity', '-Infinity')),
    PRIMARY KEY (env, entry_id, line),
    FOREIGN KEY (env, entry_id) REFERENCES arb.entries
);

CREATE INDEX postings_balance ON arb.postings (env, venue, account, asset) INCLUDE (amount);
CREATE INDEX postings_held ON arb.postings (env, trade_id) WHERE account = 'held';

CREATE FUNCTION arb.check_entry() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    wanted  smallint;
    found   bigint;
    problem text;
BEGIN
    SELECT posting_count INTO wanted FROM arb.entries
        WHERE env = NEW.env AND entry_id = NEW.entry_id;
    SELECT count(*) INTO found FROM arb.postings
        WHERE env = NEW.env AND entry_id = NEW.entry_id;
    SELECT string_agg(asset || ' ' || total, ', ') INTO problem FROM (
        SELECT asset, sum(amount) AS total FROM arb.postings
            WHERE env = NEW.env AND entry_id = NEW.entry_id
            GROUP BY asset HAVING sum(amount) <> 0) AS unbalanced;
    IF found <> wanted THEN
        problem := format('%s postings where %s were declared', found, wanted);
    END IF;
    IF problem IS NOT NULL THEN
        RAISE EXCEPTION 'entry % does not balance: %', NEW.entry_id, problem
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NULL;
END
$$;

CREATE CONSTRAINT TRIGGER balanced AFTER INSERT ON arb.entries
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION arb.check_entry();

CREATE CONSTRAINT TRIGGER balanced AFTER INSERT ON arb.postings
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION arb.check_entry();

CREATE VIEW arb.balances AS
    SELECT env, venue, account, asset, sum(amount) AS amount
    FROM arb.postings
    GROUP BY env, venue, account, asset;

-- RiskGuard. An outcome without a reservation is a tombstone, or a remembered refusal.
CREATE TABLE arb.reservations (
    schema           smallint NOT NULL DEFAULT 1,
    env              text     NOT NULL,
    trade_id         text     NOT NULL,
    symbol           text     NOT NULL,
    session_id       text     NOT NULL,
    epoch            bigint   NOT NULL,
    owner_epoch      bigint   NOT NULL,
    worst_loss_usdt  numeric  NOT NULL CHECK (worst_loss_usdt >= 0),
    notional_usdt    numeric  NOT NULL CHECK (notional_usdt >= 0),
    granted_ns       bigint   NOT NULL,
    intent           json     NOT NULL,
    recorded_ns      bigint   NOT NULL DEFAULT arb.now_ns(),
    PRIMARY KEY (env, trade_id),
    FOREIGN KEY (env, trade_id) REFERENCES arb.trades
);

CREATE INDEX reservations_granted ON arb.reservations (env, granted_ns);

CREATE TABLE arb.reservation_outcomes (
    number         bigint   GENERATED ALWAYS AS IDENTITY UNIQUE,
    schema         smallint NOT NULL DEFAULT 1,
    env            text     NOT NULL,
    trade_id       text     NOT NULL,
    symbol         text     NOT NULL,
    epoch          bigint   NOT NULL,
    kind           text     NOT NULL CHECK (kind IN ('posted', 'voided', 'refused')),
    closed_ns      bigint   NOT NULL,
    realized_usdt  numeric  NOT NULL,
    content        json     NOT NULL,
    recorded_ns    bigint   NOT NULL DEFAULT arb.now_ns(),
    PRIMARY KEY (env, trade_id)
);

CREATE INDEX reservation_outcomes_closed ON arb.reservation_outcomes (env, closed_ns);

CREATE TABLE arb.risk_events (
    number       bigint   GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    schema       smallint NOT NULL DEFAULT 1,
    env          text     NOT NULL,
    epoch        bigint   NOT NULL,
    state        text     NOT NULL CHECK (state IN ('active', 'reduce_only', 'halted')),
    reason       text     NOT NULL,
    actor        text     NOT NULL,
    at_ns        bigint   NOT NULL,
    recorded_ns  bigint   NOT NULL DEFAULT arb.now_ns()
);

CREATE INDEX risk_events_newest ON arb.risk_events (env, number);

-- The supervisor's wanted topology; the highest version is in force.
CREATE TABLE arb.topology (
    schema       smallint NOT NULL DEFAULT 1,
    env          text     NOT NULL,
    version      bigint   NOT NULL CHECK (version > 0),
    desired      json     NOT NULL,
    actor        text     NOT NULL DEFAULT '',
    recorded_ns  bigint   NOT NULL DEFAULT arb.now_ns(),
    PRIMARY KEY (env, version)
);

-- Rows of these tables may be added, and nothing else, ever.
DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY[
        'trade_events', 'orders', 'order_reports', 'fills', 'entries', 'postings',
        'reservations', 'reservation_outcomes', 'risk_events', 'topology']
    LOOP
        EXECUTE format(
            'CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON arb.%I '
            'FOR EACH ROW EXECUTE FUNCTION arb.refuse_change()', name);
        EXECUTE format(
            'CREATE TRIGGER no_truncate BEFORE TRUNCATE ON arb.%I '
            'FOR EACH STATEMENT EXECUTE FUNCTION arb.refuse_change()', name);
    END LOOP;
END
$$;
