"""HTTP and WebSocket clients that keep each venue's limits and survive the network."""
