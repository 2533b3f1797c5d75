/* Looking at files, and reading them, where the kernel promises not to wait.
 *
 * What lives here: `read_file`, `read_below` and `read`, which give bytes that are in memory already, `look`, `open_file` and
 * `open_below`, which give a descriptor; each None where it would have to wait. What must not: when to try (`_ready.py`), and anything that waits:
 * whoever gets None makes the call on a thread, which also finds the error.
 *
 * What the promise is made of, all of it from Linux 5.12 on:
 *   - openat2 with RESOLVE_CACHED resolves a path only from the kernel's own memory, else says EAGAIN (openat2(2));
 *   - first with O_PATH, which opens nothing: a FIFO, a device or a file of a remote or a user's file system is only
 *     looked at, so its open, which may wait or do something, is left to the thread;
 *   - with RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS a path cannot leave the directory that it begins in;
 *   - preadv2 with RWF_NOWAIT gives only what the page cache has (preadv2(2)).
 * Elsewhere, and under a filter that forbids openat2, every call gives None. No state: loads in any interpreter.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#ifdef __linux__
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <unistd.h>
#endif

/* Wheels are built with headers that are older than these calls, so their numbers stand here. An old kernel says ENOSYS. */
#if defined(__linux__) && defined(__x86_64__) && defined(__LP64__)
#define CALL_PREADV2 327
#define HAVE_NOWAIT 1
#elif defined(__linux__) && defined(__aarch64__) && defined(__LP64__)
#define CALL_PREADV2 286
#define HAVE_NOWAIT 1
#else
#define HAVE_NOWAIT 0
#endif

#if HAVE_NOWAIT
#define CALL_OPENAT2 437
#define NO_WAIT 0x8         /* RWF_NOWAIT */
#define ONLY_LOOKED_AT 010000000 /* O_PATH */

struct how {
    uint64_t flags;
    uint64_t mode;
    uint64_t resolve;
};
#define ONLY_CACHED 0x20
#define NO_LINKS 0x04 /* nor those of /proc */
#define BENEATH 0x08

/* Where a path begins: a directory, and what else of openat2's rules holds for it. */
typedef struct {
    int directory;
    int rules;
} Start;

static const Start anywhere = {AT_FDCWD, 0};

static int
open_cached(Start start, const char *path, int flags)
{
    struct how how = {.flags = (uint64_t)(flags | O_CLOEXEC), .mode = 0, .resolve = (uint64_t)(ONLY_CACHED | start.rules)};
    return (int)syscall(CALL_OPENAT2, start.directory, path, &how, sizeof how);
}

/* What a file system promises (its numbers are statfs(2)'s). */
typedef enum {
    PROMISES_NOTHING,
    KNOWS_NO_WAIT, /* on a local disk: opening asks nobody, and reading knows RWF_NOWAIT */
    IS_MEMORY,     /* tmpfs without swap: there is nothing to wait for */
} Promise;

static Promise
promise_of(int fd)
{
    struct statfs info;
    struct sysinfo machine;
    if (fstatfs(fd, &info) < 0) {
        return PROMISES_NOTHING;
    }
    switch ((uint32_t)info.f_type) {
    case 0xEF53:      /* ext2, ext3, ext4 */
    case 0x58465342:  /* xfs */
    case 0x9123683E:  /* btrfs */
    case 0xF2F52010:  /* f2fs */
        return KNOWS_NO_WAIT;
    case 0x01021994:  /* tmpfs */
        return sysinfo(&machine) == 0 && machine.totalswap == 0 ? IS_MEMORY : PROMISES_NOTHING;
    default:
        return PROMISES_NOTHING;
    }
}

