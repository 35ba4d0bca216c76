"""What an answer to a COMMIT proves."""

import asyncpg
import pytest

from arb_ray.adapters.storage.postgres_pool import _commit
from arb_ray.domain.errors import LedgerViolation, OutcomeUnknown


class Answers:
    def __init__(self, error):
        self.error = error

    async def commit(self):
        raise self.error("so it is")


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.AdminShutdownError,
        asyncpg.CrashShutdownError,
        asyncpg.CannotConnectNowError,
        asyncpg.exceptions.DatabaseDroppedError,
        asyncpg.ConnectionDoesNotExistError,
        TimeoutError,
    ],
)
async def test_a_server_that_goes_down_at_the_commit_leaves_the_outcome_unknown(error):
    with pytest.raises(OutcomeUnknown, match="commit of a test"):
        await _commit(Answers(error), "a test")


async def test_a_commit_that_was_cancelled_or_refused_did_not_happen():
    with pytest.raises(asyncpg.QueryCanceledError):  # becomes StoreUnavailable one layer up
        await _commit(Answers(asyncpg.QueryCanceledError), "a test")
    with pytest.raises(LedgerViolation):
        await _commit(Answers(asyncpg.IntegrityConstraintViolationError), "a test")
