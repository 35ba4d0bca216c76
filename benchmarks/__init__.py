"""What arb_ray costs and reaches, measured; see README.md."""