/* The size of a regular file; -1 for everything else. `*modified_ns`, if wanted: when it was written. */
static off_t
size_if_regular(int fd, int64_t *modified_ns)
{
    struct stat info;
    if (fstat(fd, &info) < 0 || !S_ISREG(info.st_mode)) {
        return -1;
    }
    if (modified_ns != NULL) {
        *modified_ns = (int64_t)info.st_mtim.tv_sec * 1000000000 + info.st_mtim.tv_nsec;
    }
    return info.st_size;
}

/* `size` bytes at `position`; NULL without an exception where not all of them are in memory. `*past`: one byte after. */
static PyObject *
take(int fd, Promise promise, Py_ssize_t size, off_t position, int *past)
{
    PyObject *data = PyBytes_FromStringAndSize(NULL, size);
    if (data == NULL) {
        return NULL;
    }
    char after;
    struct iovec parts[2] = {{PyBytes_AS_STRING(data), (size_t)size}, {&after, 1}};
    int flags = promise == IS_MEMORY ? 0 : NO_WAIT;
    ssize_t got = syscall(CALL_PREADV2, fd, parts, past ? 2 : 1, (long)position, 0L, flags);
    if (got < size) {
        Py_DECREF(data);
        return NULL;
    }
    if (past) {
        *past = got > size;
    }
    return data;
}

typedef struct {
    int fd;
    off_t size;
    int64_t modified_ns;
    Promise promise;
} Opened;

/* A regular file of up to `limit` bytes, for reading; fd -1 for everything else. */
static Opened
open_regular(Start start, const char *path, int flags, off_t limit)
{
    Opened opened = {-1, 0, 0, PROMISES_NOTHING};
    int looked_at = open_cached(start, path, ONLY_LOOKED_AT | (flags & O_NOFOLLOW));
    if (looked_at < 0) {
        return opened;
    }
    off_t first = size_if_regular(looked_at, NULL);
    if (first >= 0 && first <= limit && promise_of(looked_at) != PROMISES_NOTHING) {
        int fd = open_cached(start, path, flags);
        if (fd >= 0) {
            /* Asked again: between the two the name may have come to mean another file. */
            int64_t modified_ns;
            off_t size = size_if_regular(fd, &modified_ns);
            Promise promise = promise_of(fd);
            if (size >= 0 && size <= limit && promise != PROMISES_NOTHING) {
                opened = (Opened){fd, size, modified_ns, promise};
            }
            else {
                close(fd);
            }
        }
    }
    close(looked_at);
    return opened;
}

/* The same below a directory, reached without a link and without `..`. */
static Opened
open_regular_below(const char *root, const char *path, off_t limit)
{
    int directory = open_cached(anywhere, root, ONLY_LOOKED_AT | O_DIRECTORY);
    if (directory < 0) {
        return (Opened){-1, 0, 0, PROMISES_NOTHING};
    }
    Opened opened = open_regular((Start){directory, BENEATH | NO_LINKS}, path, O_RDONLY | O_NONBLOCK | O_NOCTTY, limit);
    close(directory);
    return opened;
}

/* All of an open file, which is closed; NULL without an exception where not all of it is in memory. */
static PyObject *
read_whole(Opened file)
{
    if (file.fd < 0) {
        return NULL;
    }
    int has_grown = 0;
    /* One that says it is empty may be one of those that do not know: the thread reads to the end. */
    PyObject *data = file.size > 0 ? take(file.fd, file.promise, (Py_ssize_t)file.size, 0, &has_grown) : NULL;
    if (data != NULL && has_grown) {
        Py_CLEAR(data);
    }
    close(file.fd);
    return data;
}

static PyObject *
read_part(int fd, Py_ssize_t size, off_t position)
{
    off_t end = size_if_regular(fd, NULL);
    Promise promise = promise_of(fd);
    if (end < 0 || promise == PROMISES_NOTHING) {
        return NULL;
    }
    int moves = position < 0;
    if (moves && (position = lseek(fd, 0, SEEK_CUR)) < 0) {
        return NULL;
    }
    if (position >= end) {
        return NULL;
    }
    if (size > end - position) {
        size = (Py_ssize_t)(end - position);
    }
    PyObject *data = take(fd, promise, size, position, NULL);
    if (data != NULL && moves) {
        lseek(fd, position + size, SEEK_SET);
    }
    return data;
}

