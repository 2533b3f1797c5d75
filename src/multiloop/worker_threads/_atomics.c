/* Atomic operations on shared memory, futexes, and interrupting a thread of this interpreter.
 *
 * What lives here: the primitives of `_primitives.py`, nothing else; the Python twin is `_locked.py`. What must not:
 * what a buffer is, waiting lists, time-outs over several waits.
 *
 * Every function takes a writable view whose format is i, I, q or Q, and an index in elements. Arithmetic wraps
 * modulo 2^bits; an argument that the format cannot hold raises OverflowError. All operations are sequentially
 * consistent. No state: the module loads in any interpreter and needs no lock.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>

#ifdef __linux__
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#define HAVE_FUTEX 1
#else
#define HAVE_FUTEX 0
#endif

typedef struct {
    Py_buffer view;
    void *address;
    int is_wide;   /* 64 bits, else 32 */
    int is_signed;
} Cell;

static int
cell_open(Cell *cell, PyObject *view, PyObject *index)
{
    if (PyObject_GetBuffer(view, &cell->view, PyBUF_WRITABLE | PyBUF_FORMAT | PyBUF_C_CONTIGUOUS) < 0) {
        return -1;
    }
    const char *format = cell->view.format;
    if (format == NULL || format[0] == '\0' || format[1] != '\0' || strchr("iIqQ", format[0]) == NULL) {
        PyErr_Format(PyExc_TypeError, "atomic operations need the format i, I, q or Q, not %s", format ? format : "B");
        goto failed;
    }
    cell->is_wide = format[0] == 'q' || format[0] == 'Q';
    cell->is_signed = format[0] == 'i' || format[0] == 'q';
    Py_ssize_t at = PyNumber_AsSsize_t(index, PyExc_IndexError);
    if (at == -1 && PyErr_Occurred()) {
        goto failed;
    }
    Py_ssize_t count = cell->view.len / (cell->is_wide ? 8 : 4);
    if (at < 0 || at >= count) {
        PyErr_Format(PyExc_IndexError, "index %zd is outside of the buffer's %zd elements", at, count);
        goto failed;
    }
    cell->address = (char *)cell->view.buf + at * (cell->is_wide ? 8 : 4);
    if ((uintptr_t)cell->address % (cell->is_wide ? 8 : 4) != 0) {
        PyErr_SetString(PyExc_ValueError, "the view is not aligned to its elements");
        goto failed;
    }
    return 0;
failed:
    PyBuffer_Release(&cell->view);
    return -1;
}

/* The value's bits, or an exception: check PyErr_Occurred(). */
static uint64_t
cell_bits(const Cell *cell, PyObject *value)
{
    uint64_t bits = 0;
    int fits;
    PyObject *number = PyNumber_Index(value);
    if (number == NULL) {
        return 0;
    }
    if (cell->is_signed) {
        int overflow = 0;
        long long wide = PyLong_AsLongLongAndOverflow(number, &overflow);
        fits = !overflow && (cell->is_wide || (wide >= INT32_MIN && wide <= INT32_MAX));
        bits = (uint64_t)wide;
    }
    else {
        bits = PyLong_AsUnsignedLongLong(number);
        if (bits == UINT64_MAX && PyErr_Occurred()) {
            PyErr_Clear();
            fits = 0;
        }
        else {
            fits = cell->is_wide || bits <= UINT32_MAX;
        }
    }
    if (!fits) {
        PyErr_Format(PyExc_OverflowError, "%R does not fit the buffer's format %s", number, cell->view.format);
    }
    Py_DECREF(number);
    return bits;
}

static PyObject *
cell_number(const Cell *cell, uint64_t bits)
{
    if (cell->is_wide) {
        return cell->is_signed ? PyLong_FromLongLong((int64_t)bits) : PyLong_FromUnsignedLongLong(bits);
    }
    return cell->is_signed ? PyLong_FromLong((int32_t)(uint32_t)bits) : PyLong_FromUnsignedLong((uint32_t)bits);
}

static int
check_count(const char *name, Py_ssize_t given, Py_ssize_t wanted)
{
    if (given != wanted) {
        PyErr_Format(PyExc_TypeError, "%s() takes %zd arguments, %zd given", name, wanted, given);
        return -1;
    }
    return 0;
}

