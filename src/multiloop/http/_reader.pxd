# The C layout of the classes in the module of the same name, for its compiled form. Plain Python does not read it.
cdef class RequestReader:
    cdef public object connection, exchange, parser, refused, config
    cdef public bytes target
    cdef public list headers, special
    cdef public bint in_message, in_body
    cdef public long long fed_bytes, body_bytes, left_bytes, chunks, trailer_bytes
