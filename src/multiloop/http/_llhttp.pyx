# cython: language_level=3
"""A reader that takes its events from llhttp in C: the compiled form of what httptools' callbacks do for `_reader`.

What lives here: `NativeReader`. What must not: rules (they are `_reader`'s and `_wire.http1`'s), a parser of our own.

httptools carries llhttp and exports its functions. A parser of httptools' owns the memory of each parser here, so sizes are
always right; its callbacks are replaced by ours. Where in that memory the callbacks and the user's pointer lie is found by
looking (`_find_layout`), and then tried: an httptools that is built otherwise makes this module fail to import with one line,
and `_reader` works with its public interface instead.

Fields that are the same as in the message before (most are, on a connection or behind a proxy) are not made anew: the pair of
bytes objects is shared. Only short values are remembered, so that 64 spare readers cannot hold much.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from libc.string cimport memcmp, strcmp

from multiloop.http._reader cimport RequestReader

import httptools
from httptools.parser import parser as _carrier

from multiloop._wire.http1 import METHOD_NAMES, SPECIAL_REQUEST_FIELDS, BadRequest

cdef extern from "dlfcn.h":
    void *dlopen(const char *path, int mode)
    void *dlsym(void *handle, const char *name)
    int RTLD_NOW

ctypedef int (*Execute)(void *, const char *, size_t) noexcept
ctypedef unsigned char (*Small)(const void *) noexcept
ctypedef int (*Whole)(const void *) noexcept
ctypedef const char *(*Text)(const void *) noexcept
ctypedef const char *(*Name)(int) noexcept
ctypedef void (*Act)(void *) noexcept

cdef Execute _execute
cdef Small _get_method, _get_major, _get_minor, _get_upgrade
cdef Whole _should_keep_alive
cdef Text _get_error_pos, _get_error_reason
cdef Name _method_name, _errno_name
cdef Act _resume_after_upgrade

DEF SLOTS = 9
# In the order in which every llhttp declares them (llhttp_settings_t); between them may be others.
_EVENTS = ("on_message_begin", "on_url", "field", "value", "on_headers_complete", "on_body", "on_message_complete",
           "on_chunk_header", "on_chunk_complete")
cdef int _slots[SLOTS]
cdef Py_ssize_t _self_at  # where in llhttp_t the user's pointer is, in bytes

DEF MEMO_FIELDS = 32
DEF MEMO_VALUE_BYTES = 256
cdef list _methods = [None] * 256


class _Probe:
    """Notes which of httptools' callbacks are called."""

    def __init__(self):
        self.events = []

    def on_message_begin(self): self.events.append("on_message_begin")
    def on_url(self, url): self.events.append("on_url")
    def on_header(self, name, value): self.events += ["field" if name == b"a" else "", "value" if value == b"b" else ""]
    def on_headers_complete(self): self.events.append("on_headers_complete")
    def on_body(self, body): self.events.append("on_body")
    def on_message_complete(self): self.events.append("on_message_complete")
    def on_chunk_header(self): self.events.append("on_chunk_header")
    def on_chunk_complete(self): self.events.append("on_chunk_complete")


cdef inline void **_memory_of(object parser) noexcept:
    # PyObject_HEAD, the pointer to the methods of a Cython class, then llhttp_t* and llhttp_settings_t*.
    return <void **>(<char *><PyObject *>parser + sizeof(PyObject) + sizeof(void *))


cdef int _find_layout() except -1:
    global _self_at
    cdef object parser = httptools.HttpRequestParser(_Probe())
    cdef void **memory = _memory_of(parser)
    cdef void **fields = <void **>memory[0]
    cdef void **settings = <void **>memory[1]
    cdef int at, found = 0
    for at in range(16):
        if fields[at] == <void *>parser:
            _self_at = at * sizeof(void *)
            break
    else:
        raise ImportError("this httptools keeps its parser elsewhere")
    for at in range(32):
        if settings[at] != NULL:
            _slots[found] = at
            found += 1
            if found == SLOTS:
                break
    if found < SLOTS:
        raise ImportError("this httptools has other callbacks")
    return 0


