"""Programs that fork themselves: the programmable cluster.

What lives here: the two roles of such a program, and what both share. What must not: `multiloop serve`, which has the
same machinery below (dealing, doors, policies, pages, the supervisor) and another shell around it.

    _role                                am I a worker, and what was I given
    _command  _options                   pure: how a worker is started
    _primary  _worker  _process          the primary, and a worker as it has it
    _board                               the listeners that workers asked for
    _member  _self                       the worker, and its own end
    _reception  _handed  _routes  _asyncio_server     its listeners, connections, and everybody's `create_server`
    _talk  _neighbours  _peer  _relay    requests and replies; messages between workers
    _sharing  _locks  _counters          what all of them share
    _flock                               who may have connections (pure)
    _supervision                         the supervisor of `serve` in its place
"""
