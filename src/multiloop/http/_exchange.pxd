# The C layout of the classes in the module of the same name, for its compiled form. Plain Python does not read it.
cdef class Exchange:
    cdef object __weakref__
    cdef public object connection, method, path, query, headers, http_version
    cdef public bint keep_alive, expect_continue, body_done, gone, started
    cdef public bint _close_after, _chunked, _no_body, _has_date, _has_server
    cdef public int reply_state, status
    cdef public long long sent_bytes, _buffered_bytes, _left_bytes
    cdef public object trailers, upgrade_rest, _body, _waiter, _head, started_at_s
    cpdef void feed_body(self, bytes body) except *
    cpdef void feed_end(self) except *
    cpdef void wake(self) except *
    cpdef start_reply(self, int status, object headers)
    cpdef list _finish_head(self, long long body_bytes, bint more)
    cpdef finish(self)
