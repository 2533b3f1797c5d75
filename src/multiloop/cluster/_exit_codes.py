"""The exit codes of `multiloop`, in one table.

What lives here: the numbers, each with what it means for a script or a service manager. What must not: deciding.
"""

from __future__ import annotations

from enum import IntEnum

from ..http._target import EXIT_NO_TARGET, EXIT_NOT_AN_APP
from ._listeners import EXIT_LISTEN


class ExitCode(IntEnum):
    """What a `multiloop` process ends with. 128 + n is the shell's way to say: killed by signal n."""

    OK = 0  # served and stopped as asked; or the command did what it should
    INTERNAL = 1  # an uncaught exception; its traceback was printed
    USAGE = 2  # an option, a combination of options or a configuration file is wrong
    NEVER_READY = 3  # the application never became ready: its import or its lifespan failed, or it took too long
    NO_TARGET = EXIT_NO_TARGET  # 4: the module or attribute of the target does not exist
    NOT_AN_APP = EXIT_NOT_AN_APP  # 5: it exists and is not an application
    CANNOT_LISTEN = EXIT_LISTEN  # 6: the address is in use, not ours or not permitted, or a Unix path is somebody's
    NO_SERVER = 7  # a control command found no running server at its socket
    COMMAND_FAILED = 8  # the running server refused a command or could not do it (a reload to broken code)
