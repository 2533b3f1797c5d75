"""multiloop.pool (being built)."""
