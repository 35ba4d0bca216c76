"""The facts of a run that do not change while it runs: what the view and the summary say first."""

from __future__ import annotations

import msgspec

from arb_ray.adapters.venues.sim.presets import PRESETS


class RunContext(msgspec.Struct, frozen=True, kw_only=True):
    """
    One run, as a person names it.

    ``preset`` is None unless the source is ``sim``. ``duration_s`` is what was asked for;
    0 runs until stopped. ``venues`` are the enabled ones, Upbit first.
    """

    session_id: str
    env: str
    source: str
    preset: str | None
    seed: int
    symbols: tuple[str, ...]
    venues: tuple[str, ...]
    duration_s: float
    gateway_url: str = ""

    @property
    def is_real_market(self) -> bool:
        """Tell data that a real market sent from data that we made."""
        return self.source != "sim"

    @property
    def is_realistic(self) -> bool:
        """Tell whether prices behave as real ones do; a made-up edge is not realistic."""
        return self.preset is None or PRESETS[self.preset].is_realistic

    @property
    def market_words(self) -> str:
        """Name the market in few words, and say at once when it is not like a real one."""
        match self.source:
            case "paper":
                return "live public data, orders on paper"
            case "recorded" | "replay":
                return "recorded frames of the real venues, orders on paper"
        if self.preset == "lively":
            return "lively: not a real market"
        if self.preset == "stress":
            return "stress: not a real market, one panic after another"
        return f"{self.preset}: simulated, calibrated to real recordings"

    @property
    def market_label(self) -> str:
        """Return the preset's own long label; empty for a source that is not simulated."""
        return "" if self.preset is None else PRESETS[self.preset].label
