"""multiloop.testing (being built)."""
