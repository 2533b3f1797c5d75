"""multiloop.ipc (being built)."""
