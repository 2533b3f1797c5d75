"""Reading 1 000 small files, together and one after another; copying a large one through a stream."""

from __future__ import annotations

from pathlib import Path

from ..harness.bench import Bench
from ..harness.model import Budget, Row, Side
from ._scripts import script

_COPY_MIB = 256


def _folder(bench: Bench) -> Path:
    folder = bench.scratch / "files"
    if not (folder / "999").exists():
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(1000):
            (folder / str(number)).write_bytes(b"x" * 4096)
    return folder


def _sides(order: str) -> dict[str, Side]:
    def rounds(bench: Bench) -> int:
        return bench.count(12, 8)

    def few(bench: Bench) -> int:
        return bench.count(6, 3)

    def python(library: str) -> Side:
        return script(
            library, ("peers",),
            lambda b: [b.tools.peers / "python", "files_peers.py", library, order, _folder(b), few(b)], skip=1,
        )  # fmt: skip

    return {
        "multiloop": script(
            "multiloop", ("ours",),
            lambda b: [b.tools.ours / "python", "files_ours.py", order, _folder(b), rounds(b)], role="ours", skip=1,
        ),
        "Node": script(
            "Node", ("node",), lambda b: [b.tools.node, "files.js", "promises", order, _folder(b), rounds(b)], skip=1
        ),
        "Node callbacks": script(
            "Node callbacks", ("node",),
            lambda b: [b.tools.node, "files.js", "callbacks", order, _folder(b), rounds(b)], skip=1, quick=False,
        ),
        "Bun": script(
            "Bun", ("bun",), lambda b: [b.tools.bun, "files.js", "promises", order, _folder(b), rounds(b)], skip=1
        ),
        "aiofiles": python("aiofiles"),
        "anyio": python("anyio"),
        "plain": script(
            "open, read, close", ("peers",),
            lambda b: [b.tools.peers / "python", "files_peers.py", "plain", order, _folder(b), rounds(b)],
            role="floor", skip=1, quick=False,
        ),
    }  # fmt: skip


_TOGETHER = _sides("together")
_AFTER = _sides("after")

TOGETHER = Row(
    "files-together",
    "Files and streams",
    "read 1 000 files of 4 KiB together",
    tuple(_TOGETHER.values()),
    per="file",
    take="median",
    budgets=(Budget(("Node",), 1.0), Budget(("aiofiles",), 0.12)),
    quick=True,
    what="All 1 000 reads are started at once and awaited together. Node stands for its promises.",
)

AFTER = Row(
    "files-after",
    "Files and streams",
    "the same one after another",
    tuple(_AFTER[name] for name in ("multiloop", "Node", "Bun", "aiofiles", "anyio", "plain")),
    per="file",
    take="median",
    budgets=(Budget(("Node",), 1.2),),
    quick=True,
    what="Each read is awaited before the next one starts.",
)


def _large(bench: Bench) -> Path:
    folder = bench.scratch / "copy"
    file = folder / "from"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        block = bytes(range(256)) * 4096
        with open(file, "wb") as out:
            for _ in range(_COPY_MIB):
                out.write(block)
    return folder


COPY = Row(
    "stream-copy",
    "Files and streams",
    f"copy {_COPY_MIB} MiB through a pipeline",
    (
        script("multiloop", ("ours",), lambda b: [b.tools.ours / "python", "copy_ours.py", _large(b)], role="ours"),
        script("Node", ("node",), lambda b: [b.tools.node, "copy.js", _large(b)]),
        script("Bun", ("bun",), lambda b: [b.tools.bun, "copy.js", _large(b)]),
        script("aiofiles", ("peers",), lambda b: [b.tools.peers / "python", "copy_peers.py", "aiofiles", _large(b)]),
        script(
            "read, write", ("peers",), lambda b: [b.tools.peers / "python", "copy_peers.py", "plain", _large(b)],
            role="floor",
        ),
    ),
    metric="cpu_ms",
    unit="ms",
    per=f"{_COPY_MIB} MiB",
    what="A read stream piped into a write stream, in pieces of 64 KiB, with backpressure.",
)  # fmt: skip

ROWS = (TOGETHER, AFTER, COPY)
