"""Every default in one place: value, unit (in the name), reason, precedent.

What lives here: constants only. What must not: code. Layers that need one import it from here; users override through
the option of the same name (units dropped: seconds and bytes).
"""

from __future__ import annotations

# --- the loop -----------------------------------------------------------------------------------------------------
OFFLOAD_THREADS = 4  # threads for blocking calls; Node's UV_THREADPOOL_SIZE default. MULTILOOP_THREADS overrides.
OFFLOAD_MAX_THREADS = 64  # stalled threads stop counting and are replaced up to this many in all.
OFFLOAD_STALL_S = 0.001  # a thread inside one call for longer is stalled (prototype: nobody waits behind it).
READY_CALLS_PER_TURN = 128  # of those that cannot wait, made on the loop before the rest goes to a thread: under 1 ms.
OFFLOAD_BUSY_STALL_S = 0.05  # the same while the process is busy: ten switch intervals, enough to get the lock.
BLOCKED_LOOP_LONG_S = 2.0  # a block that lasts longer is reported before it ends: it may never.
LOOP_DELAY_RESOLUTION_S = 0.02  # between two measurements of loop_delay(); Node 10 ms, asked for by its user as here.
BLOCKED_LOOP_S = 0.1  # a tick later than this is reported; asyncio's slow_callback_duration is the same.
MAX_LISTENERS = 10  # listeners of one event before the warning; Node's defaultMaxListeners.

# --- net ------------------------------------------------------------------------------------------------------------
SOCKET_HIGH_WATER_BYTES = 64 * 1024  # what waits in a socket, each way, before it says stop; Node's 64 KiB.
HAPPY_EYEBALLS_DELAY_S = 0.25  # head start of an address before the next is tried; RFC 8305 and Node 250 ms.
SERVER_ACCEPT_BATCH = 16  # connections accepted in one turn of the loop, so that a flood leaves room for the others.
DATAGRAM_BATCH = 64  # datagrams read in one turn of the loop, and kept for a reader before the kernel's buffer waits.
ACCEPT_RETRY_FIRST_S = 0.005  # accepting pauses this long when the process has no descriptors left; the cluster's, too.
ACCEPT_RETRY_S = (
    0.1  # the longest such pause: it doubles while nothing could be accepted, and begins anew when it could.
)
FULL_TABLE_SAID_S = 1.0  # between two lines in the log that say so.

# --- streams and files --------------------------------------------------------------------------------------------
STREAM_HIGH_WATER_BYTES = 64 * 1024  # buffered by a stream before it says stop; Node 64 KiB.
STREAM_HIGH_WATER_OBJECTS = 16  # the same for streams of objects; Node 16.
FILE_FIRST_READ_BYTES = 64 * 1024  # read before a file's size is asked for: most files end here, one call cheaper.
FILE_CACHED_READ_BYTES = 64 * 1024  # read on the loop where it is in memory: 10 us; larger files take a thread.
FILE_CHUNK_BYTES = 16 * 1024 * 1024  # of one call of the kernel: between two, a cancel is noticed.
FIFO_LOOK_S = 0.01  # how often a FIFO without a reader is tried again by who writes to it.
LINE_CHUNK_BYTES = 64 * 1024  # read at a time by what gives lines.
WATCH_STEP_S = 0.02  # how often watchfiles looks whether something came, and how long nothing more must come.
WATCH_GATHER_S = 0.1  # changes are told after this at the latest, however many more come.
WATCH_MAX_QUEUE = 10_000  # changes that wait for an iteration; the oldest are dropped.
DIR_BATCH = 32  # entries that opendir() reads at a time; Node's bufferSize.

# --- the HTTP client ------------------------------------------------------------------------------------------------
AGENT_MAX_SOCKETS_TOTAL = 100  # connections of one agent at a time, further requests queue; aiohttp and httpx 100.
AGENT_MAX_SOCKETS_PER_HOST = 0  # 0: no limit but the total one; Node's maxSockets is infinite, too.
AGENT_KEEP_ALIVE_S = 15.0  # an idle kept connection; aiohttp 15 s, undici 4 s.
AGENT_CONNECT_TIMEOUT_S = 10.0  # for the name, and again for TCP with TLS; undici 10 s.
AGENT_REPLY_TIMEOUT_S = 300.0  # from the last byte sent to the head of the reply; undici 300 s.
AGENT_BODY_TIMEOUT_S = 300.0  # silence within a body; undici 300 s.
AGENT_MAX_REDIRECTS = 20  # the fetch standard.

