"""Finding the exchange of a place.

What lives here: `exchange_of`, which puts an exchange and its desks together. What must not: any of them.
"""

from __future__ import annotations

from ._direct import DirectDesk
from ._exchange import Exchange
from ._lock_desk import LockDesk
from ._place import Place


def exchange_of(place: Place) -> Exchange:
    """The exchange of a place, made on first use."""
    if place.exchange is None:
        made = Exchange(place)
        made.desk = LockDesk(place, made)
        made.direct = DirectDesk(place, made)
        place.exchange = made
    return place.exchange
