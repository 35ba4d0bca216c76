-- depends: 0009.dust

-- An entry is closed at its commit as before, and cheaper. A posting must have one of the lines that
-- its entry declares, told as it is inserted: an entry that has all its lines can get no other,
-- so the deferred check of what it adds up to runs once an entry, not once a posting. The same
-- look finds that there is such an entry; nobody can take it away later, so the foreign key, which
-- looked once more, is not needed beside it.
DROP TRIGGER balanced ON arb.postings;
ALTER TABLE arb.postings DROP CONSTRAINT postings_env_entry_id_fkey;

CREATE OR REPLACE FUNCTION arb.check_entry() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    found   bigint;
    problem text;
BEGIN
    SELECT coalesce(sum(p.lines), 0),
           string_agg(p.asset || ' ' || p.total, ', ') FILTER (WHERE p.total <> 0)
        INTO found, problem
        FROM (SELECT asset, count(*) AS lines, sum(amount) AS total FROM arb.postings
            WHERE env = NEW.env AND entry_id = NEW.entry_id GROUP BY asset) AS p;
    IF found <> NEW.posting_count THEN
        problem := format('%s postings where %s were declared', found, NEW.posting_count);
    END IF;
    IF problem IS NOT NULL THEN
        RAISE EXCEPTION 'entry % does not balance: %', NEW.entry_id, problem
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NULL;
END
$$;

-- What is free, as a running total beside the postings that it sums: RiskGuard asks for it at
-- every grant, and a sum over all postings of an account takes longer with every trade. The
-- postings stay the truth (arb.balances); the audit holds this against them.
CREATE TABLE arb.free_totals (
    env     text    NOT NULL,
    venue   text    NOT NULL,
    asset   text    NOT NULL,
    amount  numeric NOT NULL CHECK (amount NOT IN ('NaN', 'Infinity', '-Infinity')),
    PRIMARY KEY (env, venue, asset)
);

CREATE FUNCTION arb.check_postings() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    wrong  record;
BEGIN
    SELECT p.entry_id, p.line, e.posting_count INTO wrong
        FROM posted AS p LEFT JOIN arb.entries AS e USING (env, entry_id)
        WHERE e.entry_id IS NULL OR p.line < 0 OR p.line >= e.posting_count LIMIT 1;
    IF FOUND AND wrong.posting_count IS NULL THEN
        RAISE EXCEPTION 'posting % of entry %: there is no such entry', wrong.line, wrong.entry_id
            USING ERRCODE = 'foreign_key_violation';
    ELSIF FOUND THEN
        RAISE EXCEPTION 'entry % does not balance: line % where % postings were declared',
            wrong.entry_id, wrong.line, wrong.posting_count
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    INSERT INTO arb.free_totals AS t (env, venue, asset, amount)
        SELECT env, venue, asset, sum(amount) FROM posted WHERE account = 'free'
        GROUP BY env, venue, asset ORDER BY env, venue, asset
        ON CONFLICT (env, venue, asset) DO UPDATE SET amount = t.amount + EXCLUDED.amount;
    RETURN NULL;
END
$$;

-- Nobody posts between the sum and the trigger.
LOCK TABLE arb.postings IN SHARE ROW EXCLUSIVE MODE;

INSERT INTO arb.free_totals
    SELECT env, venue, asset, sum(amount) FROM arb.postings
    WHERE account = 'free' GROUP BY env, venue, asset;

CREATE TRIGGER checked AFTER INSERT ON arb.postings REFERENCING NEW TABLE AS posted
    FOR EACH STATEMENT EXECUTE FUNCTION arb.check_postings();

-- Only a posting moves a total: whoever writes here himself is refused.
CREATE TRIGGER only_counted BEFORE INSERT OR UPDATE OR DELETE ON arb.free_totals
    FOR EACH ROW WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION arb.refuse_change();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON arb.free_totals
    FOR EACH STATEMENT EXECUTE FUNCTION arb.refuse_change();

-- Answers of the functions below. ``said`` is the content of the outcome that stands under the id;
-- of a settlement that was written it is what came free, as [venue, asset, amount] each.
CREATE TYPE arb.decision_answer AS (
    answer        text,
    said_epoch    bigint,
    said_ns       bigint,
    said          text,
    first_intent  text
);