# --- HTTP: deadlines cover the whole phase, never the gap between bytes ---
FIRST_BYTE_TIMEOUT_S = 10.0  # a connection that says nothing; hypercorn 5 s, Node 60 s.
HEADER_TIMEOUT_S = 10.0  # the whole head of a request (slowloris); nginx 60 s, hyper 30 s.
BODY_IDLE_TIMEOUT_S = 30.0  # no byte of an announced body while the application waits for it; nginx 60 s.
BODY_MIN_RATE_BYTES_S = 256  # after the idle allowance, a body slower than this is cut; Apache mod_reqtimeout 500.
KEEP_ALIVE_TIMEOUT_S = 15.0  # an idle kept connection; Node 5 s (65 s on main), gunicorn 2 s, nginx 75 s.
WRITE_TIMEOUT_S = 30.0  # a peer that takes nothing of a reply; nginx send_timeout 60 s.
TLS_HANDSHAKE_TIMEOUT_S = 10.0
SWEEP_INTERVAL_S = 0.5  # how often deadlines are checked; the error of every deadline above.

# --- HTTP: sizes and counts, cumulative over splits ---
MAX_HEADER_LINE_BYTES = 8 * 1024  # one field; Apache and gunicorn 8190.
MAX_HEADER_BYTES = 32 * 1024  # the whole field block; Node 16 KiB, nginx 4 x 8 KiB.
MAX_HEADER_COUNT = 100  # Apache, gunicorn, hyper, HAProxy (101).
MAX_TARGET_BYTES = 8 * 1024  # the request target: 414 above.
MAX_CHUNK_OVERHEAD_BYTES = 1024  # chunk sizes and extensions beyond what the body explains, on top of 16 a chunk.
MAX_TRAILER_BYTES = 8 * 1024
MAX_BODY_BYTES = 0  # 0: no cap; the application decides. nginx 1 MB.
MAX_PIPELINED = 16  # requests queued on one connection before it is paused.
PARSE_SLICE_BYTES = 8 * 1024  # one read can complete ten thousand requests: feed slices, look up between them.
READ_HIGH_WATER_BYTES = 64 * 1024  # body bytes waiting for the application before reading pauses; Node 64 KiB.
WRITE_JOIN_BYTES = 32 * 1024  # of a body, joined to its head for one write; longer ones are handed over without a copy.
WRITE_HIGH_WATER_BYTES = 64 * 1024  # reply bytes waiting for the peer before send() waits; Node 64 KiB.

# --- WebSocket ----------------------------------------------------------------------------------------------------
WS_MAX_MESSAGE_BYTES = 16 * 1024 * 1024  # uvicorn's default.
WS_MAX_FRAGMENTS = 1024  # continuation frames in one message.
WS_MAX_QUEUE = 32  # messages waiting for the application before reading pauses; uvicorn's default.
WS_PING_INTERVAL_S = 20.0
WS_PING_TIMEOUT_S = 20.0
WS_CLOSE_TIMEOUT_S = 5.0  # for the peer's half of the closing handshake.
WS_DEFLATE_MIN_BYTES = 1024  # shorter messages are sent as they are; ws's default threshold.
WS_DEFLATE_MAX_BYTES = 256 * 1024  # longer ones, too: deflating them would hold the loop for more than some 5 ms.

# --- WSGI ---------------------------------------------------------------------------------------------------------
WSGI_THREADS = 8
WSGI_QUEUE = 256  # requests waiting for a thread; 503 above.
WSGI_SWITCH_INTERVAL_S = 0.001  # so that a computing view cannot hold the loop's thread for 5 ms a time.
WSGI_CLOSE_S = 5.0  # how long the end of a worker waits for threads that are inside the application.

