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

from ._cp import cp as cp
from ._dir import Dir as Dir
from ._dir import Dirent as Dirent
from ._dir import opendir as opendir
from ._dir import readdir as readdir
from ._dir import scandir as scandir
from ._file import COPYFILE_EXCL as COPYFILE_EXCL
from ._file import COPYFILE_FICLONE as COPYFILE_FICLONE
from ._file import COPYFILE_FICLONE_FORCE as COPYFILE_FICLONE_FORCE
from ._file import append_file as append_file
from ._file import copy_file as copy_file
from ._file import read_file as read_file
from ._file import truncate as truncate
from ._file import write_file as write_file
from ._glob import glob as glob
from ._handle import FileHandle as FileHandle
from ._handle import open as open  # noqa: A004 - Node's name
from ._meta import F_OK as F_OK
from ._meta import R_OK as R_OK
from ._meta import W_OK as W_OK
from ._meta import X_OK as X_OK
from ._meta import access as access
from ._meta import chmod as chmod
from ._meta import chown as chown
from ._meta import exists as exists
from ._meta import lchown as lchown
from ._meta import link as link
from ._meta import lstat as lstat
from ._meta import lutimes as lutimes
from ._meta import readlink as readlink
from ._meta import realpath as realpath
from ._meta import rename as rename
from ._meta import stat as stat
from ._meta import statfs as statfs
from ._meta import symlink as symlink
from ._meta import unlink as unlink
from ._meta import utimes as utimes
from ._stats import StatFs as StatFs
from ._stats import Stats as Stats
from ._streams import ReadStream as ReadStream
from ._streams import WriteStream as WriteStream
from ._streams import create_read_stream as create_read_stream
from ._streams import create_write_stream as create_write_stream
from ._tree import TemporaryDirectory as TemporaryDirectory
from ._tree import mkdir as mkdir
from ._tree import mkdtemp as mkdtemp
from ._tree import mkdtemp_disposable as mkdtemp_disposable
from ._tree import rm as rm
from ._tree import rmdir as rmdir
from ._watch import Watcher as Watcher
from ._watch import WatchEvent as WatchEvent
from ._watch import watch as watch