static PyObject *
atomics_load(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count)
{
    Cell cell;
    if (check_count("load", count, 2) < 0 || cell_open(&cell, args[0], args[1]) < 0) {
        return NULL;
    }
    uint64_t bits = cell.is_wide ? __atomic_load_n((uint64_t *)cell.address, __ATOMIC_SEQ_CST)
                                 : __atomic_load_n((uint32_t *)cell.address, __ATOMIC_SEQ_CST);
    PyObject *result = cell_number(&cell, bits);
    PyBuffer_Release(&cell.view);
    return result;
}

/* name(view, index, value) -> the value before */
#define READ_MODIFY_WRITE(name, builtin)                                                                  \
    static PyObject *atomics_##name(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count) \
    {                                                                                                     \
        Cell cell;                                                                                        \
        PyObject *result = NULL;                                                                          \
        if (check_count(#name, count, 3) < 0 || cell_open(&cell, args[0], args[1]) < 0) {                 \
            return NULL;                                                                                  \
        }                                                                                                 \
        uint64_t bits = cell_bits(&cell, args[2]);                                                        \
        if (!PyErr_Occurred()) {                                                                          \
            bits = cell.is_wide ? builtin((uint64_t *)cell.address, bits, __ATOMIC_SEQ_CST)               \
                                : builtin((uint32_t *)cell.address, (uint32_t)bits, __ATOMIC_SEQ_CST);    \
            result = cell_number(&cell, bits);                                                            \
        }                                                                                                 \
        PyBuffer_Release(&cell.view);                                                                     \
        return result;                                                                                    \
    }

READ_MODIFY_WRITE(add, __atomic_fetch_add)
READ_MODIFY_WRITE(sub, __atomic_fetch_sub)
READ_MODIFY_WRITE(and_, __atomic_fetch_and)
READ_MODIFY_WRITE(or_, __atomic_fetch_or)
READ_MODIFY_WRITE(xor, __atomic_fetch_xor)
READ_MODIFY_WRITE(exchange, __atomic_exchange_n)

static PyObject *
atomics_store(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count)
{
    Cell cell;
    PyObject *result = NULL;
    if (check_count("store", count, 3) < 0 || cell_open(&cell, args[0], args[1]) < 0) {
        return NULL;
    }
    uint64_t bits = cell_bits(&cell, args[2]);
    if (!PyErr_Occurred()) {
        if (cell.is_wide) {
            __atomic_store_n((uint64_t *)cell.address, bits, __ATOMIC_SEQ_CST);
        }
        else {
            __atomic_store_n((uint32_t *)cell.address, (uint32_t)bits, __ATOMIC_SEQ_CST);
        }
        result = cell_number(&cell, bits);
    }
    PyBuffer_Release(&cell.view);
    return result;
}

static PyObject *
atomics_compare_exchange(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count)
{
    Cell cell;
    PyObject *result = NULL;
    if (check_count("compare_exchange", count, 4) < 0 || cell_open(&cell, args[0], args[1]) < 0) {
        return NULL;
    }
    uint64_t expected = cell_bits(&cell, args[2]);
    uint64_t wanted = PyErr_Occurred() ? 0 : cell_bits(&cell, args[3]);
    if (!PyErr_Occurred()) {
        if (cell.is_wide) {
            __atomic_compare_exchange_n((uint64_t *)cell.address, &expected, wanted, 0, __ATOMIC_SEQ_CST,
                                        __ATOMIC_SEQ_CST);
        }
        else {
            uint32_t narrow = (uint32_t)expected;
            __atomic_compare_exchange_n((uint32_t *)cell.address, &narrow, (uint32_t)wanted, 0, __ATOMIC_SEQ_CST,
                                        __ATOMIC_SEQ_CST);
            expected = narrow;
        }
        result = cell_number(&cell, expected);
    }
    PyBuffer_Release(&cell.view);
    return result;
}

static PyObject *
atomics_sleep_while(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count)
{
#if HAVE_FUTEX
    Cell cell;
    if (check_count("sleep_while", count, 4) < 0) {
        return NULL;
    }
    double timeout_s = PyFloat_AsDouble(args[3]);
    if (timeout_s == -1.0 && PyErr_Occurred()) {
        return NULL;
    }
    if (cell_open(&cell, args[0], args[1]) < 0) {
        return NULL;
    }
    uint64_t expected = cell_bits(&cell, args[2]);
    if (!PyErr_Occurred() && cell.is_wide) {
        PyErr_SetString(PyExc_TypeError, "sleep_while() needs 32-bit elements");
    }
    if (PyErr_Occurred()) {
        PyBuffer_Release(&cell.view);
        return NULL;
    }
    if (timeout_s < 0) {
        timeout_s = 0;
    }
    struct timespec wait = {(time_t)timeout_s, (long)((timeout_s - (double)(time_t)timeout_s) * 1e9)};
    Py_BEGIN_ALLOW_THREADS
    /* Not FUTEX_PRIVATE: the others are in other processes. Why it returned does not matter: the caller looks. */
    syscall(SYS_futex, cell.address, FUTEX_WAIT, (uint32_t)expected, &wait, NULL, 0);
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&cell.view);
    if (PyErr_CheckSignals() < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
#else
    PyErr_SetString(PyExc_NotImplementedError, "there are no futexes on this platform");
    return NULL;
#endif
}

static PyObject *
atomics_rouse(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count)
{
#if HAVE_FUTEX
    Cell cell;
    if (check_count("rouse", count, 2) < 0 || cell_open(&cell, args[0], args[1]) < 0) {
        return NULL;
    }
    syscall(SYS_futex, cell.address, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
    PyBuffer_Release(&cell.view);
    Py_RETURN_NONE;
#else
    PyErr_SetString(PyExc_NotImplementedError, "there are no futexes on this platform");
    return NULL;
#endif
}

static PyObject *
atomics_interrupt(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count)
{
    if (check_count("interrupt", count, 2) < 0) {
        return NULL;
    }
    unsigned long thread = PyLong_AsUnsignedLong(args[0]);
    if (thread == (unsigned long)-1 && PyErr_Occurred()) {
        return NULL;
    }
    return PyBool_FromLong(PyThreadState_SetAsyncExc(thread, args[1] == Py_None ? NULL : args[1]));
}

#define FUNCTION(name, text) {#name, (PyCFunction)(void (*)(void))atomics_##name, METH_FASTCALL, text}

static PyMethodDef functions[] = {
    FUNCTION(load, "load(view, index) -> the value"),
    FUNCTION(store, "store(view, index, value) -> value"),
    FUNCTION(add, "add(view, index, value) -> the value before"),
    FUNCTION(sub, "sub(view, index, value) -> the value before"),
    FUNCTION(and_, "and_(view, index, value) -> the value before"),
    FUNCTION(or_, "or_(view, index, value) -> the value before"),
    FUNCTION(xor, "xor(view, index, value) -> the value before"),
    FUNCTION(exchange, "exchange(view, index, value) -> the value before"),
    FUNCTION(compare_exchange, "compare_exchange(view, index, expected, value) -> the value before"),
    FUNCTION(sleep_while, "sleep_while(view, index, value, timeout): sleep while the 32-bit element has this value"),
    FUNCTION(rouse, "rouse(view, index): wake all who sleep on the element"),
    FUNCTION(interrupt, "interrupt(thread_id, exception_type or None) -> whether there is such a thread in this interpreter"),
    {NULL, NULL, 0, NULL},
};

static int
module_exec(PyObject *module)
{
    return PyModule_AddIntConstant(module, "HAVE_FUTEX", HAVE_FUTEX);
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, (void *)module_exec},
#if PY_VERSION_HEX >= 0x030C0000
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
#if PY_VERSION_HEX >= 0x030D0000
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_atomics",
    .m_doc = "Atomic operations on shared memory, futexes, and interrupting a thread.",
    .m_size = 0,
    .m_methods = functions,
    .m_slots = slots,
};

PyMODINIT_FUNC
PyInit__atomics(void)
{
    return PyModuleDef_Init(&definition);
}
