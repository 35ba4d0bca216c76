"""
Plants bugs in ``arb_ray/engine`` and ``arb_ray/domain``, one at a time, and names those that
no test noticed.

The bugs are cosmic-ray's mutations; which of them a run plants is a pure function of its seed.
Every trial runs in a copy of the tree: the checkout is only read.
"""
