"""multiloop.cli (being built)."""
