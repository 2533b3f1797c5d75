# The C layout of the classes in the module of the same name, for its compiled form. Plain Python does not read it.
cimport cython
from multiloop.http._exchange cimport Exchange
from multiloop.http._state cimport Carrier, Listener, ServiceState
cdef class Sent:
    pass
cdef class AsgiExchange(Exchange):
    cdef public bint _left, _end_told, _wants_trailers
    cdef public object scope, task, trailer_fields
    @cython.locals(made=AsgiExchange)
    cpdef Exchange fresh(self, object connection, str method)
    @cython.locals(service=ServiceState)
    cpdef start(self)
    @cython.locals(connection=Carrier, listener=Listener, service=ServiceState, scope=dict, path=bytes)
    cpdef dict make_scope(self)
    @cython.locals(event=dict, body=object, kind=str)
    cpdef send(self, object message)
