"""The bus: messages and questions between workers, clusters and machines.

What lives here: the public names. The parts: `_frames` and `_sequence` (pure), `_bus`, `_subscription`, `_questions`,
`_transport` (this process and its cluster), `_redis`.

    bus = multiloop.bus.connect(os.environ.get("BUS_URL"))     None: one machine; redis://…: several. The code is the same.
    bus.publish("chat", {"text": "hello"})
    async for message in bus.subscribe("chat"): ...
    bus.answer("price", handler);  reply = await bus.request("price", {"of": "tea"})

Nothing is unpickled that came over a network: values are those of JSON, and bytes. Tuples arrive as lists.
"""

from __future__ import annotations

from ._bus import Answers as Answers
from ._bus import Bus as Bus
from ._bus import connect as connect
from ._subscription import Gap as Gap
from ._subscription import Message as Message
from ._subscription import Subscription as Subscription
