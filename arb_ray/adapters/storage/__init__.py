"""PostgreSQL, Redis, the spool, recordings, and the embedded servers."""
