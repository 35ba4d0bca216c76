"""Cross-exchange arbitrage between Upbit and Binance, on paper, on Ray."""

__version__ = "0.1.0"