-- A grant with its hold: the first answer again, a refusal (remembered, but for an owner of the
-- past: the id belongs to the new one), or the rows of a yes.
CREATE FUNCTION arb.write_grant(the_env text, guard_epoch bigint, one jsonb)
RETURNS arb.decision_answer LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    a        arb.decision_answer;
    id       text := one->>'trade_id';
    coin     text := one->>'symbol';
    at       bigint := one->>'at_ns';
    version  smallint := one->>'schema';
    owner    bigint;
    reason   text;
    problem  text;
BEGIN
    -- A known id is answered whoever owns the symbol now.
    SELECT 'granted', r.epoch, r.granted_ns, NULL, r.intent::text INTO a
        FROM arb.reservations AS r WHERE r.env = the_env AND r.trade_id = id;
    IF FOUND THEN
        RETURN a;
    END IF;
    SELECT o.epoch INTO owner FROM arb.symbol_owners AS o
        WHERE o.env = the_env AND o.symbol = coin FOR SHARE;
    IF owner IS DISTINCT FROM (one->>'owner_epoch')::bigint THEN
        RETURN ('fenced_owner', coalesce(owner, 0), NULL, NULL, NULL)::arb.decision_answer;
    END IF;
    SELECT 'balance', format('%s has %s %s, %s asked',
            p->>1, coalesce(f.amount, 0), p->>3, -(p->>4)::numeric)
        INTO reason, problem
        FROM jsonb_array_elements(one->'lines') AS p
        LEFT JOIN arb.free_totals AS f ON f.env = the_env
            AND f.venue = p->>1 AND f.asset = p->>3
        WHERE p->>2 = 'free' AND coalesce(f.amount, 0) + (p->>4)::numeric < 0
        LIMIT 1;
    IF NOT FOUND THEN
        -- The index of open trades tells whether there is one.
        INSERT INTO arb.trades (schema, env, trade_id, symbol, opened_ns)
        VALUES (version, the_env, id, coin, at)
        ON CONFLICT (env, symbol) WHERE status = 'open' DO NOTHING;
        IF NOT FOUND THEN
            SELECT 'symbol_busy', t.trade_id || ' is open' INTO reason, problem
                FROM arb.trades AS t
                WHERE t.env = the_env AND t.symbol = coin AND t.status = 'open';
        END IF;
    END IF;
    IF problem IS NOT NULL THEN
        a.answer := 'refused';
        a.said := jsonb_build_object('type', 'Refused', 'trade_id', id,
            'reason', reason, 'detail', problem)::text;
        INSERT INTO arb.reservation_outcomes (schema, env, trade_id, symbol, epoch,
            kind, closed_ns, realized_usdt, content)
        VALUES (version, the_env, id, coin, guard_epoch, 'refused', at, 0, a.said::json);
        RETURN a;
    END IF;
    INSERT INTO arb.reservations (schema, env, trade_id, symbol, session_id, epoch,
        owner_epoch, worst_loss_usdt, notional_usdt, granted_ns, intent)
    VALUES (version, the_env, id, coin, one->>'session_id', guard_epoch,
        (one->>'owner_epoch')::bigint, (one->>'worst_loss_usdt')::numeric,
        (one->>'notional_usdt')::numeric, at, (one->>'intent')::json);
    INSERT INTO arb.entries (schema, env, entry_id, kind, symbol, trade_id, epoch,
        at_ns, posting_count, digest)
    VALUES (version, the_env, one->>'entry_id', one->>'entry_kind', coin, id, guard_epoch, at,
        jsonb_array_length(one->'lines'), decode(one->>'digest', 'hex'));
    INSERT INTO arb.postings (schema, env, entry_id, line, trade_id, venue, account,
        asset, amount)
    SELECT version, the_env, one->>'entry_id', (p->>0)::smallint, id,
        p->>1, p->>2, p->>3, (p->>4)::numeric
    FROM jsonb_array_elements(one->'lines') AS p;
    RETURN ('granted', guard_epoch, at, NULL, NULL)::arb.decision_answer;
END
$$;

