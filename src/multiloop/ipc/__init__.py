"""One duplex channel between two processes: messages in order, backpressure, descriptors that arrive or are missed.

What lives here: `pair`, `ChannelEnds` and `Channel`. What must not: what the messages mean.
"""

from __future__ import annotations

from .._wire.frames import MESSAGE as MESSAGE
from .._wire.frames import Frame as Frame
from ._channel import Channel as Channel
from ._ends import ChannelEnds as ChannelEnds
from ._ends import pair as pair
