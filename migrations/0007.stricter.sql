-- depends: 0006.pnl

-- NUMERIC knows NaN and infinities, and NaN is greater than every number: ``qty > 0`` lets it
-- in, and one of them makes every sum that it is in worthless. Postings refuse them already.
ALTER TABLE arb.trades ADD CONSTRAINT finite CHECK (
    notional_usdt > '-Infinity' AND notional_usdt < 'Infinity'
    AND realized_usdt > '-Infinity' AND realized_usdt < 'Infinity'
    AND spread_usdt > '-Infinity' AND spread_usdt < 'Infinity'
    AND fx_usdt > '-Infinity' AND fx_usdt < 'Infinity'
    AND fees_usdt > '-Infinity' AND fees_usdt < 'Infinity'
    AND slippage_usdt > '-Infinity' AND slippage_usdt < 'Infinity'
    AND funding_usdt > '-Infinity' AND funding_usdt < 'Infinity');
ALTER TABLE arb.orders ADD CONSTRAINT finite CHECK (
    qty < 'Infinity' AND limit_price < 'Infinity'
    AND decision_price > '-Infinity' AND decision_price < 'Infinity');
ALTER TABLE arb.fills ADD CONSTRAINT finite CHECK (
    price < 'Infinity' AND qty < 'Infinity' AND fee_amount < 'Infinity');
ALTER TABLE arb.reservations ADD CONSTRAINT finite CHECK (
    worst_loss_usdt < 'Infinity' AND notional_usdt < 'Infinity');
ALTER TABLE arb.reservation_outcomes ADD CONSTRAINT finite CHECK (
    realized_usdt > '-Infinity' AND realized_usdt < 'Infinity');

-- An epoch would begin anew, and a former holder's writes pass again, if its row could be emptied
-- away or given another key; a number would be given out twice.
CREATE OR REPLACE FUNCTION arb.epochs_only_grow() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' OR NEW.epoch < OLD.epoch OR NEW.env <> OLD.env
       OR to_jsonb(NEW)->'symbol' IS DISTINCT FROM to_jsonb(OLD)->'symbol'
    THEN
        RAISE EXCEPTION 'arb.%: an epoch never goes back', TG_TABLE_NAME
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END
$$;

CREATE FUNCTION arb.numbers_only_grow() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' OR NEW.last_number < OLD.last_number
       OR (NEW.env, NEW.symbol) <> (OLD.env, OLD.symbol)
    THEN
        RAISE EXCEPTION 'arb.trade_numbers: a number is given out once'
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END
$$;

CREATE TRIGGER numbers_only_grow BEFORE UPDATE OR DELETE ON arb.trade_numbers
    FOR EACH ROW EXECUTE FUNCTION arb.numbers_only_grow();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON arb.trade_numbers
    FOR EACH STATEMENT EXECUTE FUNCTION arb.refuse_change();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON arb.risk_lease
    FOR EACH STATEMENT EXECUTE FUNCTION arb.refuse_change();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON arb.symbol_owners
    FOR EACH STATEMENT EXECUTE FUNCTION arb.refuse_change();
