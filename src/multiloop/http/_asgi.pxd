# The C layout of the classes in the module of the same name, for its compiled form. Plain Python does not read it.
from multiloop.http._exchange cimport Exchange
cdef class AsgiExchange(Exchange):
    cdef public bint _left, _end_told, _wants_trailers
    cdef public object scope, task, trailer_fields
    cpdef dict make_scope(self)
