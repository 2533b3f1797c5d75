"""child_process: other programs as children, with streams, events and messages.

What lives here: `spawn`, `exec`, `exec_file`, `fork`, `ChildProcess`, and in a child `parent` (None in a process that
was not started with a channel). What must not: threads or pools of our own workers (`worker_threads`, `pool`).
"""

from __future__ import annotations

from ..errors import CommandFailed as CommandFailed
from ..errors import CommandTimeout as CommandTimeout
from ..errors import MaxBufferExceeded as MaxBufferExceeded
from ._child import ChildProcess as ChildProcess
from ._child import Exit as Exit
from ._child import spawn as spawn
from ._exec import ExecOperation as ExecOperation
from ._exec import Output as Output
from ._exec import exec as exec  # noqa: A004 - Node's name
from ._exec import exec_file as exec_file
from ._fork import fork as fork
from ._parent import Parent as Parent
from ._parent import find_parent
from ._pipes import ReadPipe as ReadPipe
from ._pipes import WritePipe as WritePipe

parent: Parent | None = find_parent()
