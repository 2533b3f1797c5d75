"""The cluster: a primary that owns the listening sockets, and one worker with one loop on every core.

What lives here: public names. The parts: `_settings` `_policy` and `_supervisor` (pure) `_primary` and `_worker` (I/O).
"""
