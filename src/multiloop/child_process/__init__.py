"""multiloop.child_process (being built)."""
