DROP TRIGGER no_truncate ON arb.symbol_owners;
DROP TRIGGER no_truncate ON arb.risk_lease;
DROP TRIGGER no_truncate ON arb.trade_numbers;
DROP TRIGGER numbers_only_grow ON arb.trade_numbers;
DROP FUNCTION arb.numbers_only_grow();
CREATE OR REPLACE FUNCTION arb.epochs_only_grow() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' OR NEW.epoch < OLD.epoch THEN
        RAISE EXCEPTION 'arb.%: an epoch never goes back', TG_TABLE_NAME
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END
$$;
ALTER TABLE arb.reservation_outcomes DROP CONSTRAINT finite;
ALTER TABLE arb.reservations DROP CONSTRAINT finite;
ALTER TABLE arb.fills DROP CONSTRAINT finite;
ALTER TABLE arb.orders DROP CONSTRAINT finite;
ALTER TABLE arb.trades DROP CONSTRAINT finite;