# --- the cluster --------------------------------------------------------------------------------------------------
BACKLOG = 511  # Node's default; the kernel's cap still holds.
MAX_BACKLOG = 65_536  # that a kernel can be told to keep waiting: so many are taken in before a socket is closed.
HANDOFF_CREDIT = 32  # connections given to a worker and not yet adopted.
MAX_DUPLICATES = 4096  # connections the primary keeps a copy of until their first byte is read; oldest dropped first.
MAX_UNDECIDED = 1024  # connections whose head is being read, or that wait for a certain worker (sticky).
LISTENER_LINGER_S = 10.0  # a forking program's listener whose last worker died stays open for the next one.
LEAVE_S = 0.5  # what workers of a forking program may take to leave once it has ended.
FORCE_MARGIN_S = 2.0  # and beyond the grace of a disconnect(); then they are killed.
THREADS_LEAVE_S = 2.0  # and the threads of one that was let go without a grace, once its loop has ended.
ANSWERER_COMES_S = 2.0  # how long a request waits for a 'request' listener where nobody listens: programs start.
MAX_COUNTERS = 4096  # named ones of a cluster: 32 KiB of shared memory.
RELAY_HIGH_WATER_BYTES = 4 * 1024 * 1024  # of messages between workers, for one that takes nothing; then it is said,
RELAY_MAX_BYTES = 64 * 1024 * 1024  # and above this they are dropped, and that is said, too.
FULL_RETRY_S = 1.0  # a server that refused a connection, and of which none was closed since, is asked this often.
NOBODY_READY_S = 5.0  # a request whose head was read waits this long for any worker; then it gets a 503.
LOAD_INTERVAL_S = 0.01  # how often a worker says how many requests it has, for policies that ask.
HEARTBEAT_INTERVAL_S = 0.25
HEARTBEAT_MISSED_S = 0.75  # a worker silent for longer gets no new connections (promise: within 1 s).
HANG_TIMEOUT_S = 30.0  # and is killed after this; gunicorn's --timeout.
STARTUP_TIMEOUT_S = 60.0
GRACE_S = 30.0  # gunicorn's --graceful-timeout.
ORPHAN_GRACE_S = 1.0  # what workers of a dead primary may still finish.
RESTART_MAX = 5  # restarts before ready, in RESTART_WINDOW_S, before a slot backs off to the longest delay.
RESTART_WINDOW_S = 30.0
RESTART_DELAY_FIRST_S = 0.1
RESTART_DELAY_MAX_S = 10.0
RESTART_JITTER = 0.2
RESTART_RATE_S = 1.0  # replacements per second after deaths of ready workers, once a burst is used up.
RESTART_BURST = 5  # deaths of ready workers answered at once, besides one for each worker.
DRAIN_KILL_MARGIN_S = 1.0  # what a worker may take beyond its grace to end the lifespan and leave.
FAST_STOP_S = 1.0  # the second signal: workers cut their connections and have this long to leave.
TICK_S = 0.1  # how often the supervisor looks at heartbeats and deadlines.
STALLED_S = 0.5  # ticks this far apart mean that the primary itself was stopped: nobody is blamed for silence.
MAX_OLD_GENERATIONS = 2  # that may still drain when a reload begins; older ones are cut.
MAX_WORKERS = 1024
MAX_DESCRIPTORS = 1024 * 1024  # the soft limit is raised to the hard one, at most to this.
DESCRIPTORS_PER_WORKER = 12  # in the primary: its sockets, page and pidfd, doubled while it is being started.
ACCEPT_BATCH = 64  # connections that the primary, which does nothing else, accepts in one turn of its loop.
ACK_DELAY_S = 0.002  # a worker gathers acknowledgements for this long, or up to half its credit.
ORPHAN_LOOK_S = (
    1.0  # as PID 1: a dead stranger is buried at the second look, so that whoever does wait for it is first.
)
REPORT_INTERVAL_S = 1.0  # a worker's statistics.
THREAD_BEAT_INTERVAL_S = 0.5  # a worker's side thread: tells blocking Python code from C code that holds the lock.
STACK_AFTER_S = 0.6  # after silence was noticed: by then a side thread that can run has done so.
STACK_WAIT_S = 0.15  # for a worker's signal handler to write its stack before it is killed.

# --- channels between processes -----------------------------------------------------------------------------------
CHANNEL_HIGH_WATER_BYTES = 1024 * 1024
MAX_MESSAGE_BYTES = 256 * 1024 * 1024  # cap on one message; raise it per channel.
OUT_OF_BAND_MIN_BYTES = 64 * 1024  # buffers from this size travel through shared memory.
DESCRIPTORS_IN_FLIGHT = 256  # passed and not acknowledged, for one channel; the kernel counts them against our limit.
DESCRIPTOR_ATTEMPTS = 4  # the first and 3 more, as Node's child_process retransmits.
DESCRIPTOR_RETRY_S = 0.05  # before the first retransmission, doubled each time: a full table needs time to empty.
CHANNEL_FLUSH_S = 5.0  # how long a program that ends may still send to who started it,
CHANNEL_STALLED_S = 0.5  # which gives up earlier when nothing is taken for so long.
CHANNEL_CLOSE_S = 1.0  # how long a closing channel waits for the acknowledgement of descriptors.

