"""multiloop.worker_threads (being built)."""
