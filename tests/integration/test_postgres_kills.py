"""PostgreSQL dies again and again under load: no row is lost, none doubled, the books are right."""

from tests.postgres_kills.run import run


async def test_a_postgresql_that_is_killed_again_and_again_loses_and_doubles_nothing():
    said = []
    outcome = await run(seconds=7, every_s=3, away_s=1, rate=1_000, tell=said.append)
    assert outcome.faults == ()
    assert len(outcome.kills) == len(said) == 2
    assert outcome.rows_spooled > 0, "it was away long enough to be noticed"
    assert outcome.left_without_postgres > 0
