DROP FUNCTION arb.write_decisions(text, bigint, jsonb);
DROP FUNCTION arb.write_decision(text, bigint, jsonb);
DROP FUNCTION arb.write_settlement(text, bigint, jsonb);
DROP FUNCTION arb.release_held(text, bigint, jsonb);
DROP FUNCTION arb.decimal_text(numeric);
DROP FUNCTION arb.write_grant(text, bigint, jsonb);
DROP TYPE arb.decision_answer;
DROP TRIGGER checked ON arb.postings;
DROP FUNCTION arb.check_postings();
DROP TABLE arb.free_totals;

CREATE OR REPLACE FUNCTION arb.check_entry() RETURNS trigger LANGUAGE plpgsql AS $$
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

CREATE CONSTRAINT TRIGGER balanced AFTER INSERT ON arb.postings
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION arb.check_entry();

ALTER TABLE arb.postings ADD FOREIGN KEY (env, entry_id) REFERENCES arb.entries;
