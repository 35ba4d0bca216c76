"""The database's own guards: what refuses changes is there and switched on."""

from __future__ import annotations

from arb_ray.adapters.storage.audit.check import Check, SqlCheck

APPEND_ONLY = (
    "trade_events", "orders", "order_reports", "fills", "entries", "postings", "reservations",
    "reservation_outcomes", "risk_events", "risk_limits", "topology",
)  # fmt: skip

_TRIGGERS = (
    *(
        (table, "append_only", "BEFORE DELETE OR UPDATE", "FOR EACH ROW", "arb.refuse_change()")
        for table in APPEND_ONLY
    ),
    *(
        (table, "no_truncate", "BEFORE TRUNCATE", "FOR EACH STATEMENT", "arb.refuse_change()")
        for table in (
            *APPEND_ONLY,
            "trades",
            "risk_lease",
            "symbol_owners",
            "trade_numbers",
            "free_totals",
        )
    ),
    *(
        (
            table,
            "epochs_only_grow",
            "BEFORE DELETE OR UPDATE",
            "FOR EACH ROW",
            "arb.epochs_only_grow()",
        )
        for table in ("risk_lease", "symbol_owners")
    ),
    (
        "entries",
        "balanced",
        "AFTER INSERT",
        "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW",
        "arb.check_entry()",
    ),
    (
        "postings",
        "checked",
        "AFTER INSERT",
        "REFERENCING NEW TABLE AS posted FOR EACH STATEMENT",
        "arb.check_postings()",
    ),
    (
        "free_totals",
        "only_counted",
        "BEFORE INSERT OR DELETE OR UPDATE",
        "FOR EACH ROW WHEN ((pg_trigger_depth() = 0))",
        "arb.refuse_change()",
    ),
    ("trades", "only_close", "BEFORE DELETE OR UPDATE", "FOR EACH ROW", "arb.trades_only_close()"),
    (
        "trade_numbers",
        "numbers_only_grow",
        "BEFORE DELETE OR UPDATE",
        "FOR EACH ROW",
        "arb.numbers_only_grow()",
    ),
    ("tuning_results", "claims_its_trial", "BEFORE INSERT", "FOR EACH ROW", "arb.claim_trial()"),
)

_INDEXES = ("trades_one_open", "sessions_one_open")

_KEYS = (
    *APPEND_ONLY, "trades", "sessions", "risk_lease", "symbol_owners", "trade_numbers",
    "snapshot_batches", "tuning_trials", "free_totals",
)  # fmt: skip

_FINITE = ("trades", "orders", "fills", "reservations", "reservation_outcomes")

_FUNCTIONS = (
    "refuse_change",
    "epochs_only_grow",
    "check_entry",
    "check_postings",
    "trades_only_close",
    "numbers_only_grow",
)


def _values(rows: object) -> str:
    assert isinstance(rows, tuple)
    return ", ".join(
        "(" + ", ".join(f"'{cell}'" for cell in (row if isinstance(row, tuple) else (row,))) + ")"
        for row in rows
    )


# search_path is empty in an audit, so every name is written with its schema.
_TRIGGERS_SQL = f"""
    SELECT NULL::text AS trade_id, CASE
        WHEN t.oid IS NULL THEN format('table %s: its trigger %s is missing', w.tab, w.name)
        WHEN t.tgenabled NOT IN ('O', 'A') THEN format(
            'table %s: its trigger %s is switched off', w.tab, w.name)
        WHEN pg_get_triggerdef(t.oid) NOT LIKE
                '%TRIGGER ' || w.name || ' ' || w.at || ' ON arb.' || w.tab || ' ' || w.each
                || ' EXECUTE FUNCTION ' || w.does
            THEN format('table %s: its trigger %s is another one: %s', w.tab, w.name,
                        pg_get_triggerdef(t.oid))
        END AS problem
    FROM (VALUES {_values(_TRIGGERS)}) AS w(tab, name, at, each, does)
    LEFT JOIN pg_trigger AS t ON t.tgname = w.name
        AND t.tgrelid = to_regclass('arb.' || w.tab)
    WHERE $1::text IS NOT NULL
"""

_INDEXES_SQL = f"""
    SELECT NULL::text AS trade_id, CASE WHEN i.indexrelid IS NULL OR NOT i.indisunique
            OR NOT i.indisvalid OR i.indpred IS NULL
        THEN format('index %s: it is missing, or keeps nothing apart', w.name) END AS problem
    FROM (VALUES {_values(_INDEXES)}) AS w(name)
    LEFT JOIN pg_index AS i ON i.indexrelid = to_regclass('arb.' || w.name)
    WHERE $1::text IS NOT NULL
    UNION ALL
    SELECT NULL, CASE WHEN NOT EXISTS (
            SELECT FROM pg_constraint WHERE contype = 'p' AND conrelid = to_regclass('arb.' || tab))
        THEN format('table %s: it has no primary key', tab) END
    FROM (VALUES {_values(_KEYS)}) AS w(tab)
    UNION ALL
    SELECT NULL, CASE WHEN NOT EXISTS (
            SELECT FROM pg_constraint WHERE contype = 'c' AND convalidated AND conname = 'finite'
                AND conrelid = to_regclass('arb.' || tab))
        THEN format('table %s: nothing keeps NaN and infinities out of it', tab) END
    FROM (VALUES {_values(_FINITE)}) AS w(tab)
"""

_FUNCTIONS_SQL = f"""
    SELECT NULL::text AS trade_id, CASE WHEN coalesce(p.prosrc, '') NOT LIKE '%RAISE EXCEPTION%'
        THEN format('function %s: it is missing, or refuses nothing', w.name) END AS problem
    FROM (VALUES {_values(_FUNCTIONS)}) AS w(name)
    LEFT JOIN pg_proc AS p ON p.proname = w.name AND p.pronamespace = to_regnamespace('arb')
    WHERE $1::text IS NOT NULL
    UNION ALL
    SELECT NULL, format('setting session_replication_role: it is %L for %s, which switches every '
                        'trigger off', setting,
                        CASE setrole WHEN 0 THEN 'everybody' ELSE setrole::regrole::text END)
    FROM pg_db_role_setting, unnest(setconfig) AS setting
    WHERE setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
        AND setting LIKE 'session_replication_role=%' AND setting NOT LIKE '%=origin'
"""

CHECKS: tuple[Check, ...] = (
    SqlCheck(
        name="schema.triggers",
        meaning="the triggers that keep the ledger append-only and balanced are on",
        sql=_TRIGGERS_SQL,
    ),
    SqlCheck(
        name="schema.keys",
        meaning="the keys that make a repeat a no-op, one open trade a symbol, and numbers numbers",
        sql=_INDEXES_SQL,
    ),
    SqlCheck(
        name="schema.functions",
        meaning="the functions behind the triggers refuse, and nothing switches them off",
        sql=_FUNCTIONS_SQL,
    ),
)
