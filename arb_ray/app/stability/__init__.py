"""The stability checks that an operator can run: what must hold when servers and sockets fail."""
