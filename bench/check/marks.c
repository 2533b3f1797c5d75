/* Tells callgrind which instructions to count. Outside of valgrind these do nothing. Built when the check runs. */
#include <valgrind/callgrind.h>

int counting(void) { return RUNNING_ON_VALGRIND != 0; }

void begin(void)
{
    CALLGRIND_START_INSTRUMENTATION;
    CALLGRIND_ZERO_STATS;
}

void end(const char *name)
{
    CALLGRIND_DUMP_STATS_AT(name);
    CALLGRIND_STOP_INSTRUMENTATION;
}
