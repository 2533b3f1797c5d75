"""A picture of the Mandelbrot set, computed by all cores into one SharedBuffer.

    python examples/mandelbrot.py mandelbrot.png       # or: --size 1920x1080 --workers 4 --kind process

What it shows: workers that write into the same memory, so that no pixel is ever copied or sent; `Atomics.add`, by which
each takes the next row that nobody has, so that all are busy until the end although some rows take longer than others;
messages for what is said only now and then; and that the program is the same for every kind of worker.
"""

from __future__ import annotations

import argparse
import array
import asyncio
import math
import struct
import sys
import time
import zlib
from typing import NamedTuple

import multiloop
from multiloop import worker_threads
from multiloop.worker_threads import Atomics, SharedBuffer, Worker

NEXT_ROW = 0  # the first element counts the rows that were taken; the pixels stand behind it
PIXELS = 1


class View(NamedTuple):
    """What is seen: the picture's size, the middle of it and its width in the plane, when to give up on a point."""

    width: int
    height: int
    middle: complex = -0.743643 + 0.131825j
    span: float = 0.0037
    most_steps: int = 250


def steps(point: complex, most: int) -> int:
    """Return after how many steps a point leaves the circle of radius 2; `most` when it stays."""
    z = 0j
    for step in range(most):
        if abs(z) > 2:
            return step
        z = z * z + point
    return most


def colour(count: int, most: int) -> int:
    """Return red, green, blue and opacity in one number, as they lie in memory."""
    if count == most:
        return int.from_bytes(bytes((0, 0, 0, 255)), sys.byteorder)
    turn = 2 * math.pi * math.sqrt(count / most)
    parts = [int(127.5 + 127.5 * math.cos(turn + phase)) for phase in (3.0, 2.4, 1.6)]
    return int.from_bytes(bytes((*parts, 255)), sys.byteorder)


def compute(work: tuple[SharedBuffer, View]) -> None:
    """Run in a worker: compute rows until all are taken, and say how many they were."""
    picture, view = work
    colours = [colour(count, view.most_steps) for count in range(view.most_steps + 1)]
    scale = view.span / view.width
    left_top = view.middle - complex(view.width, -view.height) * scale / 2
    done = 0
    while (row := Atomics.add(picture, NEXT_ROW, 1)) < view.height:
        start = left_top - row * scale * 1j
        counts = (steps(start + column * scale, view.most_steps) for column in range(view.width))
        at = PIXELS + row * view.width
        picture[at : at + view.width] = array.array("I", (colours[count] for count in counts))
        done += 1
    assert worker_threads.parent_port is not None
    worker_threads.parent_port.post_message(done)


async def render(view: View, workers: int, kind: str = "auto") -> tuple[SharedBuffer, list[str]]:
    """Return the picture, and what each worker did of it."""
    picture = SharedBuffer(4 * (PIXELS + view.width * view.height), format="I")
    team = [Worker(compute, worker_data=(picture, view), kind=kind, name=f"rows {n + 1}") for n in range(workers)]

    async def watch(worker: Worker) -> str:
        rows = [message async for message in worker]  # ends with the worker; raises what it raised
        return f"{worker.name} ({worker.kind}): {rows[0]} rows"

    return picture, list(await asyncio.gather(*map(watch, team)))


def png(picture: SharedBuffer, view: View) -> bytes:
    """Return the pixels as the bytes of a PNG file."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    pixels = memoryview(picture).cast("B")[4 * PIXELS :]
    line = 4 * view.width
    rows = b"".join(b"\0" + pixels[row * line : (row + 1) * line] for row in range(view.height))
    head = struct.pack(">IIBBBBB", view.width, view.height, 8, 6, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows, 6)) + chunk(b"IEND", b"")


def size(text: str) -> tuple[int, int]:
    """Read 640x480."""
    width, _, height = text.partition("x")
    if not (width.isdigit() and height.isdigit() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f"{text!r} is no size: write it as 640x480")
    return int(width), int(height)


async def main() -> None:
    """Read the command line, compute, write the file."""
    options = argparse.ArgumentParser(description="Draw the Mandelbrot set on all cores.")
    options.add_argument("file", nargs="?", default="mandelbrot.png")
    options.add_argument("--size", type=size, default=(640, 480))
    options.add_argument("--workers", type=int, default=multiloop.pool.usable_cores())
    options.add_argument("--kind", choices=("auto", "process", "interpreter", "thread"), default="auto")
    given = options.parse_args()
    view = View(*given.size)
    begun = time.perf_counter()
    picture, team = await render(view, given.workers, given.kind)
    print(*team, sep="\n")
    await multiloop.fs.write_file(given.file, png(picture, view))
    print(f"{given.file}: {view.width} x {view.height} in {time.perf_counter() - begun:.1f} s")


if __name__ == "__main__":  # workers import this file to find compute
    multiloop.run(main)
