"""
The audit of the ledger: independent checks in SQL and arithmetic.

Nothing here may import ``arb_ray.engine`` or ``arb_ray.domain``, but for the errors, and
import-linter holds it: a check that shares the engine's code shares its mistakes. What must
hold is written down a second time, from the tables. docs/AUDIT.md lists every check.
"""
