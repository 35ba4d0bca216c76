"""Two hundred open positions, kill -9 of everything, and the time until it trades again."""
