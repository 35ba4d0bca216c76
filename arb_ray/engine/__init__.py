"""The verbs: pure state machines that take events with their times and return effects."""
