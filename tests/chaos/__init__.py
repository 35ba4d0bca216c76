"""
``make chaos``: the whole system in a livelier market, and an adversary with a seed.

``schedule`` says what is broken when, as a pure function of the seed; ``world`` has the servers,
the proxies and the Ray nodes; ``adversary`` carries the schedule out through ``faults``;
``watch`` measures how long it takes until all trade again; ``verdict`` judges the end.
See docs/CHAOS.md.
"""
