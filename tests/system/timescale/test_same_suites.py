"""The suites of the plain path, on hypertables and on the PostgreSQL 15 that Debian gives."""

import pytest

# The same tests, another server.
from tests.integration.test_db_backup import (  # noqa: F401
    backup,
    ledger_dsn,
    test_a_backup_under_load_restores_to_one_moment_and_passes_the_audit,
    test_a_restored_database_is_used_and_guarded_like_the_first,
    test_trading_goes_on_in_a_restored_database_by_the_writer,
)
from tests.integration.test_migrations import (  # noqa: F401
    test_a_trial_has_one_result_whatever_its_month,
    test_each_step_back_undoes_its_step_forward_to_the_last_function,
    test_every_table_is_append_only_or_named_here,
    test_tuning_results_come_into_their_months_and_back_as_they_were,
)
from tests.integration.test_retention import (  # noqa: F401
    small,
    test_keys_outlive_their_rows_by_a_week,
    test_old_rows_are_archived_and_come_back_from_there,
    test_old_runs_and_damaged_snapshots_go_and_what_is_asked_for_stays,
    test_rows_whose_archive_did_not_end_go_with_the_next_call,
)
from tests.integration.test_roles import (  # noqa: F401
    test_nobody_else_finds_a_way_through_the_functions_that_run_as_the_owner,
    test_the_reader_reads_all_and_writes_nothing,
    test_the_writer_cannot_alter_the_schema,
)
from tests.integration.test_snapshots import *  # noqa: F403

# The first test of all waits for the build.
pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

del test_rows_of_any_month_find_a_partition  # noqa: F821 - it asks for the names of months
