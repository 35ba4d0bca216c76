"""Carries the schedule out: breaks, heals, waits until all trade again, remembers how long it took."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

import msgspec
import requests

from tests.chaos import faults
from tests.chaos.kinds import KINDS
from tests.chaos.schedule import LONG_RUN_S, Planned
from tests.chaos.watch import Watch

RECOVER_MAX_S = 90.0
"""Whoever does not trade again after so long has not recovered at all."""

EXTRA_SHARE = 0.5
"""A long run goes on for half its time more, until every kind has occurred."""

RALLY_EVERY_S = 2.5
RALLY = {"kind": "premium", "bps": 140, "duration_s": 4.0}


class Episode(msgspec.Struct):
    """Faults that were in force together, and the recovery from all of them."""

    number: int
    faults: list[Planned] = []
    not_here: dict[str, str] = {}
    back_s: float = 0.0
    why_not: str = ""  # what was still wrong when nobody waited any more
    clean: bool = True  # all traded when it began

    @property
    def is_alone(self) -> bool:
        """Whether the recovery is one fault's own."""
        return len(self.faults) == 1


class Adversary:
    """Breaks what the schedule says; ``say`` takes a line of progress."""

    def __init__(self, world, watch: Watch, say: Callable[[str], None]) -> None:
        self._world, self._watch, self._say = world, watch, say
        self.episodes: list[Episode] = []
        self.resumed = 0

    def run(self, planned: list[Planned], run_s: float) -> None:
        """Carry out what fits ``run_s``; then everything is healed."""
        began_s = time.monotonic()
        numbers = sorted({fault.episode for fault in planned})
        for number in numbers:
            together = [fault for fault in planned if fault.episode == number]
            elapsed_s = time.monotonic() - began_s
            if elapsed_s > run_s and not self._must_go_on(elapsed_s, run_s):
                return
            # Late is late: what is to come shifts, and nothing is left out in between.
            time.sleep(max(0.0, min(together[0].at_s - elapsed_s, 2.0)))
            self._resume_if_stopped()
            self._episode(number, together, time.monotonic() - began_s)

    def _must_go_on(self, elapsed_s: float, run_s: float) -> bool:
        met = {fault.kind for episode in self.episodes for fault in episode.faults}
        tried = {kind for episode in self.episodes for kind in episode.not_here}
        is_complete = {kind.name for kind in KINDS} <= met | tried
        return run_s >= LONG_RUN_S and not is_complete and elapsed_s < run_s * (1 + EXTRA_SHARE)

    def _episode(self, number: int, together: list[Planned], at_s: float) -> None:
        look = self._watch.newest
        episode = Episode(number, clean=look is not None and not look.problems)
        under_way: list[tuple[float, faults.Broken]] = []
        replaced: list[Callable[[], bool]] = []
        since_s = time.monotonic()
        first_s = together[0].at_s
        began_s = since_s
        for fault in together:
            time.sleep(max(0.0, began_s + (fault.at_s - first_s) - time.monotonic()))
            try:
                broken = faults.begin(self._world, fault)
            except faults.NotHere as error:
                episode.not_here[fault.kind] = str(error)
                continue
            since_s = time.monotonic()
            episode.faults.append(fault)
            due_s = since_s + fault.duration_s if fault.duration_s else 0.0
            under_way.append((due_s, broken))
            if broken.is_replaced is not faults.at_once:
                replaced.append(broken.is_replaced)
        lasting = [(due_s, broken) for due_s, broken in under_way if due_s > 0]
        for due_s, broken in sorted(lasting, key=lambda one: one[0]):
            time.sleep(max(0.0, due_s - time.monotonic()))
            broken.heal()
            since_s = time.monotonic()
        is_replaced = (lambda: all(one() for one in replaced)) if replaced else faults.at_once
        if episode.faults:
            episode.back_s, episode.why_not = self._watch.until_well(
                since_s, is_replaced, RECOVER_MAX_S
            )
        for due_s, broken in under_way:
            if not due_s:
                broken.heal()  # what has no end of its own, such as a lost node, is made up for
        self.episodes.append(episode)
        self._tell(episode, at_s)

    def _tell(self, episode: Episode, at_s: float) -> None:
        words = " + ".join(fault.words() for fault in episode.faults)
        missed = "; ".join(f"{kind} not here: {why}" for kind, why in episode.not_here.items())
        back = f"back after {episode.back_s:.1f} s" if not episode.why_not else (
            f"NOT BACK after {episode.back_s:.0f} s: {episode.why_not}"
        )  # fmt: skip
        self._say(f"{at_s:6.1f} s  {words or 'nothing'}{'; ' + missed if missed else ''}: {back}")

    def _resume_if_stopped(self) -> None:
        """Do as an operator: look at why entries are stopped, and allow them again."""
        look = self._watch.newest
        if look is None or look.risk.get("state") in (None, "active", "recovering"):
            return
        self._say(f"        risk is {look.risk['state']}: {look.risk.get('reason')}; resumed")
        try:
            self._world.act("resume", "chaos goes on")
        except requests.RequestException as error:
            self._say(f"        not resumed: {error}")
            return
        self.resumed += 1


class Rallies:
    """A livelier market: now and then one coin's premium jumps, so that somebody trades."""

    def __init__(self, world, seed: int) -> None:
        self._world, self._rng = world, random.Random(f"rallies:{seed}")
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rallies", daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join(10)

    def _run(self) -> None:
        while not self._over.wait(self._rng.uniform(0, 2 * RALLY_EVERY_S)):
            coin = self._rng.choice(self._world.symbols)
            sign = self._rng.choice((1, -1))
            try:
                self._world.exchange(RALLY | {"symbol": coin, "bps": sign * RALLY["bps"]})
            except requests.RequestException:
                continue  # the exchange is what was killed
