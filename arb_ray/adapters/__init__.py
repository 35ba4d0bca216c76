"""The outside world behind ports: sockets, exchanges, databases, logs and metrics."""
