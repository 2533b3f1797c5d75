"""multiloop.http (being built)."""