-- An amount as the writer of digests spells it: Python's Decimal, normalized to 28 digits.
CREATE FUNCTION arb.decimal_text(amount numeric) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$
DECLARE
    digits_max  constant integer := 28;
    plain       text := trim_scale(abs(amount))::text;
    sign        text := CASE WHEN amount < 0 THEN '-' ELSE '' END;
    whole       text := ltrim(split_part(plain, '.', 1), '0');
    digits      text := ltrim(whole || split_part(plain, '.', 2), '0');
    exponent    integer;  -- of the first digit
    places      integer;
    rounded     numeric;
BEGIN
    IF amount = 0 THEN
        RETURN '0';
    END IF;
    exponent := CASE WHEN whole = '' THEN length(digits) - length(split_part(plain, '.', 2))
        ELSE length(whole) END - 1;
    IF length(rtrim(digits, '0')) > digits_max THEN
        places := digits_max - 1 - exponent;
        rounded := round(abs(amount), places);
        -- A half goes to the even digit.
        IF rounded - abs(amount) = ('5e' || (-places - 1))::numeric
           AND rounded % ('2e' || -places)::numeric <> 0
        THEN
            rounded := rounded - ('1e' || -places)::numeric;
        END IF;
        RETURN sign || arb.decimal_text(rounded);
    END IF;
    digits := rtrim(digits, '0');
    IF exponent >= -6 AND length(digits) > exponent THEN
        RETURN sign || plain;
    END IF;
    RETURN sign || left(digits, 1) || CASE WHEN length(digits) > 1 THEN '.' ELSE '' END
        || substr(digits, 2) || CASE WHEN exponent < 0 THEN 'E' ELSE 'E+' END || exponent;
END
$$;

-- Moves what is still held for a trade back to free; returns it as [venue, asset, amount] each.
CREATE FUNCTION arb.release_held(the_env text, guard_epoch bigint, one jsonb)
RETURNS jsonb LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    id     text := one->>'trade_id';
    coin   text := one->>'symbol';
    entry  text := 'release:' || id;
    held   jsonb;
BEGIN
    SELECT jsonb_agg(jsonb_build_array(h.venue, h.asset, h.amount::text)) INTO held
    FROM (
        SELECT venue, asset, sum(amount) AS amount FROM arb.postings
        WHERE env = the_env AND trade_id = id AND account = 'held'
        GROUP BY venue, asset HAVING sum(amount) <> 0 ORDER BY venue, asset) AS h;
    IF held IS NULL THEN
        RETURN '[]';
    END IF;
    -- The digest is what every entry of this ledger has: kind, symbol, trade and lines, as JSON.
    INSERT INTO arb.entries (schema, env, entry_id, kind, symbol, trade_id, epoch, at_ns,
        posting_count, digest)
    SELECT (one->>'schema')::smallint, the_env, entry, 'release', coin, id, guard_epoch,
        (one->>'closed_ns')::bigint, 2 * count(*),
        sha256(convert_to(format('["release",%s,%s,[%s]]', to_json(coin), to_json(id), string_agg(
            format('[%1$s,"held",%2$s,"%3$s"],[%1$s,"free",%2$s,"%4$s"]', h.line->0, h.line->1,
                arb.decimal_text(-(h.line->>2)::numeric), arb.decimal_text((h.line->>2)::numeric)),
            ',' ORDER BY h.number)), 'UTF8'))
    FROM jsonb_array_elements(held) WITH ORDINALITY AS h (line, number);
    INSERT INTO arb.postings (schema, env, entry_id, line, trade_id, venue, account, asset, amount)
    SELECT (one->>'schema')::smallint, the_env, entry, 2 * (h.number - 1) + way.line, id,
        h.line->>0, way.account, h.line->>1, way.sign * (h.line->>2)::numeric
    FROM jsonb_array_elements(held) WITH ORDINALITY AS h (line, number),
        (VALUES (0, 'held', -1), (1, 'free', 1)) AS way (line, account, sign);
    RETURN held;
END
$$;

