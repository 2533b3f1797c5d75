# The C layout of the classes in the module of the same name, for its compiled form. Plain Python does not read it.
from multiloop.http._exchange cimport Exchange
cdef class HandlerExchange(Exchange):
    cdef public object task
    cpdef _fast_text(self, str text)
cdef class NodeExchange(HandlerExchange):
    cdef public object response
