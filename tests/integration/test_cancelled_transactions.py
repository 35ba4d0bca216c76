"""A task that is cancelled at any moment of a transaction leaves nothing open behind it."""

import asyncio

import pytest

from arb_ray.adapters.storage.postgres_pool import Postgres

MOMENTS = 200
"""More than a transaction has; a test that needs more has gone astray."""


@pytest.fixture
async def postgres(shared_dsn):
    pool = Postgres(shared_dsn, size=2)
    async with pool.connection() as connection:
        await connection.execute("CREATE TABLE IF NOT EXISTS cancelled_at (step int)")
        await connection.execute("TRUNCATE cancelled_at")
    yield pool
    async with pool.connection() as connection:
        await connection.execute("DROP TABLE cancelled_at")
    await pool.close()


async def writes(postgres, step, began, committed):
    async with postgres.transaction("a row") as connection:
        began.append(step)
        await connection.execute("INSERT INTO cancelled_at VALUES ($1)", step)
    committed.append(step)


def cancelled_at(moment, work):
    """Return a task that is cancelled when it waits for the nth time, or just was answered."""
    task = asyncio.create_task(work)
    passed, known = 0, (None, False)

    def look():
        nonlocal passed, known
        waiter = task._fut_waiter
        now = (waiter, waiter is not None and waiter.done())
        if waiter is not None and now != known:
            known = now
            passed += 1
            if passed > moment:
                task.cancel()
                return
        if not task.done():
            asyncio.get_running_loop().call_soon(look)

    look()
    return task


async def open_transactions(connection):
    return await connection.fetchval(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND state LIKE 'idle in transaction%'"
    )


async def test_a_transaction_that_is_cancelled_at_any_moment_leaves_nothing_open(postgres):
    said, began, committed = [], [], []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context))
    for moment in range(MOMENTS):
        task = cancelled_at(moment, writes(postgres, moment, began, committed))
        await asyncio.wait((task,))
        assert postgres.in_use == 0
        assert said == [], f"cancelled at moment {moment}"
        async with postgres.connection() as connection:
            assert not connection.is_in_transaction()
            assert await open_transactions(connection) == 0
            rows = await connection.fetch("SELECT step FROM cancelled_at")
        if not task.cancelled():
            break
    kept = {row["step"] for row in rows}
    assert committed[-1] == moment < MOMENTS  # the last was not cancelled any more
    assert set(committed) <= kept <= set(began)
    assert len(began) < moment  # some were cancelled before their block,
    assert set(began) - kept  # some within it,
    assert kept - {moment}  # and some when the commit was on its way


async def test_whoever_cancels_a_commit_waits_until_it_is_known(postgres):
    async with postgres.connection() as connection:
        await connection.execute(
            "CREATE OR REPLACE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN PERFORM pg_sleep(0.2); RETURN NULL; END $$"
        )
        await connection.execute(
            "CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON cancelled_at"
            " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION slowly()"
        )
    began, committed = [], []
    task = asyncio.create_task(writes(postgres, 1, began, committed))
    while not began:  # noqa: ASYNC110 - a list, which other moments look at too
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.1)  # the INSERT has ended, the COMMIT sleeps
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()  # an impatient one
    with pytest.raises(asyncio.CancelledError):
        await task
    async with postgres.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM cancelled_at") == 1
        await connection.execute("DROP FUNCTION slowly CASCADE")
