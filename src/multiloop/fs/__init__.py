"""Files: Node's `fs` for asyncio. Nothing here blocks the loop.

What lives here: the public names. What must not: code.

    data = await fs.read_file("a.txt")                                     # awaited
    fs.read_file("a.txt", callback=lambda error, data: print(data))        # or with an error-first callback

Promises
* Every function starts at once and is one hop to a thread, whatever it does on the way; results come back in batches.
* Errors are OSError and its kinds with `filename`; a path with a NUL is `InvalidPath`, a closed handle `ClosedError`.
* Cancelling stops what can be stopped (between two chunks, two entries) and closes what was opened. Two operations in
  flight are in no order: await one before you start what depends on it.
* A file that makes wait (a slow disk, a FIFO) holds up no other; FIFOs wait without a thread.
"""

from __future__ import annotations

from ._file import COPYFILE_EXCL as COPYFILE_EXCL
from ._file import COPYFILE_FICLONE as COPYFILE_FICLONE
from ._file import COPYFILE_FICLONE_FORCE as COPYFILE_FICLONE_FORCE
from ._file import append_file as append_file
from ._file import copy_file as copy_file
from ._file import read_file as read_file
from ._file import truncate as truncate
from ._file import write_file as write_file
from ._handle import FileHandle as FileHandle
from ._handle import open as open  # noqa: A004 - Node's name
from ._stats import StatFs as StatFs
from ._stats import Stats as Stats
from ._streams import ReadStream as ReadStream
from ._streams import WriteStream as WriteStream
from ._streams import create_read_stream as create_read_stream
from ._streams import create_write_stream as create_write_stream