-- The end of a reservation; of an unknown id it is a tombstone. The trade is closed before its
-- held money is summed: a fill under way comes first, one that comes later finds it closed.
CREATE FUNCTION arb.write_settlement(the_env text, guard_epoch bigint, one jsonb)
RETURNS arb.decision_answer LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    a   arb.decision_answer;
    id  text := one->>'trade_id';
BEGIN
    UPDATE arb.trades SET status = 'closed', outcome = one->>'outcome',
            closed_ns = (one->>'closed_ns')::bigint, exit_reason = one->>'exit_reason',
            notional_usdt = (one->>'notional_usdt')::numeric,
            realized_usdt = (one->>'realized_usdt')::numeric,
            spread_usdt = (one->>'spread_usdt')::numeric,
            fx_usdt = (one->>'fx_usdt')::numeric,
            fees_usdt = (one->>'fees_usdt')::numeric,
            slippage_usdt = (one->>'slippage_usdt')::numeric,
            funding_usdt = (one->>'funding_usdt')::numeric
        WHERE env = the_env AND trade_id = id;
    IF NOT FOUND AND one->>'outcome' = 'posted' THEN
        a.answer := 'violated';
        a.said := 'it was never granted, so nothing is posted';
        RETURN a;
    END IF;
    INSERT INTO arb.reservation_outcomes (schema, env, trade_id, symbol, epoch, kind,
        closed_ns, realized_usdt, content)
    VALUES ((one->>'schema')::smallint, the_env, id, one->>'symbol', guard_epoch,
        one->>'outcome', (one->>'closed_ns')::bigint, (one->>'realized_usdt')::numeric,
        (one->>'content')::json);
    a.answer := 'settled';
    a.said := arb.release_held(the_env, guard_epoch, one)::text;
    RETURN a;
END
$$;

CREATE FUNCTION arb.write_decision(the_env text, guard_epoch bigint, one jsonb)
RETURNS arb.decision_answer LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    a  arb.decision_answer;
BEGIN
    SELECT o.kind, NULL, NULL, o.content::text, NULL INTO a FROM arb.reservation_outcomes AS o
        WHERE o.env = the_env AND o.trade_id = one->>'trade_id';
    IF FOUND THEN
        RETURN a;
    END IF;
    IF one->>'kind' = 'grant' THEN
        RETURN arb.write_grant(the_env, guard_epoch, one);
    END IF;
    RETURN arb.write_settlement(the_env, guard_epoch, one);
END
$$;

-- RiskGuard's decisions of one commit, in order: a row of answers for each, or one ``fenced`` when
-- another guard has the lease; then nothing is written. Of several, one that the ledger contradicts
-- is ``violated`` and leaves no trace, and the others are written; one alone raises.
CREATE FUNCTION arb.write_decisions(the_env text, guard_epoch bigint, decisions jsonb)
RETURNS SETOF arb.decision_answer LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    a        arb.decision_answer;
    one      jsonb;
    current  bigint;
BEGIN
    -- An earlier call that the guard gave up may still be on its way: it is waited for, or what is
    -- written here would not stop it from being committed afterwards.
    PERFORM pg_advisory_xact_lock(hashtextextended('arb.decisions:' || the_env, 0));
    SELECT epoch INTO current FROM arb.risk_lease WHERE env = the_env FOR SHARE;
    IF current IS DISTINCT FROM guard_epoch THEN
        RETURN NEXT ('fenced', coalesce(current, 0), NULL, NULL, NULL)::arb.decision_answer;
        RETURN;
    END IF;
    IF jsonb_array_length(decisions) = 1 THEN
        RETURN NEXT arb.write_decision(the_env, guard_epoch, decisions->0);
        RETURN;
    END IF;
    FOR one IN SELECT value FROM jsonb_array_elements(decisions) LOOP
        BEGIN
            a := arb.write_decision(the_env, guard_epoch, one);
            -- The double entry is checked here and not at the commit, where an entry that does
            -- not balance would take its neighbours with it.
            SET CONSTRAINTS ALL IMMEDIATE;
            SET CONSTRAINTS ALL DEFERRED;
        EXCEPTION WHEN integrity_constraint_violation THEN
            a := ('violated', NULL, NULL, SQLERRM, NULL)::arb.decision_answer;
        END;
        RETURN NEXT a;
    END LOOP;
END
$$;
