"""A RiskGuard that was frozen, was replaced, and thaws: it can grant nothing any more, and leaves."""

import signal
import subprocess
import sys

import pytest

from arb_ray.actors.hosting import EXIT_LOOP_ENDED
from arb_ray.adapters.clock import SystemClock
from arb_ray.adapters.storage.ledger_store import PostgresLedgerStore
from arb_ray.adapters.storage.risk_store import PostgresRiskStore
from arb_ray.domain.risk_intent import Granted
from tests.guard_process import ask
from tests.risk_world import mark
from tests.shell_world import Ends, make_guard

END_TIMEOUT_S = 20.0


@pytest.fixture
async def frozen(postgres, shared_dsn, env):
    """A guard's process that has granted one trade and was stopped then."""
    ledger = PostgresLedgerStore(postgres, env)
    for symbol in ("BTC", "ETH", "XRP"):
        await ledger.claim_symbol(symbol, "host")
    with subprocess.Popen(  # noqa: ASYNC220 - a test may block
        (sys.executable, "-m", "tests.guard_process", shared_dsn, env),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    ) as process:
        assert process.stdout.readline().strip() == "1"
        process.stdin.write("BTC\n")
        assert process.stdout.readline().strip() == "granted"
        process.send_signal(signal.SIGSTOP)
        yield process
        process.kill()


@pytest.fixture
async def successor(frozen, postgres, env):
    """The guard that has taken over."""
    ends = Ends()
    guard = make_guard(PostgresRiskStore(postgres, env), SystemClock(), ends)
    await guard.recover()
    return guard


async def test_a_takeover_does_not_wait_for_a_frozen_guard_and_knows_what_it_granted(successor):
    status = await successor.status()
    assert (status["epoch"], status["open_trades"]) == (2, 1)


async def test_a_question_that_the_frozen_guard_kept_is_not_granted_after_the_thaw(
    frozen, successor, postgres, env
):
    frozen.stdin.write("ETH\n")  # waits in its mailbox while it is frozen
    frozen.send_signal(signal.SIGCONT)
    code = frozen.wait(END_TIMEOUT_S)
    answer = frozen.stdout.read()
    assert code == EXIT_LOOP_ENDED
    assert "granted" not in answer.splitlines()
    ledger = PostgresLedgerStore(postgres, env)
    held = [b for b in await ledger.balances() if b.account == "held" and b.amount]
    assert [b.amount for b in held] == [1000], "only what was granted before the freeze is held"


async def test_the_successor_grants_before_and_after_the_thaw(frozen, successor):
    await successor.mark("host", [mark(ask("BTC"), "0", at=SystemClock().now_ns())])
    assert isinstance(await successor.reserve(ask("ETH")), Granted)
    frozen.send_signal(signal.SIGCONT)
    assert frozen.wait(END_TIMEOUT_S) == EXIT_LOOP_ENDED
    assert isinstance(await successor.reserve(ask("XRP")), Granted)
