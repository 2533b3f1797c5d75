# cython: language_level=3
"""An alarm whose sleeper needs no lock of the interpreter's: the compiled form of `_alarm.Alarm`.

What lives here: the sleep (a futex) and what is read in the moment it ends. What must not: who sleeps, and why (`_watchdog`).
Linux only; elsewhere, and without a compiler, the form in `_alarm` does the same, but does not hear of `prolong`.
"""

from libc.stdint cimport int64_t
from libc.stdlib cimport free, malloc

cdef extern from *:
    """
    #ifdef __linux__
    #include <linux/futex.h>
    #include <sys/syscall.h>
    #include <time.h>
    #include <unistd.h>
    #define ALARM_WORKS 1

    static int64_t alarm_now_ns(clockid_t clock) {
        struct timespec at;
        return clock_gettime(clock, &at) ? -1 : at.tv_sec * INT64_C(1000000000) + at.tv_nsec;
    }

    /* Sleep until `until_ns`, or what `prolonged_ns` says by then if that is later, but not past `most_ns`. Returns when it ended. */
    static int64_t alarm_sleep(int *rung, int64_t *prolonged_ns, int64_t until_ns, int64_t most_ns) {
        for (;;) {
            int64_t end_ns = __atomic_load_n(prolonged_ns, __ATOMIC_ACQUIRE);
            if (end_ns > most_ns) end_ns = most_ns;
            if (end_ns < until_ns) end_ns = until_ns;
            int64_t now_ns = alarm_now_ns(CLOCK_MONOTONIC);
            if (__atomic_load_n(rung, __ATOMIC_ACQUIRE)) return now_ns;
            if (now_ns >= end_ns) return end_ns;
            struct timespec end = {end_ns / 1000000000, end_ns % 1000000000};
            syscall(SYS_futex, rung, FUTEX_WAIT_BITSET_PRIVATE, 0, &end, NULL, FUTEX_BITSET_MATCH_ANY);
        }
    }

    static void alarm_ring(int *rung) {
        __atomic_store_n(rung, 1, __ATOMIC_RELEASE);
        syscall(SYS_futex, rung, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
    }

    static void alarm_prolong(int64_t *prolonged_ns, int64_t until_ns) {
        __atomic_store_n(prolonged_ns, until_ns, __ATOMIC_RELEASE);
    }
    #else
    #include <stddef.h>
    #define ALARM_WORKS 0
    static int64_t alarm_now_ns(int clock) { (void)clock; return -1; }
    static int64_t alarm_sleep(int *rung, int64_t *prolonged_ns, int64_t until_ns, int64_t most_ns) { return 0; }
    static void alarm_ring(int *rung) {}
    static void alarm_prolong(int64_t *prolonged_ns, int64_t until_ns) {}
    #endif
    """
    enum: ALARM_WORKS
    int64_t alarm_now_ns(int clock) nogil
    int64_t alarm_sleep(int *rung, int64_t *prolonged_ns, int64_t until_ns, int64_t most_ns) nogil
    void alarm_ring(int *rung) nogil
    void alarm_prolong(int64_t *prolonged_ns, int64_t until_ns) nogil

if not ALARM_WORKS:
    raise ImportError("the compiled alarm is for Linux")


cdef class Alarm:
    """See `_alarm.Alarm`, which says what these do."""

    cdef int rung
    cdef int64_t prolonged_ns

    def prolong(self, double until_s):
        alarm_prolong(&self.prolonged_ns, <int64_t>(until_s * 1e9))

    def ring(self):
        alarm_ring(&self.rung)

    def sleep(self, double until_s, double most_s, dict clocks):
        cdef Py_ssize_t count = len(clocks), index
        cdef int64_t until_ns = <int64_t>(until_s * 1e9), most_ns = <int64_t>(most_s * 1e9)
        cdef int *numbers = <int *>malloc((count or 1) * sizeof(int))
        cdef int64_t *used_ns = <int64_t *>malloc((count or 1) * sizeof(int64_t))
        try:
            if numbers is NULL or used_ns is NULL:
                raise MemoryError
            for index, number in enumerate(clocks.values()):
                numbers[index] = number
            with nogil:
                until_ns = alarm_sleep(&self.rung, &self.prolonged_ns, until_ns, most_ns)
                for index in range(count):
                    used_ns[index] = alarm_now_ns(numbers[index])
            used_s = {
                thread: used_ns[index] / 1e9 for index, thread in enumerate(clocks) if used_ns[index] >= 0
            }
            return until_ns / 1e9, used_s
        finally:
            free(numbers)
            free(used_ns)
