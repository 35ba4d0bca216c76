"""The tick plane within a node: the newest books in shared memory, and a bell for who sleeps."""
