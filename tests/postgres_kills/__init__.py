"""PostgreSQL killed and started again, over and over, while everything writes."""
