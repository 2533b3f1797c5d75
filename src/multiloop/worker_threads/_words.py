"""What a worker and its parent say to each other beside the user's messages, read by both ends.

What lives here: the frames of the control link and the first message. What must not: sockets, and what is done with it.

    parent → worker    START                       what to run, with which data
                       BROADCAST  LOCK  DIRECT     from elsewhere in the tree
    worker → parent    ONLINE  ERROR  END          in this order
                       BROADCAST  SUBSCRIBE  LOCK  DIRECT      for elsewhere in the tree
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from ._target import Target

# START has no number: the first frame is a packed `Start`, in one of the kinds of `_message`.
ONLINE: Final = 17  # the worker's code begins
ERROR: Final = 18  # what nobody caught, as `_failures.pack_error` made it; END follows
END: Final = 19  # the code is done; 4 bytes: the exit code. Messages may follow on the port, nothing here
BROADCAST: Final = 20  # see `_exchange`
SUBSCRIBE: Final = 21
LOCK: Final = 22
DIRECT: Final = 23  # see `_direct`


class Start(NamedTuple):
    """The first message to a worker."""

    target: Target
    worker_data: Any
    environment: dict[Any, Any]


class Plan(NamedTuple):
    """What a worker needs before it can read its first message. Marshalled: nothing of ours is imported yet."""

    kind: str
    path: list[str]  # sys.path
    argv: list[str]
    name: str
    thread_id: int
    control: int  # descriptors
    port: int
    parent_pid: int
    main: tuple[str, str] | None  # the program's main file (`_main_module`)
    authkey: bytes  # of the program's multiprocessing (`_authkey`)
    limits: dict[str, float]
    leash: int = -1  # of an interpreter
    environment: dict[bytes, bytes] | None = None  # of an interpreter, where it is not a copy of the program's
    stdin: int = -1  # of an interpreter, where they are not the program's
    stdout: int = -1
    stderr: int = -1


# Runs in a new process or interpreter. The path comes first: this package may be found only through it.
BOOTSTRAP = (
    "import marshal,sys\n"
    "with open({fd},'rb') as f: plan=marshal.load(f)\n"
    "sys.path[:]=plan[1]\n"
    "from multiloop.worker_threads._child import main\n"
    "main(plan)"
)
