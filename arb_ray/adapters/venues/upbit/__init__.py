"""Upbit (Korea): the KRW leg and the executable KRW-USDT rate."""
