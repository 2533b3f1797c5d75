"""multiloop.stream (being built)."""
