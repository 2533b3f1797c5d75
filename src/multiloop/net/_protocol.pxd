# The C layout of the class in the module of the same name, for its compiled form. Plain Python does not read it.
cimport cython
from multiloop.net._incoming cimport Incoming
from multiloop.net._reading cimport Reading
@cython.final
cdef class Protocol:
    cdef object __weakref__
    cdef public object socket, hub, deliver, idle
    cdef public Incoming incoming
    cdef public long long bytes_read
    @cython.locals(incoming=Incoming, reading=Reading)
    cpdef data_received(self, object data)
