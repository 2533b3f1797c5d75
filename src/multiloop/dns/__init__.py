"""multiloop.dns (being built)."""
