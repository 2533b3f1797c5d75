# The C layout of the classes in the module of the same name, for its compiled form. Plain Python does not read it.
cdef class ServiceState:
    cdef public object app, config, loop, access, proxies
    cdef public double now_s, keep_alive_s
    cdef public long long active, requests, refused, limit_concurrency
    cdef public bint draining, closes_soon, has_task_factory
    cdef public set connections
    cdef public list readers
    cdef public dict state
    cdef public bytes date_and_server, date_line, server_line, text_head
    cpdef set_lines(self, bytes date_line, bytes server_line)
cdef class Listener:
    cdef public object tls_context, server
    cdef public int index
    cdef public bint is_tls, is_unix
    cdef public str root_path
    cdef public dict scope
cdef class Carrier:
    cdef public ServiceState service
    cdef public Listener listener
    cdef public object transport, peer_address, write_waiter
    cpdef take_exchange(self, object exchange)
    cpdef exchange_done(self, object exchange, bint close)
    cpdef bint is_last(self)
