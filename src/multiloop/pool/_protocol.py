"""What the pool and its workers say to each other: kinds of frames, their heads, flags, and the words of the page.

What lives here: declarations that both ends read. What must not: sockets, imports beyond struct (a worker loads this
before anything else).

    pool → worker    kind u8 · length u64 · body
    worker → pool    kind u8 · length u64 · task u64 · began u64 · ended u64 · body      (monotonic nanoseconds)

Rules
* Tasks of one worker are numbered 1, 2, 3 … in the order in which they are sent, and begun in that order.
* A worker writes the whole result of a task before it begins the next one. So when a worker is gone, the results that
  can still be read and the word `STARTED` tell exactly which task it was running; the ones behind it never began.
* Results of tiny tasks that follow each other are held in the page's journal and sent together, at most 100 µs later. What
  lies there counts as written: the pool reads it when the worker is dead, or stays in one task for long. So a result can
  come twice; the number tells.
* The page holds words of 64 bits, each written by one side only. Before a task begins the worker writes `STARTED`, then
  looks at the revoked range; the pool writes the range, waits until that is seen everywhere, then looks at `STARTED`.
  So a revoked task that is not `STARTED` will never begin. A worker that skips a task says so with `SKIPPED`.
* Descriptors travel with the first byte of a `PARCEL` frame of their own and belong to the next task or value in that
  direction that says that it is a parcel.
"""

from __future__ import annotations

import struct

TO_WORKER = struct.Struct("<BQ")
FROM_WORKER = struct.Struct("<BQQQQ")

# --- pool → worker ------------------------------------------------------------------------------------------------
BOOT = 1  # pickled dict: what the worker needs before its first task
# marshal: (definitions, first number, functions, flags, calls); a definition is (number of the function, pickle); the
# last three have a value for each task, or one where all have the same
TASKS = 2
CREDIT = 3  # marshal: (task, items): a stream may send that many more; 0 only wakes it
EXIT = 4  # run the finalizer and leave
PARCEL = 5  # marshal: (kind, how many descriptors): of the next task that is IS_PARCEL

# --- worker → pool ------------------------------------------------------------------------------------------------
READY = 1  # the initializer has run
BROKEN = 2  # the initializer failed, body as FAILED: no task can run here
PLAIN = 3  # a result: marshal of a plain value
VALUE = 4  # a result: pickle
FAILED = 5  # marshal: a packed exception (worker_threads._failures)
SKIPPED = 6  # a revoked task, not begun
ITEM = 7  # one item of a stream: pickle
REPORT = 8  # a progress message: pickle
PARCEL_BEFORE = 9  # marshal: (kind, how many descriptors): of the frame that follows
VALUE_PARCEL = 10  # the body of a parcel
ITEM_PARCEL = 11
REPORT_PARCEL = 12
AS_PARCEL = {VALUE: VALUE_PARCEL, ITEM: ITEM_PARCEL, REPORT: REPORT_PARCEL}
AS_PICKLE = {parcel: pickle for pickle, parcel in AS_PARCEL.items()}

# --- flags of a task ----------------------------------------------------------------------------------------------
IS_PLAIN = 1  # the call is the arguments themselves, not a pickle of them
IS_SINGLE = 16  # the call is the one argument itself
IS_FULL = 2  # the call is a pickle of (args, kwargs, function or None, context or None)
IS_STREAM = 4  # the function gives an iterator; its items are sent
IS_PARCEL = 8  # the call is a parcel; a PARCEL frame came before
IS_HEARD = 32  # far worker: somebody listens to what the task reports or yields

# What crosses as itself: immutable, and marshal gives back exactly what it took.
PLAIN_TYPES = frozenset({int, str, float, bool, type(None)})

# --- words of the page --------------------------------------------------------------------------------------------
WORDS_BYTES = 4096
JOURNAL_BYTES = 32 * 1024  # behind the words: frames of results that are held
PAGE_BYTES = WORDS_BYTES + JOURNAL_BYTES
SENT = 0  # pool: how many bytes it has written to the socket; a worker that is awake looks here first
STARTED = 1  # worker: the task that it began last
STARTED_NS = 2  # worker: when
FINISHED = 3  # worker: the task whose result it has written last
REVOKED_FROM = 4  # pool: tasks from this number …
REVOKED_TO = 5  # … to before this one must not begin
COOPERATIVE = 6  # worker: the task that promised to stop when it is asked
GRACE_MS = 7  # worker: and how long that may take
STOP_ASKED = 8  # pool: the task that is asked to stop
HELD = 9  # worker: how many bytes of the journal are results that are not sent
HELD_TURN = 10  # worker: counts up before it sends them and empties the journal
EXPIRED = 11  # far worker: the task whose time was over
CALLS = 12  # far worker, two words: the calls whose results are in the halves of the journal …
FILLED = 14  # … and how many bytes of each half they are

RIGHTS_BYTES = 1200  # room for the descriptors of one parcel (at most 253, the kernel's limit)
STREAM_WINDOW = 16  # items of a stream on their way before the worker waits for the consumer