cdef int _try_layout() except -1:
    """Take away one callback after the other: its own event must be missing, and none before it.

    (A field without a value is not told either; without the end of the head httptools refuses what follows.)
    """
    cdef bytes sample = b"POST /x HTTP/1.1\r\na: b\r\ntransfer-encoding: chunked\r\n\r\n1\r\nc\r\n0\r\n\r\n"
    cdef int slot
    for slot in range(-1, SLOTS):
        probe = _Probe()
        parser = httptools.HttpRequestParser(probe)
        if slot >= 0:
            (<void **>_memory_of(parser)[1])[_slots[slot]] = NULL
        code = _execute(_memory_of(parser)[0], PyBytes_AS_STRING(sample), len(sample))
        missing = [name for name in _EVENTS if name not in probe.events]
        if slot < 0:
            if code != 0 or missing:
                raise ImportError("the llhttp in this httptools cannot be called")
        elif missing[:1] != [_EVENTS[slot]] and missing[:2] != ["field", _EVENTS[slot]]:
            raise ImportError("this httptools has its callbacks in another order")
    return 0


cdef void *_symbol(void *library, const char *name) except NULL:
    cdef void *found = dlsym(library, name)
    if found == NULL:
        raise ImportError(f"this httptools does not export {(<bytes>name).decode()}")
    return found


cdef int _bind() except -1:
    global _execute, _get_method, _get_major, _get_minor, _get_upgrade, _should_keep_alive
    global _get_error_pos, _get_error_reason, _method_name, _errno_name, _resume_after_upgrade
    cdef bytes path = _carrier.__file__.encode()
    cdef void *library = dlopen(path, RTLD_NOW)  # it is loaded: this only finds it
    if library == NULL:
        raise ImportError("httptools' library cannot be opened again")
    _execute = <Execute>_symbol(library, "llhttp_execute")
    _get_method = <Small>_symbol(library, "llhttp_get_method")
    _get_major = <Small>_symbol(library, "llhttp_get_http_major")
    _get_minor = <Small>_symbol(library, "llhttp_get_http_minor")
    _get_upgrade = <Small>_symbol(library, "llhttp_get_upgrade")
    _should_keep_alive = <Whole>_symbol(library, "llhttp_should_keep_alive")
    _get_error_pos = <Text>_symbol(library, "llhttp_get_error_pos")
    _get_error_reason = <Text>_symbol(library, "llhttp_get_error_reason")
    _method_name = <Name>_symbol(library, "llhttp_method_name")
    _errno_name = <Name>_symbol(library, "llhttp_errno_name")
    _resume_after_upgrade = <Act>_symbol(library, "llhttp_resume_after_upgrade")
    return 0


_bind()
_find_layout()
_try_layout()


