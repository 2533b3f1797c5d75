# The C layout of the classes in the module of the same name, for its compiled form. Plain Python does not read it.
cimport cython
from multiloop.net._incoming cimport Incoming
@cython.final
cdef class Reading:
    cdef Incoming _incoming
    cdef object _resume, _context, _data, _message
    cdef public object _loop
    cdef public long long size_bytes
    cdef public bint _asyncio_future_blocking
    cdef bint _cancelled, _iterating
    cpdef deliver(self, object data)
    cpdef wake(self)
@cython.final
cdef class CallbackReading:
    cdef Incoming _incoming
    cdef public object op
    cdef long long _size_bytes
    cpdef wake(self)
