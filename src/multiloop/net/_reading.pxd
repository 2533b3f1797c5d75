# The C layout of the classes in the module of the same name, for its compiled form. Plain Python does not read it.
cimport cython
from multiloop.net._incoming cimport Incoming
@cython.final
@cython.freelist(32)
cdef class Reading:
    cdef Incoming _incoming
    cdef object _resume, _context, _data, _message
    cdef public object _asyncio_future_blocking, _loop
    cdef public long long size_bytes
    cdef bint _cancelled, _iterating, _used, _waiting
    @cython.locals(incoming=Incoming)
    cpdef step(self)
    cpdef close(self)
    cpdef deliver(self, object data)
    cpdef wake(self)
@cython.final
cdef class CallbackReading:
    cdef Incoming _incoming
    cdef public object op
    cdef long long _size_bytes
    cpdef wake(self)
