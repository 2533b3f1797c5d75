# The C layout of the classes in the module of the same name, for its compiled form. Plain Python does not read it.
cimport cython
from multiloop.http._state cimport Carrier, ServiceState
cdef dict _lines, _status_lines
cdef class Exchange:
    cdef object __weakref__
    cdef public Carrier connection
    cdef public object path, query, http_version, headers
    cdef public str method
    cdef public bint keep_alive, expect_continue, body_done, gone, started
    cdef public bint _close_after, _chunked, _no_body, _has_date, _has_server
    cdef public int reply_state, status
    cdef public long long sent_bytes, _buffered_bytes, _left_bytes
    cdef public object trailers, upgrade_rest, _body, _waiter, _head, started_at_s
    cpdef begin(self, object connection, str method)
    cpdef Exchange fresh(self, object connection, str method)
    cpdef start(self)
    cpdef feed_body(self, bytes body)
    cpdef feed_end(self)
    cpdef wake(self)
    cpdef bytes take_body(self)
    @cython.locals(parts=list, length="long long", close=bint, has_date=bint, has_server=bint, kind=int, found=tuple)
    cpdef start_reply(self, int status, object headers)
    @cython.locals(parts=list, service=ServiceState)
    cpdef list _finish_head(self, long long body_bytes, bint more)
    @cython.locals(parts=list, state=int)
    cpdef send_body(self, bytes body, bint more, object trailers=*, bint hold_end=*)
    cpdef finish(self)
