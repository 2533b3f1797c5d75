# cython: language_level=3
"""How a task steps into a compiled `Reading`: its result is returned, where Python's `__next__` must raise it.

What lives here: the slot `am_send` of `Reading`, which Python has no name for. What must not: what a step does
(`Reading.step`). Without this module everything works, and a chunk costs a `StopIteration` more.
"""

from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF

from multiloop.net._reading cimport Reading

cdef extern from "Python.h":
    ctypedef enum PySendResult:
        PYGEN_RETURN
        PYGEN_ERROR
        PYGEN_NEXT
    ctypedef PySendResult (*sendfunc)(PyObject *, PyObject *, PyObject **) except PYGEN_ERROR
    ctypedef struct PyAsyncMethods:
        sendfunc am_send
    ctypedef struct PyTypeObject:
        PyAsyncMethods *tp_as_async


cdef PySendResult _send(PyObject *reading, PyObject *value, PyObject **result) except PYGEN_ERROR:
    result[0] = NULL
    made = (<Reading>reading).step()
    Py_INCREF(made)
    result[0] = <PyObject *>made
    return PYGEN_NEXT if result[0] is reading else PYGEN_RETURN


(<PyTypeObject *>Reading).tp_as_async.am_send = _send
