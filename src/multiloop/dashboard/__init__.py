"""multiloop.dashboard (being built)."""
