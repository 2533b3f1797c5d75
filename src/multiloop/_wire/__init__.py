"""multiloop._wire (being built)."""
