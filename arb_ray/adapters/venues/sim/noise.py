"""
Random paths that can be entered anywhere: the value at a step is a function of its key.

A path has nodes a day apart, minutes between two nodes, and steps of 100 ms within a
minute. Each finer level is drawn forward and then bent so that it ends at the coarser
level's next node (the exact conditional law for a Gaussian walk or an Ornstein-Uhlenbeck
process). Reaching any instant costs one day's minutes and one minute's steps, whatever
came before.
"""

from __future__ import annotations

import abc
import hashlib
import math
import random
from array import array
from functools import lru_cache
from statistics import NormalDist

STEP_MS = 100
STEP_NS = STEP_MS * 1_000_000
STEPS_PER_S = 10
STEPS_PER_MINUTE = 600
MINUTES_PER_DAY = 1_440
STEPS_PER_DAY = STEPS_PER_MINUTE * MINUTES_PER_DAY

MASK = (1 << 64) - 1
NODE_MEMORY = 1e-9  # a node forgets the past once it weighs less than this
NODES_MAX = 1_000  # and looks back at most so many days
SECONDS_PER_MINUTE = 60
TAIL_POWER = 0.38  # a second's scale is u**-0.38: tails like Student's t with 2.6 degrees (F)
TAIL_SCALE = math.sqrt(1 - 2 * TAIL_POWER)
CLOCK_MINUTES_MAX = 8 * MINUTES_PER_DAY  # of busyness remembered (1 MB); then drawn again, alike
TAIL_UNIT_MIN = 1e-4  # no second is wilder than one in some three hours, 33 times the mildest

_NORMAL = NormalDist()
NORMALS = tuple(_NORMAL.inv_cdf((i + 0.5) / 1024) for i in range(1024))
"""The normal distribution as a table: ``NORMALS[bits & 1023]`` is one cheap draw."""


def key_of(seed: int, *parts: object) -> int:
    """Name a random stream: 64 bits that differ for any two different names."""
    text = "|".join([str(seed), *map(str, parts)]).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")


def bits(key: int, counter: int) -> int:
    """Return 64 random bits of stream ``key`` at ``counter`` (the splitmix64 finaliser)."""
    x = (key ^ (counter * 0x9E3779B97F4A7C15)) & MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def unit(key: int, counter: int) -> float:
    """Return a uniform number in [0, 1) of stream ``key`` at ``counter``."""
    return (bits(key, counter) >> 11) * 2.0**-53


def stream(key: int, counter: int) -> random.Random:
    """Return the generator of block ``counter``: a market, not a secret, is drawn from it."""
    return random.Random(bits(key, counter))  # noqa: S311


