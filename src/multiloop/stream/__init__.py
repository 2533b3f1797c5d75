"""Streams: chunks that move from a source to a sink, no faster than the sink takes them.

What lives here: the public names `Readable`, `Writable`, `Duplex`, `Transform`, `PassThrough`, `pipeline`, `finished`,
`compose`, and the default marks. What must not: files, sockets and processes, which are streams of these kinds or look
like them.

    await stream.pipeline(fs.create_read_stream("big"), compress, fs.create_write_stream("big.gz"))

Promises
* Backpressure from end to end: nothing is buffered beyond the marks (64 KiB a side, unless set otherwise).
* One stage that fails, closes too early or is cancelled destroys all, and that error is raised.
* Leaving an `async for` destroys the stream; the loop's end waits until it is closed.
* A stream emits 'error' at most once and before 'close', 'close' exactly once; an error that nobody looks at is uncaught.
"""

from __future__ import annotations

from ._base import Stream as Stream
from ._chunks import LineSplitter as LineSplitter
from ._chunks import get_default_high_water_mark as get_default_high_water_mark
from ._chunks import set_default_high_water_mark as set_default_high_water_mark
from ._compose import compose as compose
from ._finished import finished as finished
from ._pipeline import pipeline as pipeline
from ._readable import Readable as Readable
from ._transform import Duplex as Duplex
from ._transform import PassThrough as PassThrough
from ._transform import Transform as Transform
from ._writable import Writable as Writable
