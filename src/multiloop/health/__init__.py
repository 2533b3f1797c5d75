"""multiloop.health (being built)."""
