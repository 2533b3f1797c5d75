"""When a connection has waited long enough: its phases, and what happens at the end of each.

What lives here: the phases, and the two looks that a service's sweep takes. What must not: when a phase begins (that is
`_connection`'s), how long it may last (`_config`).

| phase      | waits for                                        | when its time is over              |
|------------|--------------------------------------------------|------------------------------------|
| FIRST_BYTE | anything at all                                  | cut                                |
| HEAD       | the rest of a head, from its first byte          | 408, closed                        |
| BODY       | more of a body; also too slow a body             | 408, closed; the application told  |
| SERVING    | the application                                  | never                              |
| IDLE       | the next request                                 | closed                             |
| LINGER     | the client's reading of an error                 | cut                                |
| CLOSING    | the last bytes to leave                          | cut                                |
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .._wire.http1 import BadRequest

if TYPE_CHECKING:
    from ._connection import Connection

FIRST_BYTE, HEAD, BODY, SERVING, IDLE, LINGER, CLOSING = range(7)
_NAMES: Final = ("first byte", "head", "body", "serving", "idle", "linger", "closing")

NEVER: Final = float("inf")


def overdue(connection: Connection, now_s: float) -> None:
    """Act on a connection whose deadline has passed."""
    phase = connection.phase
    if connection.upgraded is not None:
        connection.upgraded.overdue(now_s)
    elif phase == BODY and connection.reading_paused:
        # The application's delay, not the client's.
        connection.deadline_s = now_s + connection.service.config.body_idle_timeout
    elif phase in (HEAD, BODY):
        _timed_out(connection)
    elif phase == IDLE and not connection.transport.get_write_buffer_size():
        connection.close()
    else:
        connection.abort()


def check_rates(connection: Connection, now_s: float) -> None:
    """Cut a client that takes nothing of a reply, or drips its body."""
    config = connection.service.config
    reader = connection.reader
    if now_s - connection.write_since_s > config.write_timeout:
        connection.abort()
    elif connection.phase == BODY and config.body_min_rate and reader is not None and not connection.reading_paused:
        waited_s = now_s - connection.body_since_s
        least = config.body_min_rate * (waited_s - config.body_idle_timeout / 2)
        if waited_s > config.body_idle_timeout and reader.body_bytes < least:
            _timed_out(connection)


def _timed_out(connection: Connection) -> None:
    current = connection.current
    if current is not None and current.started and not current.body_done:
        connection.cut(current, 408)
    elif current is None and connection.reader is not None and connection.reader.exchange is not None:
        connection.close(linger=True)  # the rest of a body that nobody wanted
    else:
        connection.refuse(BadRequest(408, f"the {_NAMES[connection.phase]} took too long"))
        connection.pump()
