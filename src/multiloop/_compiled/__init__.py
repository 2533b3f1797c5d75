"""The compiled twins of the hot modules, put here by the build. What must not live here: any source.

A twin's file name carries the hash of the source it was made from; `multiloop._speed` takes no other.
"""
