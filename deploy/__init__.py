"""What runs arb_ray in other places: dashboards, rules, container and cluster files."""
