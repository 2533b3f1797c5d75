"""The test kit: what multiloop is tested with, for your tests, too.

What lives here: public names. The parts: `_checker` (asks a server all the time and tells what was lost, doubled or mixed
up) `app` (the application that it asks) `_proxy` (a connection with faults) `_clock` (time that you move) `_memory` (a
served application without a socket) `_policies` (whether a policy keeps its contract) `simulate` (a whole cluster on a
seeded clock). What must not: anything that a server needs.
"""

from __future__ import annotations

from ._checker import Failure as Failure
from ._checker import RequestChecker as RequestChecker
from ._checker import Verdict as Verdict
from ._clock import FakeClock as FakeClock
from ._memory import MemoryConnection as MemoryConnection
from ._policies import check_policy as check_policy
from ._proxy import FaultProxy as FaultProxy
from ._proxy import Faults as Faults

__all__ = [
    "Failure",
    "FakeClock",
    "FaultProxy",
    "Faults",
    "MemoryConnection",
    "RequestChecker",
    "Verdict",
    "check_policy",
]
