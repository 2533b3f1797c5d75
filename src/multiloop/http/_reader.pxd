# The C layout of the classes in the module of the same name, for its compiled form. Plain Python does not read it.
cimport cython
from multiloop.http._exchange cimport Exchange
from multiloop.http._state cimport Carrier
cdef class RequestReader:
    cdef public Exchange template, exchange
    cdef public Carrier connection
    cdef public object parser, refused, known_host
    cdef public bytes target, known_target, known_path, known_query
    cdef public list headers, special
    cdef public bint in_message, in_body
    cdef public long long fed_bytes, body_bytes, left_bytes, chunks, trailer_bytes
    cdef public long long max_body_size, max_header_count, max_header_line, max_header_size, max_target_size
    cpdef open_parser(self)
    cpdef feed(self, object data)
    cpdef on_message_begin(self)
    cpdef on_url(self, bytes url)
    cpdef on_header(self, bytes name, object value)
    @cython.locals(connection=Carrier, headers=list, special=list, target=bytes, made=Exchange)
    cpdef head_complete(self, str method, str version, bint keep_alive)
    cpdef on_chunk_header(self)
    @cython.locals(exchange=Exchange)
    cpdef on_body(self, bytes body)
    @cython.locals(exchange=Exchange)
    cpdef on_message_complete(self)
    cpdef count_fed(self, long long size_bytes)
