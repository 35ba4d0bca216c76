"""
Every state of a trade, every actor on its path, every journal write: killed there, and judged.

``python -m tests.kill_matrix`` runs it; docs/KILL_MATRIX.md tells what a cell is.
"""