#endif /* HAVE_NOWAIT */

static PyObject *
or_none(PyObject *data)
{
    if (data != NULL) {
        return data;
    }
    PyErr_Clear(); /* no memory: the thread finds out again */
    Py_RETURN_NONE;
}

/* The path as the kernel takes it, in `*holder` or borrowed; NULL where it is none: the thread says what is wrong with it. */
static const char *
path_of(PyObject *given, PyObject **holder)
{
    *holder = NULL;
    if (PyUnicode_CheckExact(given) && PyUnicode_IS_ASCII(given)) { /* its bytes are the path in any encoding */
        Py_ssize_t length;
        const char *path = PyUnicode_AsUTF8AndSize(given, &length);
        if (path != NULL && (Py_ssize_t)strlen(path) == length) {
            return path;
        }
    }
    else if (PyUnicode_FSConverter(given, holder)) {
        return PyBytes_AS_STRING(*holder);
    }
    PyErr_Clear();
    return NULL;
}

static PyObject *
cached_read_file(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    if (count != 2) {
        PyErr_Format(PyExc_TypeError, "read_file() takes 2 arguments, not %zd", count);
        return NULL;
    }
    Py_ssize_t limit = PyLong_AsSsize_t(args[1]);
    if (limit == -1 && PyErr_Occurred()) {
        return NULL;
    }
    PyObject *data = NULL;
#if HAVE_NOWAIT
    PyObject *holder;
    const char *path = path_of(args[0], &holder);
    if (path != NULL) {
        data = read_whole(open_regular(anywhere, path, O_RDONLY | O_NONBLOCK | O_NOCTTY, (off_t)limit));
    }
    Py_XDECREF(holder);
#endif
    return or_none(data);
}

static PyObject *
cached_look(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    if (count != 2) {
        PyErr_Format(PyExc_TypeError, "look() takes 2 arguments, not %zd", count);
        return NULL;
    }
    int fd = -1;
#if HAVE_NOWAIT
    PyObject *holder;
    const char *path = path_of(args[0], &holder);
    if (path != NULL) {
        fd = open_cached(anywhere, path, ONLY_LOOKED_AT | (args[1] == Py_False ? O_NOFOLLOW : 0));
        if (fd >= 0 && promise_of(fd) == PROMISES_NOTHING) {
            close(fd);
            fd = -1;
        }
    }
    Py_XDECREF(holder);
#endif
    return or_none(fd < 0 ? NULL : PyLong_FromLong(fd));
}

static PyObject *
cached_open_file(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    if (count != 2) {
        PyErr_Format(PyExc_TypeError, "open_file() takes 2 arguments, not %zd", count);
        return NULL;
    }
    long flags = PyLong_AsLong(args[1]);
    if (flags == -1 && PyErr_Occurred()) {
        return NULL;
    }
    int fd = -1;
#if HAVE_NOWAIT
    PyObject *holder;
    const char *path = path_of(args[0], &holder);
    /* Reading only, and none of the flags that make or empty a file, or that the kernel has to think about. */
    if (path != NULL && (flags & ~(long)(O_CLOEXEC | O_NOCTTY | O_NONBLOCK | O_NOFOLLOW)) == O_RDONLY) {
        fd = open_regular(anywhere, path, (int)flags, INT64_MAX).fd;
    }
    Py_XDECREF(holder);
#endif
    return or_none(fd < 0 ? NULL : PyLong_FromLong(fd));
}

