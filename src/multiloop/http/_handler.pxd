# The C layout of the classes in the module of the same name, for its compiled form. Plain Python does not read it.
cimport cython
from multiloop.http._exchange cimport Exchange
from multiloop.http._request cimport Request
from multiloop.http._state cimport ServiceState
cdef class HandlerExchange(Exchange):
    cdef public object task
    @cython.locals(made=HandlerExchange)
    cpdef Exchange fresh(self, object connection, str method)
    @cython.locals(request=Request)
    cpdef start(self)
    @cython.locals(service=ServiceState, plain=bint, body=bytes, size=Py_ssize_t)
    cpdef _reply_text(self, str text)
cdef class NodeExchange(HandlerExchange):
    cdef public object response
    @cython.locals(made=NodeExchange)
    cpdef Exchange fresh(self, object connection, str method)
