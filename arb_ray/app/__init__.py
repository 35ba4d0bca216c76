"""Settings, wiring and life cycle: where the parts become one system."""
