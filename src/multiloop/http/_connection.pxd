# The C layout of the classes in the module of the same name, for its compiled form. Plain Python does not read it.
from multiloop.http._exchange cimport Exchange
from multiloop.http._reader cimport RequestReader
cdef class Connection:
    cdef object __weakref__
    cdef public object service, config, listener, transport, upgraded
    cdef public int phase
    cdef public double deadline_s, write_since_s, body_since_s
    cdef public RequestReader reader
    cdef public Exchange current
    cdef public bint eof, _pumping, reading_paused
    cdef public list _queue
    cdef public object _backlog, _refusal, _write_waiter, _peer, _on_first_byte, _on_closed
    cdef public int _served
    cdef public long long _lingered
    cpdef _feed(self, object data)
    cpdef void queue_exchange(self, Exchange exchange) except *
    cpdef _start(self, Exchange exchange)
    cpdef bint _last_keeps_alive(self)
    cpdef bint is_last(self)
