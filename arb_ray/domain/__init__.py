"""The nouns of cross-exchange arbitrage: pure data, exact money, no clock and no socket."""