# --- worker threads -----------------------------------------------------------------------------------------------
ATOMICS_SLICE_S = 0.25  # Atomics.wait sleeps at most this long before it looks whether the others are alive.
ATOMICS_STALE_S = 2.0  # a waiter that did not look for so long was killed (or stopped): it is passed over.
TERMINATE_S = 2.0  # what terminate() allows an interpreter or a thread before it is reported as stuck (row 27: 5 s).
STUCK_S = 4.5  # … and at the latest, where its own watching thread has not come to say so: a starved machine.
PROGRAM_END_S = 1.0  # how long the end of the program waits for interpreters that were told to stop.
PROGRAM_EXIT_S = (
    10.0  # then Python may take so long to end beside one that did not stop (1 ms; 3 s on a starved machine).
)
INTERRUPT_INTERVAL_S = 0.05  # between two attempts at interrupting it: an `except` clause may have swallowed one.
INTERRUPT_DEFER_S = 0.1  # how long an attempt waits for code of the user: elsewhere it may leave a lock taken for ever.
LINGER_S = 1.0  # how long the end of a worker waits for the reader of a port with messages that were not taken.
STDIO_HIGH_WATER_BYTES = 16 * 1024 * 1024  # captured output that nobody reads; above it the worker's prints wait.
PORT_QUEUE_MESSAGES = 64  # messages waiting for `async for` before the port stops reading from its socket.
MAX_MESSAGE_DESCRIPTORS = 250  # ports and shared buffers in one message; the kernel takes 253 (SCM_MAX_FD).
PROBE_TIMEOUT_S = 10.0  # trying whether packages load in an interpreter; in doubt it is a process.

# --- logs ---------------------------------------------------------------------------------------------------------
MAX_LOG_QUEUE_RECORDS = 10_000  # records waiting for a destination that takes nothing; dropped and counted above.
MAX_LOG_QUEUE_BYTES = 4 * 1024 * 1024
MAX_LOG_MESSAGE_CHARS = 4096  # one message; longer ones are cut and say by how much. syslog's usual 8 KiB, halved.
MAX_LOG_DETAIL_CHARS = 32 * 1024  # a traceback or a stack under a message; the middle is cut.
LOG_GATHER_S = 0.02  # lines are written in batches of this time; warnings and errors at once.
LOG_KEPT_LINES = 200  # the last ones of each process, for `multiloop logs`.
LOG_FOLLOW_BYTES = 256 * 1024  # that wait for a primary which follows the log; more lines are dropped and counted.
LOG_ASK_S = 1.0  # how long a worker may take to give its last lines; a blocked one is left out.
LOG_FLUSH_S = 1.0  # how long the end of the process waits for the last lines.

# --- child processes ------------------------------------------------------------------------------------------------
CHILD_PIPE_BYTES = 64 * 1024  # kept of a child's output that nobody reads, and of input it does not take; Node 64 KiB.
CHILD_PIPE_LAST_BYTES = 1024 * 1024  # kept once the child has ended: more than the kernel's pipe can still hold.
EXEC_MAX_BUFFER_BYTES = 1024 * 1024  # output of exec and exec_file, of each stream; Node's maxBuffer.
CHILD_KILL_AFTER_S = 2.0  # a child that outlives the signal of its timeout or cancelled awaiter gets SIGKILL.
CHILD_LAST_WAIT_S = 0.2  # how long the end of the program waits for a killed child's end.
CHILD_PENDING_MESSAGES = 256  # kept while nobody listens for 'message'; then the sender feels it.

# --- pools ----------------------------------------------------------------------------------------------------------
POOL_DEPTH = 2  # tasks that one worker has, running and ahead, so that it never waits for the next one.
POOL_AHEAD_S = 0.001  # tiny tasks are sent ahead until they make so much work …
POOL_MOST_AHEAD = 256  # … but not more of them.
POOL_ROB_AFTER_S = 0.001  # tasks behind one that runs for longer are taken back while another worker is idle.
POOL_STOP_GRACE_S = 1.0  # for a task that looks at stop_requested() before it is killed; workerpool 1 s.
POOL_EXIT_GRACE_S = 5.0  # for a worker's finalizer before it is killed.
POOL_RETRIES = 2  # how often an idempotent task is run again after its worker died; then it is the task.
POOL_BOOT_FAILURES = 3  # workers that ended themselves or crashed before they were ready: the pool is broken.
POOL_BOOT_KILLS = 50  # the same for workers that were killed, which says less about the next one.
POOL_BOOT_DELAY_S = 0.05  # before starting again after such a failure, doubled each time.
POOL_BOOT_DELAY_MAX_S = 1.0
POOL_AGE_JITTER = 0.1  # workers started together are not recycled together.
POOL_LOOK_INTERVAL_S = 0.25  # how often a worker's memory is looked at, between its tasks.
POOL_MAP_AHEAD = 4  # tasks that map() has under way for each worker …
POOL_MAP_AHEAD_MOST = 512  # … and for each while they prove tiny.

