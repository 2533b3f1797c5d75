"""The loop: running a program until nothing is left, counting handles, operations, and the threads for blocking calls.

What lives here: the public names `run`, `offload`, `on_uncaught`, `Operation`, `Limiter`, `map_limited`, and for the
modules above the hub, `Handle`, `begin` and `launch`. What must not: anything that does I/O itself.
"""

from __future__ import annotations

from ._completions import GoOn as GoOn
from ._hub import Handle as Handle
from ._hub import Hub as Hub
from ._hub import hub as hub
from ._hub import on_new_hub as on_new_hub
from ._hub import on_uncaught as on_uncaught
from ._limit import Limiter as Limiter
from ._limit import map_limited as map_limited
from ._offload import call as call
from ._offload import call_always as call_always
from ._offload import offload as offload
from ._offload import offload_to as offload_to
from ._operation import AnyOperation as AnyOperation
from ._operation import CallbackOperation as CallbackOperation
from ._operation import ErrorFirst as ErrorFirst
from ._operation import Operation as Operation
from ._operation import begin as begin
from ._operation import check_callback as check_callback
from ._operation import launch as launch
from ._run import LoopName as LoopName
from ._run import leave_signals as leave_signals
from ._run import loop_factory as loop_factory
from ._run import run as run
from ._threads import wanted as wanted
from ._vigil import vigil_of as vigil_of
