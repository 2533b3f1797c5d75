# The C layout of the class in the module of the same name, for its compiled form. Plain Python does not read it.
cimport cython
@cython.final
cdef class Incoming:
    cdef public object flowing, hub, loop, over, reading
    cdef public object _chunks, _error, _listener, _protocol, _socket, _waiter
    cdef public long long _mark_bytes, _size_bytes
    cdef public bint _closed, _end_noticed, _end_seen, _flush_queued, _read_all, _stopped, end_emitted, has_reader
    cpdef keep(self, object data)
    cpdef begin_wait(self, object waiter, long long size_bytes, bint direct)
    cpdef end_wait(self, object waiter)
    cpdef take(self, long long size_bytes)
    cpdef _stop(self)
    cpdef _stop_kernel(self)
    cpdef _go(self)