static PyObject *
cached_open_below(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    if (count != 2) {
        PyErr_Format(PyExc_TypeError, "open_below() takes 2 arguments, not %zd", count);
        return NULL;
    }
    int fd = -1;
#if HAVE_NOWAIT
    PyObject *root_holder, *holder = NULL;
    const char *root = path_of(args[0], &root_holder);
    const char *path = root == NULL ? NULL : path_of(args[1], &holder);
    if (path != NULL) {
        fd = open_regular_below(root, path, INT64_MAX).fd;
    }
    Py_XDECREF(holder);
    Py_XDECREF(root_holder);
#endif
    return or_none(fd < 0 ? NULL : PyLong_FromLong(fd));
}

static PyObject *
cached_read_below(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    if (count != 3) {
        PyErr_Format(PyExc_TypeError, "read_below() takes 3 arguments, not %zd", count);
        return NULL;
    }
    Py_ssize_t limit = PyLong_AsSsize_t(args[2]);
    if (limit == -1 && PyErr_Occurred()) {
        return NULL;
    }
    PyObject *found = NULL;
#if HAVE_NOWAIT
    PyObject *root_holder, *holder = NULL;
    const char *root = path_of(args[0], &root_holder);
    const char *path = root == NULL ? NULL : path_of(args[1], &holder);
    if (path != NULL) {
        Opened file = open_regular_below(root, path, (off_t)limit);
        PyObject *data = read_whole(file);
        if (data != NULL) {
            found = Py_BuildValue("(NL)", data, (long long)file.modified_ns);
        }
    }
    Py_XDECREF(holder);
    Py_XDECREF(root_holder);
#endif
    return or_none(found);
}

static PyObject *
cached_read(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    if (count != 3) {
        PyErr_Format(PyExc_TypeError, "read() takes 3 arguments, not %zd", count);
        return NULL;
    }
    long fd = PyLong_AsLong(args[0]);
    Py_ssize_t size = PyLong_AsSsize_t(args[1]);
    long long position = args[2] == Py_None ? -1 : PyLong_AsLongLong(args[2]);
    if (PyErr_Occurred()) {
        return NULL;
    }
    PyObject *data = NULL;
#if HAVE_NOWAIT
    if (size > 0 && (args[2] == Py_None || position >= 0)) {
        data = read_part((int)fd, size, (off_t)position);
    }
#endif
    return or_none(data);
}

static PyMethodDef functions[] = {
    {"read_file", (PyCFunction)(void (*)(void))cached_read_file, METH_FASTCALL,
     "read_file(path, limit) -> all of a file of up to limit bytes that is in memory, or None"},
    {"look", (PyCFunction)(void (*)(void))cached_look, METH_FASTCALL,
     "look(path, follow) -> a descriptor that only looks at what is there (O_PATH), or None"},
    {"open_file", (PyCFunction)(void (*)(void))cached_open_file, METH_FASTCALL,
     "open_file(path, flags) -> a descriptor of a regular file for reading, or None"},
    {"open_below", (PyCFunction)(void (*)(void))cached_open_below, METH_FASTCALL,
     "open_below(directory, path) -> the same of a file that is reached from there without a link and without `..`, or None"},
    {"read_below", (PyCFunction)(void (*)(void))cached_read_below, METH_FASTCALL,
     "read_below(directory, path, limit) -> all of such a file of up to limit bytes, and its time in ns; or None"},
    {"read", (PyCFunction)(void (*)(void))cached_read, METH_FASTCALL,
     "read(fd, size, position or None) -> up to size bytes, fewer only at the end, or None where they are not in memory"},
    {NULL, NULL, 0, NULL},
};

static int
module_exec(PyObject *module)
{
    return PyModule_AddIntConstant(module, "HAVE_NOWAIT", HAVE_NOWAIT);
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
    .m_name = "_cached",
    .m_doc = "Looking at files, and reading them, where the kernel promises not to wait.",
    .m_size = 0,
    .m_methods = functions,
    .m_slots = slots,
};

PyMODINIT_FUNC
PyInit__cached(void)
{
    return PyModuleDef_Init(&definition);
}