cdef class NativeReader(RequestReader):
    """A `RequestReader` that llhttp calls directly."""

    cdef void *_llhttp  # owned by `parser`
    cdef object _error  # what a callback raised
    # The field that is being read: its parts in the buffer that is being fed, and before them those of earlier buffers.
    cdef const char *_name_at
    cdef const char *_value_at
    cdef size_t _name_size, _value_size
    cdef bytes _name_part, _value_part
    cdef bint _has_value
    # The fields of the message before: name as it came, pair, whether it is a special one.
    cdef list _known_names, _known_pairs, _known_special

    cpdef open_parser(self):
        cdef void **settings
        self._known_names, self._known_pairs, self._known_special = [], [], []
        self.parser = httptools.HttpRequestParser(_Probe())
        self._llhttp = _memory_of(self.parser)[0]
        (<void **>(<char *>self._llhttp + _self_at))[0] = <void *>self
        settings = <void **>_memory_of(self.parser)[1]
        settings[_slots[0]] = <void *>_message_began
        settings[_slots[1]] = <void *>_url_came
        settings[_slots[2]] = <void *>_name_came
        settings[_slots[3]] = <void *>_value_came
        settings[_slots[4]] = <void *>_head_ended
        settings[_slots[5]] = <void *>_body_came
        settings[_slots[6]] = <void *>_message_ended
        settings[_slots[7]] = <void *>_chunk_began
        settings[_slots[8]] = NULL

    cpdef feed(self, object data):
        cdef Py_buffer buffer
        if type(data) is bytes:
            self._run(PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
            return
        PyObject_GetBuffer(data, &buffer, PyBUF_SIMPLE)
        try:
            self._run(<const char *>buffer.buf, buffer.len)
        finally:
            PyBuffer_Release(&buffer)

    cdef int _run(self, const char *at, Py_ssize_t size) except -1:
        cdef int code = _execute(self._llhttp, at, size)
        if code != 0:
            self._raise(code, at)
        if self._name_at != NULL:  # a field goes on in the next buffer
            self._name_part = _joined(self._name_part, self._name_at, self._name_size)
            self._name_at = NULL
        if self._value_at != NULL:
            self._value_part = _joined(self._value_part, self._value_at, self._value_size)
            self._value_at = NULL
        return 0

    cdef int _raise(self, int code, const char *at) except -1:
        cdef const char *name = _errno_name(code)
        error, self._error = self._error, None
        if strcmp(name, "HPE_PAUSED_UPGRADE") == 0 and _get_upgrade(self._llhttp):
            offset = _get_error_pos(self._llhttp) - at
            _resume_after_upgrade(self._llhttp)
            raise httptools.HttpParserUpgrade(offset)
        cdef const char *reason = _get_error_reason(self._llhttp)
        text = (<bytes>reason).decode("latin-1") if reason != NULL else (<bytes>name).decode()
        if error is not None:
            if isinstance(error, BadRequest):
                raise error
            raise httptools.HttpParserCallbackError(text) from error
        if strcmp(name, "HPE_INVALID_METHOD") == 0:
            raise httptools.HttpParserInvalidMethodError(text)
        if strcmp(name, "HPE_INVALID_URL") == 0:
            raise httptools.HttpParserInvalidURLError(text)
        raise httptools.HttpParserError(text)

    # -- fields ------------------------------------------------------------------------------------------------------
    cdef int _field_came(self) except -1:
        """A field is complete: name and value."""
        cdef bytes name
        cdef tuple pair
        cdef list headers = self.headers
        cdef Py_ssize_t index = len(headers)
        cdef bint is_special
        cdef const char *value_at = self._value_at
        cdef size_t value_size = self._value_size
        self._has_value = False
        if self._name_part is not None or self._value_part is not None or self.in_body or index >= MEMO_FIELDS:
            self._field_in_parts()
            return 0
        while value_size and (value_at[value_size - 1] == 32 or value_at[value_size - 1] == 9):
            value_size -= 1
        if index < len(self._known_names) and _is_same(<bytes>self._known_names[index], self._name_at, self._name_size):
            pair = <tuple>self._known_pairs[index]
            is_special = <object>self._known_special[index] is True
            if not _is_same(<bytes>pair[1], value_at, value_size):
                pair = (pair[0], value_at[:value_size])
                if value_size <= MEMO_VALUE_BYTES:
                    self._known_pairs[index] = pair
        else:
            name = self._name_at[:self._name_size]
            pair = (name.lower(), value_at[:value_size])
            is_special = pair[0] in SPECIAL_REQUEST_FIELDS
            if value_size <= MEMO_VALUE_BYTES and self._name_size <= MEMO_VALUE_BYTES:
                if index < len(self._known_names):
                    self._known_names[index], self._known_pairs[index], self._known_special[index] = name, pair, is_special
                elif index == len(self._known_names):
                    self._known_names.append(name)
                    self._known_pairs.append(pair)
                    self._known_special.append(is_special)
        self._name_at = self._value_at = NULL
        headers.append(pair)
        if is_special:
            self.special.append(pair)
        return 0

    cdef int _field_in_parts(self) except -1:
        """A field that lies in several buffers, a late one, or one of the trailer."""
        name = _joined(self._name_part, self._name_at, self._name_size)
        value = _joined(self._value_part, self._value_at, self._value_size)
        self._name_part = self._value_part = None
        self._name_at = self._value_at = NULL
        self.on_header(name, value)
        return 0

    cdef int _name(self, const char *at, size_t size) except -1:
        if self._has_value:
            self._field_came()
        if self._name_at == NULL:
            self._name_at, self._name_size = at, size
        else:
            self._name_part = _joined(self._name_part, self._name_at, self._name_size)
            self._name_at, self._name_size = at, size
        return 0

    cdef int _value(self, const char *at, size_t size) except -1:
        if self._value_at != NULL:
            self._value_part = _joined(self._value_part, self._value_at, self._value_size)
        self._value_at, self._value_size = at, size
        self._has_value = True
        return 0

    cdef int _url(self, const char *at, size_t size) except -1:
        if PyBytes_GET_SIZE(self.target):
            self.target = self.target + at[:size]
        elif _is_same(self.known_target, at, size):
            self.target = self.known_target
        else:
            self.target = at[:size]
        return 0

    cdef int _end_head(self) except -1:
        cdef int code = _get_method(self._llhttp)
        cdef str version
        if self._has_value:
            self._field_came()
        name = _methods[code]
        if name is None:
            raw = <bytes>_method_name(code)
            name = _methods[code] = METHOD_NAMES.get(raw) or raw.decode("ascii")
        if _get_major(self._llhttp) == 1 and _get_minor(self._llhttp) == 1:
            version = "1.1"
        else:
            version = f"{_get_major(self._llhttp)}.{_get_minor(self._llhttp)}"
        self.head_complete(name, version, _should_keep_alive(self._llhttp))
        return 0

    cdef int _end_message(self) except -1:
        if self._has_value:
            self._field_came()  # of the trailer
        self.on_message_complete()
        return 0


cdef inline bytes _joined(bytes part, const char *at, size_t size):
    cdef bytes here = at[:size] if at != NULL else b""
    return here if part is None else part + here


cdef inline bint _is_same(bytes known, const char *at, size_t size) noexcept:
    return <size_t>PyBytes_GET_SIZE(known) == size and memcmp(PyBytes_AS_STRING(known), at, size) == 0


# --- the callbacks: what is raised behind them is kept until llhttp has returned; any code but 0 stops it ----------------
cdef inline NativeReader _reader_of(void *llhttp):
    return <NativeReader>(<void **>(<char *>llhttp + _self_at))[0]


cdef int _message_began(void *llhttp) noexcept:
    cdef NativeReader reader = _reader_of(llhttp)
    try:
        reader.on_message_begin()
    except BaseException as error:
        reader._error = error
        return -1
    return 0


cdef int _url_came(void *llhttp, const char *at, size_t size) noexcept:
    cdef NativeReader reader = _reader_of(llhttp)
    try:
        reader._url(at, size)
    except BaseException as error:
        reader._error = error
        return -1
    return 0


cdef int _name_came(void *llhttp, const char *at, size_t size) noexcept:
    cdef NativeReader reader = _reader_of(llhttp)
    try:
        reader._name(at, size)
    except BaseException as error:
        reader._error = error
        return -1
    return 0


cdef int _value_came(void *llhttp, const char *at, size_t size) noexcept:
    cdef NativeReader reader = _reader_of(llhttp)
    try:
        reader._value(at, size)
    except BaseException as error:
        reader._error = error
        return -1
    return 0


cdef int _head_ended(void *llhttp) noexcept:
    cdef NativeReader reader = _reader_of(llhttp)
    try:
        reader._end_head()
    except BaseException as error:
        reader._error = error
        return -1
    return 1 if _get_upgrade(llhttp) else 0  # 1: no body is to be parsed


cdef int _body_came(void *llhttp, const char *at, size_t size) noexcept:
    cdef NativeReader reader = _reader_of(llhttp)
    try:
        reader.on_body(at[:size])
    except BaseException as error:
        reader._error = error
        return -1
    return 0


cdef int _chunk_began(void *llhttp) noexcept:
    cdef NativeReader reader = _reader_of(llhttp)
    try:
        reader.on_chunk_header()
    except BaseException as error:
        reader._error = error
        return -1
    return 0


cdef int _message_ended(void *llhttp) noexcept:
    cdef NativeReader reader = _reader_of(llhttp)
    try:
        reader._end_message()
    except BaseException as error:
        reader._error = error
        return -1
    return 0
