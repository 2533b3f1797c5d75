"""What travels on a bus: JSON, and nothing else.

What lives here: `Frame`, and turning values into bytes and back. Pure: no socket, no clock. What must not: pickle. What
comes over a network is not ours, so it is read by a parser that can only make plain values, and checked field by field.

    {"k": kind, "s": sender, "n": number, "t": topic, "d": value, "i": id, "r": where to answer}
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from enum import Enum
from typing import Any, NamedTuple

from ..errors import FrameError, FrameTooLarge, NotSendable

MAX_TOPIC_CHARS = 256
_BYTES = "$bytes"  # {"$bytes": base64}: JSON has no bytes
_ESCAPE = "$"  # keys that begin so get one more
_MAX_DEPTH = 64


class Kind(Enum):
    """What a frame is for."""

    MESSAGE = "m"  # to all who subscribed
    BEAT = "b"  # nothing new: the number of the last message of this sender to this topic
    ASK = "a"  # who answers this? To all who answer the topic
    OFFER = "o"  # I would. To who asked
    GO = "g"  # you shall: the question itself. To one who offered
    REPLY = "r"  # the answer. To who asked
    FAILED = "f"  # the answer is an error: [type, text]. To who asked


class Frame(NamedTuple):
    """One message between the ends of a bus."""

    kind: Kind
    sender: str  # random, of one end
    topic: str
    number: int = 0  # 1, 2, 3 … of a sender's messages to a topic
    value: Any = None
    id: str = ""  # of a question
    answer_to: str = ""  # the sender of the question


_TYPES = {"s": str, "t": str, "n": int, "i": str, "r": str}


def pack(frame: Frame, max_bytes: int) -> bytes:
    """Turn a frame into bytes.

    Raises:
        NotSendable: the value has a part that JSON (with bytes) cannot say; names the path to it.
        FrameTooLarge: it is larger than `max_bytes`.
    """
    fields: dict[str, Any] = {"k": frame.kind.value, "s": frame.sender, "t": frame.topic}
    if frame.number:
        fields["n"] = frame.number
    if frame.value is not None:
        fields["d"] = _plain(frame.value, "value", 0)
    if frame.id:
        fields["i"] = frame.id
    if frame.answer_to:
        fields["r"] = frame.answer_to
    data = json.dumps(fields, separators=(",", ":"), allow_nan=False, ensure_ascii=False).encode(
        "utf-8", "surrogatepass"
    )
    if len(data) > max_bytes:
        raise FrameTooLarge(len(data), max_bytes)
    return data


def unpack(data: bytes | memoryview, max_bytes: int) -> Frame:
    """Turn bytes into a frame. Raises FrameError for whatever is none."""
    if len(data) > max_bytes:
        raise FrameError(f"a message of {len(data)} bytes: the limit is {max_bytes}")
    try:
        fields = json.loads(bytes(data).decode("utf-8", "surrogatepass"))
        if type(fields) is not dict:
            raise FrameError("a message that is no object")
        given = {name: fields.get(name, kind()) for name, kind in _TYPES.items()}
        for name, kind in _TYPES.items():
            if type(given[name]) is not kind:
                raise FrameError(f"a message whose field {name!r} is {type(given[name]).__name__}")
        if not given["s"] or len(given["t"]) > MAX_TOPIC_CHARS or given["n"] < 0:
            raise FrameError("a message without a sender, or with a topic or number that cannot be")
        return Frame(
            Kind(fields.get("k")),
            given["s"],
            given["t"],
            given["n"],
            _value(fields.get("d"), 0),
            given["i"],
            given["r"],
        )
    except FrameError:
        raise
    except (ValueError, TypeError, RecursionError, binascii.Error) as error:
        raise FrameError(f"a message that is not one of a bus: {error}") from error


def check_topic(topic: str) -> str:
    """Return a topic, if it is one. Raises ValueError."""
    if not topic or len(topic) > MAX_TOPIC_CHARS:
        raise ValueError(f"topic={topic!r}: a text of 1 to {MAX_TOPIC_CHARS} characters")
    return topic


def _plain(value: Any, path: str, depth: int) -> Any:
    """Return a value as JSON says it."""
    kind = type(value)
    if value is None or kind is bool or kind is str or kind is int:
        return value
    if depth > _MAX_DEPTH:
        raise NotSendable(path, value, ValueError(f"it is nested more than {_MAX_DEPTH} deep"))
    if isinstance(value, float):
        if math.isfinite(value):
            return float(value)
        raise NotSendable(path, value, ValueError("JSON has no infinity and no NaN"))
    if isinstance(value, bytes | bytearray | memoryview):
        return {_BYTES: base64.b64encode(value).decode()}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{path}[{index}]", depth + 1) for index, item in enumerate(value)]
    if isinstance(value, dict):
        made = {}
        for key, item in value.items():
            if not isinstance(key, str):
                raise NotSendable(f"{path}.keys()", key, TypeError("keys must be texts: this goes as JSON"))
            made[_ESCAPE + key if key.startswith(_ESCAPE) else key] = _plain(item, f"{path}[{key!r}]", depth + 1)
        return made
    if isinstance(value, str | int):
        return str(value) if isinstance(value, str) else int(value)
    raise NotSendable(path, value, TypeError("a bus carries what JSON can say, and bytes"))


def _value(value: Any, depth: int) -> Any:
    """The way back."""
    if depth > _MAX_DEPTH + 1:
        raise FrameError("a message that is nested too deep")
    if type(value) is list:
        return [_value(item, depth + 1) for item in value]
    if type(value) is dict:
        if len(value) == 1 and _BYTES in value:
            return base64.b64decode(value[_BYTES], validate=True)
        return {
            key.removeprefix(_ESCAPE) if key.startswith(_ESCAPE) else key: _value(item, depth + 1)
            for key, item in value.items()
        }
    return value
