"""Binance spot and USDT-M perpetuals: the USDT leg."""
