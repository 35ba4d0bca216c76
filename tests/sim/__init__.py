"""
The whole trading engine in one process from one seed, while everything around it fails.

``python -m tests.sim --seeds 1000`` runs it; docs/SIMULATION.md tells what it covers.
"""
