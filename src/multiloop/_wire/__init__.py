"""What goes over wires, as pure code: bytes in, events out.

What lives here: frames and pickles between processes, the messages of a cluster, the rules of HTTP/1.1 and WebSocket. What
must not: a socket, a clock, a loop (an import rule proves it).
"""
