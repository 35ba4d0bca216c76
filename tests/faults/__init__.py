"""What a real run survives: killed in the middle, lost nodes, an adversary."""
