"""multiloop.net (being built)."""
