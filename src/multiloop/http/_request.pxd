# The C layout of the classes in the module of the same name, for its compiled form. Plain Python does not read it.
from multiloop.http._exchange cimport Exchange
cdef class Request:
    cdef public Exchange _exchange
    cdef object _path, _query, _headers, _body
    cdef public object context
    cpdef begin(self, Exchange exchange)
