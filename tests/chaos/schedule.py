"""
What is broken when: a pure function of the seed, without a clock and without the system.

Kinds are dealt like cards. The first deck is dealt one by one, so that each recovery is timed
alone; from the second on, and in a short run, some come as storms of
two or three at once. A kind comes again only
when all others have come.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

import msgspec

from tests.chaos.kinds import KINDS, Kind

CALM_S = 2.0
"""Between one recovery and the next fault: what comes must meet a system that trades."""

STORM_SHARE = 0.4
AHEAD = 3
"""So many times more is planned than fits."""

LONG_RUN_S = 120.0
"""A shorter run draws only kinds that are over soon."""


class Planned(msgspec.Struct, frozen=True):
    """One fault: not before ``at_s``, and together with the others of its episode."""

    episode: int
    at_s: float
    kind: str
    target: str
    duration_s: float
    amount: float

    def words(self) -> str:
        """Tell it in one line."""
        lasting = f" for {self.duration_s:.1f} s" if self.duration_s else ""
        amount = f" ({self.amount:.3g})" if self.amount else ""
        return f"{self.kind} {self.target}{amount}{lasting}"


def schedule(seed: int, run_s: float, kinds: Sequence[Kind] = KINDS) -> list[Planned]:
    """
    Return the faults of a run of ``run_s``, in the order of time.

    There are more than fit: a recovery that is faster than its allowance lets the next one come
    earlier. Times are what is planned if each takes as long as it is allowed to.
    """
    rng = random.Random(f"chaos:{seed}")
    drawn = [kind for kind in kinds if kind.is_short or run_s >= LONG_RUN_S]
    planned: list[Planned] = []
    at_s = CALM_S
    for episode, cards in enumerate(_episodes(rng, drawn, is_calm=run_s >= LONG_RUN_S)):
        faults = [_fault(rng, episode, at_s, card, index) for index, card in enumerate(cards)]
        planned += faults
        over_s = max(
            fault.at_s + fault.duration_s + card.back_s
            for fault, card in zip(faults, cards, strict=True)
        )
        at_s = over_s + CALM_S
        if at_s >= run_s * AHEAD:
            return planned
    raise AssertionError("decks never end")


def _episodes(rng: random.Random, kinds: Sequence[Kind], *, is_calm: bool) -> Iterator[list[Kind]]:
    is_first = is_calm
    while True:
        deck = list(kinds)
        rng.shuffle(deck)
        while deck:
            is_storm = not is_first and rng.random() < STORM_SHARE
            count = rng.randint(2, 3) if is_storm else 1
            yield [deck.pop() for _ in range(min(count, len(deck)))]
        is_first = False


def _fault(rng: random.Random, episode: int, at_s: float, kind: Kind, index: int) -> Planned:
    return Planned(
        episode=episode,
        at_s=round(at_s + (rng.uniform(0, 1.5) if index else 0.0), 2),
        kind=kind.name,
        target=rng.choice(kind.targets),
        duration_s=round(rng.uniform(*kind.duration_s), 2),
        amount=round(rng.uniform(*kind.amount), 3),
    )
