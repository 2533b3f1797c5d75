"""multiloop.fs (being built)."""
