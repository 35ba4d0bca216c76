"""Cross-exchange arbitrage between Upbit and Binance, on paper, on Ray."""

__version__ = "0.1.0"

if not __debug__:
    # A bug must stop the process, and assertions are how it is noticed.
    raise RuntimeError("arb_ray checks itself by assertions: run Python without -O")