def normals(key: int, counter: int, count: int) -> list[float]:
    """Return ``count`` standard normal draws of block ``counter``."""
    # What Random.gauss draws, two at a time and without its call: a coin's day is 5,760 of them.
    uniform = stream(key, counter).random
    cos, sin, sqrt, log = math.cos, math.sin, math.sqrt, math.log
    drawn: list[float] = []
    for _ in range((count + 1) // 2):
        angle = uniform() * math.tau
        radius = sqrt(-2.0 * log(1.0 - uniform()))
        drawn.append(cos(angle) * radius)
        drawn.append(sin(angle) * radius)
    return drawn[:count]


class VolatilityClock:
    """
    How busy a minute is: a multiplier of volatility whose mean square is one.

    Log-normal, with a part that lasts for hours and a part of its own for each minute.
    """

    def __init__(self, key: int, hour_sigma: float, minute_sigma: float) -> None:
        self._key = key
        self._hour_sigma = hour_sigma
        self._minute_sigma = minute_sigma
        # Interpolating two independent hours leaves two thirds of their variance on average.
        self._shift = hour_sigma**2 * 2 / 3 + minute_sigma**2
        self._known: dict[int, float] = {}

    def at_minute(self, minute: int) -> float:
        """Return the multiplier of ``minute``, counted from the origin."""
        known = self._known.get(minute)
        if known is None:
            # All coins ask for the same days, so most of what is asked for is known.
            if len(self._known) >= CLOCK_MINUTES_MAX:
                self._known.clear()
            known = self._known[minute] = self._draw(minute)
        return known

    def _draw(self, minute: int) -> float:
        hour, rest = divmod(minute, 60)
        low = NORMALS[bits(self._key, hour) & 1023]
        high = NORMALS[bits(self._key, hour + 1) & 1023]
        slow = low + (high - low) * rest / 60
        own = NORMALS[bits(self._key ^ 0x5DEECE66D, minute) & 1023]
        return math.exp(self._hour_sigma * slow + self._minute_sigma * own - self._shift)


class Path(abc.ABC):
    """What all paths share: blocks of one minute, the last two kept."""

    def __init__(self, key: int, half_life_s: float, node_std: float, offset: int) -> None:
        self._key = key
        self.offset = offset
        self._node_phi = 0.5 ** (86_400 / half_life_s)
        self._node_std = node_std
        self._days: dict[int, array[float]] = {}
        self._normals: dict[int, list[float]] = {}
        self._low = self._old_low = -(1 << 62)
        self._values = self._old_values = array("d")

    def at(self, step: int) -> float:
        """Return the value at ``step`` (100 ms each, counted from the origin)."""
        at = step + self.offset
        low = self._low
        if low <= at < low + STEPS_PER_MINUTE:
            return self._values[at - low]
        low = self._old_low
        if low <= at < low + STEPS_PER_MINUTE:
            return self._old_values[at - low]
        self._old_low, self._old_values = self._low, self._values
        self._low = at - at % STEPS_PER_MINUTE
        day, minute = divmod(self._low // STEPS_PER_MINUTE, MINUTES_PER_DAY)
        minutes = self._minutes_of(day)
        self._values = self._steps(
            self._low // STEPS_PER_MINUTE, minutes[minute], minutes[minute + 1]
        )
        return self._values[at - self._low]

    def minute_normals(self, day: int) -> list[float]:
        """Return the draws behind a day's minutes, which a driven path shares."""
        drawn = self._normals.get(day)
        if drawn is None:
            if len(self._normals) >= 2:
                self._normals.clear()
            drawn = self._normals[day] = normals(self._key ^ 0xDA1, day, MINUTES_PER_DAY)
        return drawn

    def _node(self, day: int) -> float:
        phi = self._node_phi
        looks_back = NODES_MAX
        if phi < 1e-3:
            looks_back = 3
        elif phi < 1:
            looks_back = min(NODES_MAX, math.ceil(math.log(NODE_MEMORY) / math.log(phi)))
        fresh = math.sqrt(1 - phi * phi)
        value = 0.0
        for past in range(day - looks_back, day + 1):
            value = phi * value + fresh * NORMALS[bits(self._key ^ 0xDA7, past) & 1023]
        return value * self._node_std

    def _minutes_of(self, day: int) -> array[float]:
        minutes = self._days.get(day)
        if minutes is None:
            if len(self._days) >= 2:
                del self._days[min(self._days)]
            minutes = self._days[day] = self._minutes(day, self._node(day), self._node(day + 1))
            self._normals.clear()
        return minutes

    @abc.abstractmethod
    def _minutes(self, day: int, start: float, end: float) -> array[float]:
        """Fill a day with minutes between its two ends."""

    @abc.abstractmethod
    def _steps(self, minute: int, start: float, end: float) -> array[float]:
        """Fill a minute with steps between its two ends."""


class Wander(Path):
    """
    A price's path in bps: a random walk with busy and calm minutes and fat tails.

    Over weeks it is drawn back to zero, so that a simulated coin keeps its order of
    magnitude however old the origin is.
    """

    def __init__(
        self, key: int, vol_bps_per_sqrt_s: float, clock: VolatilityClock, half_life_days: float
    ) -> None:
        day_std = vol_bps_per_sqrt_s * math.sqrt(86_400)
        reverts = 2 * (1 - 0.5 ** (1 / half_life_days))
        super().__init__(
            key, half_life_days * 86_400, day_std / math.sqrt(reverts), key % STEPS_PER_DAY
        )
        self._vol = vol_bps_per_sqrt_s
        self._clock = clock

    def _busy(self, minute: int) -> float:
        return self._clock.at_minute(minute - self.offset // STEPS_PER_MINUTE)

    def _wildest(self, minute: int) -> float:
        """
        Return the uniform number behind the minute's wildest second, the least of sixty.

        It is known before the other seconds are drawn, so that the minute as a whole can
        move as far as its wildest second does; else a jump would be bent away again.
        """
        others: float = (1 - unit(self._key ^ 0x7A11, minute)) ** (1 / SECONDS_PER_MINUTE)
        least = 1 - others
        return max(TAIL_UNIT_MIN, least)

    def _minutes(self, day: int, start: float, end: float) -> array[float]:
        first = day * MINUTES_PER_DAY
        scale = self._vol * math.sqrt(60)
        sums, variances = [0.0], [0.0]
        total = variance = 0.0
        for i, draw in enumerate(self.minute_normals(day)):
            spread = self._busy(first + i) * scale * _minute_spread(self._wildest(first + i))
            total += spread * draw
            variance += spread * spread
            sums.append(total)
            variances.append(variance)
        bend = (end - start - total) / variance
        return array("d", [start + s + v * bend for s, v in zip(sums, variances, strict=True)])

    def _steps(self, minute: int, start: float, end: float) -> array[float]:
        rng = stream(self._key ^ 0x57E9, minute)
        gauss, uniform = rng.gauss, rng.random
        scale = self._busy(minute) * self._vol * math.sqrt(STEP_MS / 1_000)
        sums, variances = [0.0], [0.0]
        total = variance = 0.0
        least = self._wildest(minute)
        wildest = int(uniform() * SECONDS_PER_MINUTE)
        for second in range(SECONDS_PER_MINUTE):
            drawn = least if second == wildest else 1.0 - uniform() * (1.0 - least)
            spread = scale * TAIL_SCALE * drawn**-TAIL_POWER
            for _ in range(STEPS_PER_S):
                total += gauss(0.0, spread)
                variance += spread * spread
                sums.append(total)
                variances.append(variance)
        bend = (end - start - total) / variance
        return array("d", [start + s + v * bend for s, v in zip(sums, variances, strict=True)])


def _minute_spread(least: float) -> float:
    """Return the spread of a minute with this wildest second, over that of a mean minute."""
    rest = (1 - least ** (1 - 2 * TAIL_POWER)) / ((1 - 2 * TAIL_POWER) * (1 - least))
    others = (SECONDS_PER_MINUTE - 1) * rest
    return TAIL_SCALE * math.sqrt((others + least ** (-2 * TAIL_POWER)) / SECONDS_PER_MINUTE)


class Reverting(Path):
    """
    An Ornstein-Uhlenbeck path in bps: ``std`` at rest, forgetting half in ``half_life_s``.

    ``driver`` and ``rho`` correlate its minutes with another path's, which is how KRW
    premia lean against the coin's own moves.
    """

    def __init__(
        self,
        key: int,
        std_bps: float,
        half_life_s: float,
        *,
        draws_per_minute: int = 60,
        driver: Path | None = None,
        rho: float = 0.0,
    ) -> None:
        assert STEPS_PER_MINUTE % draws_per_minute == 0
        offset = driver.offset if driver else key % STEPS_PER_DAY
        super().__init__(key, half_life_s, std_bps, offset)
        self._std = std_bps
        self._half_life_s = half_life_s
        self._draws = draws_per_minute
        self._driver = driver
        self._rho = rho
        self._day_bend = _bends(60 / half_life_s, MINUTES_PER_DAY)
        self._minute_bend = _bends(60 / draws_per_minute / half_life_s, draws_per_minute)

    def _minutes(self, day: int, start: float, end: float) -> array[float]:
        draws = self.minute_normals(day)
        if self._driver is not None:
            rho, own = self._rho, math.sqrt(1 - self._rho**2)
            shared = self._driver.minute_normals(day)
            draws = [rho * a + own * b for a, b in zip(shared, draws, strict=True)]
        return self._bridge(start, end, draws, 60, self._day_bend)

    def _steps(self, minute: int, start: float, end: float) -> array[float]:
        count = self._draws
        draws = normals(self._key ^ 0x57E9, minute, count)
        coarse = self._bridge(start, end, draws, 60 / count, self._minute_bend)
        each = STEPS_PER_MINUTE // count
        if each == 1:
            return coarse
        fine = array("d")
        for i in range(count):
            low, rise = coarse[i], (coarse[i + 1] - coarse[i]) / each
            fine.extend([low + rise * j for j in range(each)])
        return fine

    def _bridge(
        self, start: float, end: float, draws: list[float], dt_s: float, bend: array[float]
    ) -> array[float]:
        phi = 0.5 ** (dt_s / self._half_life_s)
        fresh = self._std * math.sqrt(1 - phi * phi)
        value, values = start, [start]
        for draw in draws:
            value = phi * value + fresh * draw
            values.append(value)
        miss = end - value
        return array("d", [v + miss * b for v, b in zip(values, bend, strict=True)])


@lru_cache(maxsize=64)
def _bends(half_lives_per_step: float, count: int) -> array[float]:
    """
    How much of the miss at the end is added at each step: sinh(kt) / sinh(kT), stably.

    All coins of a preset share these few tables; nobody changes one.
    """
    rate = math.log(2) * half_lives_per_step
    whole = -math.expm1(-2 * rate * count)
    return array(
        "d",
        [math.exp(-rate * (count - i)) * -math.expm1(-2 * rate * i) / whole for i in range(count)]
        + [1.0],
    )


class Shots:
    """
    Rare bursts in bps: at most one a window, rising for ``rise_s``, then decaying by halves.

    Sign, size, half-life and the moment within the window are functions of the key.
    """

    def __init__(
        self,
        key: int,
        *,
        window_s: float,
        chance: float,
        size_bps: tuple[float, float],
        half_life_s: tuple[float, float],
        rise_s: float,
    ) -> None:
        self._key = key
        self._window = window_s
        self._chance = chance
        self._size = size_bps
        self._half_life = half_life_s
        self._rise = rise_s
        # Ten half-lives leave a thousandth of the largest burst: below every tick.
        self._looks_back = math.ceil((10 * half_life_s[1] + rise_s) / window_s)
        self._known: dict[int, tuple[float, float, float] | None] = {}

    def at(self, t_s: float) -> float:
        """Return the sum of the bursts alive at ``t_s`` seconds from the origin."""
        window = math.floor(t_s / self._window)
        total = 0.0
        for index in range(window - self._looks_back, window + 1):
            shot = self._known[index] if index in self._known else self._draw(index)
            if shot is None or t_s < shot[0]:
                continue
            age = t_s - shot[0]
            if age < self._rise:
                total += shot[1] * age / self._rise
            else:
                total += shot[1] * 0.5 ** ((age - self._rise) / shot[2])
        return total

    def _draw(self, index: int) -> tuple[float, float, float] | None:
        if len(self._known) > 4 * (self._looks_back + 4):
            self._known.clear()
        rng = stream(self._key, index)
        shot = None
        if rng.random() < self._chance:
            sign = 1.0 if rng.random() < 0.5 else -1.0
            start = (index + rng.random()) * self._window
            shot = (start, sign * rng.uniform(*self._size), rng.uniform(*self._half_life))
        self._known[index] = shot
        return shot
