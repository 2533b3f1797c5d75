"""dns: asking the system for names and addresses without blocking the loop.

What lives here: `lookup`, `lookup_service`, `reverse`: what the operating system's resolver answers (hosts file, DNS,
whatever nsswitch says). What must not: a DNS client of our own. `resolve()` and its kin, which in Node speak DNS
themselves, are refused in one line: Python has no such client, and a resolver that ignores the system's configuration
is no helper.

The calls run on the threads for blocking work, on at most half of them, so that slow names never hold up files. A
cancelled call stops waiting at once; the thread goes on to the resolver's own timeout.
"""

from __future__ import annotations

from typing import Any, NoReturn

from ._lookup import LookupAddress as LookupAddress
from ._lookup import lookup as lookup
from ._lookup import lookup_service as lookup_service
from ._lookup import reverse as reverse

__all__ = ["LookupAddress", "lookup", "lookup_service", "reverse"]

_REFUSED = "Resolver", "set_servers", "get_servers"


def __getattr__(name: str) -> NoReturn:
    if name.startswith("resolve") or name in _REFUSED:
        raise AttributeError(
            f"dns.{name} is not here: Python has no DNS client; use dns.lookup() for addresses, dnspython for MX, TXT, SRV …"
        )
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[Any]:
    return list(__all__)