# --- the dashboard and metrics ------------------------------------------------------------------------------------
MAX_METRIC_VALUES = 10_000  # samples of the user's metrics that one worker publishes.
METRICS_SHARE = 0.005  # of a loop's time that collecting them may take: the more there are, the rarer.
SAMPLE_INTERVAL_S = 1.0  # the dashboard's look at the cluster, and one point of its charts.
HISTORY_S = 900.0  # what its charts show.
MAX_EVENTS = 300  # of the cluster's, kept for the dashboard.
MAX_OFFENDERS = 100  # places that blocked a loop, kept; the ones that cost least go first.
MAX_STREAMS = 32  # pages that are open at a time; more are answered with 503.
MAX_ADMIN_CONNECTIONS = 128
FRESH_S = 0.05  # what a scrape waits for workers' newest figures; those that are blocked have their last ones shown.
MEASURE_LEASE_S = 15.0  # how long workers measure after `multiloop top` last looked.
MIN_TOKEN_CHARS = 16

# --- pools on other machines ----------------------------------------------------------------------------------------
POOL_FAR_AHEAD_S = 0.01  # tiny tasks are sent together until they make so much work: ten times what a call costs …
POOL_FAR_MOST = 1024  # … but not more of them.
POOL_FAR_LOOK_S = (
    0.05  # a call that takes longer is looked at: results before the slow task come, those behind go elsewhere.
)
POOL_FAR_LATE_S = 2.0  # what a worker may take beyond a task's time limit, or a stop, before the engine ends it.
POOL_FAR_IDLE_S = (
    60.0  # a worker without a task for so long gives its place in the cluster back; Ray's autoscaler 60 s.
)
POOL_FAR_SLOW_START_S = 10.0  # a worker for which the cluster has no room for longer is worth a warning.
POOL_FAR_CHECK_S = 2.0  # between two looks whether the engine is still there.
POOL_FAR_RECONNECT_S = 60.0  # how long waiting tasks wait for a lost engine to come back.
POOL_FAR_PAUSE_S = 0.25  # before connecting again, doubled each time …
POOL_FAR_PAUSE_MAX_S = 5.0  # … up to this.
POOL_FAR_LEASH_S = 60.0  # a Dask worker that has not heard of its pool for so long leaves.

# --- the bus --------------------------------------------------------------------------------------------------------
BUS_MAX_MESSAGE_BYTES = 1024 * 1024  # of one message; NATS 1 MB.
BUS_MAX_WAITING_BYTES = 16 * 1024 * 1024  # kept while there is no connection; NATS clients 8 MB.
BUS_HIGH_WATER_BYTES = 1024 * 1024  # waiting to be sent before publish() says False.
BUS_QUEUE_MESSAGES = 10_000  # waiting for one `async for`; the oldest go.
BUS_CONNECT_S = 5.0
BUS_SILENCE_S = 5.0  # without a word from the server it is asked; as long again, and the connection is dropped.
BUS_PAUSE_S = 0.1  # before connecting again, doubled each time …
BUS_PAUSE_MAX_S = 5.0  # … up to this.
BUS_PROBE_CHANNEL = "multiloop:probe"  # subscribed to first, so that a connection proves itself before it is used.
BUS_ASK_S = 10.0  # for the reply to a request.
BUS_ASK_AGAIN_S = 1.0  # a question that was not answered is sent again; who has it does not run it again.
BUS_ANSWERS_MOST = 1000  # handlers that run on one end; beyond it, it does not offer to answer.
BUS_REPLIES_KEPT = 10_000  # replies that one end can give again.
BUS_ERROR_CHARS = 4096  # of a handler's error that go to who asked.
BUS_CLOSE_S = 1.0  # for saying good-bye to the server.
BUS_LAST_S = 2.0  # how long leaving `async with bus` waits for what is to be sent.
