# The C layout of the classes in the module of the same name, for its compiled form. Plain Python does not read it.
cimport cython
from multiloop.http._exchange cimport Exchange
from multiloop.http._reader cimport RequestReader
from multiloop.http._state cimport Carrier, ServiceState
cdef class Connection(Carrier):
    cdef object __weakref__
    cdef public RequestReader reader
    cdef public Exchange current
    cdef public object upgraded, _backlog, _refusal, _on_first_byte, _on_closed
    cdef public list _queue
    cdef public int phase, _served
    cdef public bint eof, _pumping, reading_paused
    cdef public double deadline_s, write_since_s, body_since_s
    cdef public long long _lingered
    @cython.locals(current=Exchange)
    cpdef data_received(self, object data)
    @cython.locals(reader=RequestReader, service=ServiceState, size=Py_ssize_t, current=Exchange, last=Exchange)
    cpdef _feed(self, object data)
    @cython.locals(service=ServiceState, limit="long long")
    cpdef _start(self, Exchange exchange)
    @cython.locals(current=Exchange)
    cpdef pump(self)
    cpdef take_exchange(self, object exchange)
    @cython.locals(service=ServiceState, done=Exchange)
    cpdef exchange_done(self, object exchange, bint close)
    cpdef bint _last_keeps_alive(self)
    cpdef bint is_last(self)
