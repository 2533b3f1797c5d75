"""Follows log files as `tail -F` does: prints the lines that are added, through rotation, truncation and disappearance.

    python examples/log_follower.py /var/log/app.log /var/log/db.log        # or: --all, --grep "ERROR|WARN"

What it shows: `fs.watch` as an async iterator, one watcher for each folder; a file read on from where it ended as a stream,
in a `pipeline` whose stages are plain generators; an open `FileHandle` that still reads a file whose name has gone to
another one. Nothing polls: with no new line it costs nothing. Ctrl-C ends it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import sys
from collections.abc import AsyncIterable, AsyncIterator

import multiloop
from multiloop import fs, stream


class Follower:
    """One file: how far it was read, and under which name."""

    def __init__(self, path: str, wanted: re.Pattern[str], label: str) -> None:
        self.path = path
        self.wanted = wanted
        self.label = label
        self.file: fs.FileHandle | None = None  # stays on a file that was renamed, to its last line
        self.inode = 0
        self.position = 0
        self.splitter = stream.LineSplitter(errors="replace")  # keeps the beginning of a line until its end comes

    async def begin(self, everything: bool) -> None:
        """Open the file, if it is there; from its end unless everything is wanted."""
        if await self.open() and not everything and self.file is not None:
            self.position = (await self.file.stat()).size

    async def open(self) -> bool:
        """Open what has the name now; whether there is anything."""
        try:
            self.file = await fs.open(self.path)
        except FileNotFoundError:
            return False
        self.inode = (await self.file.stat()).ino
        self.position = 0
        self.splitter = stream.LineSplitter(errors="replace")
        return True

    async def catch_up(self) -> None:
        """Print what came since the last time, first of the file that had the name, then of the one that has it now."""
        if self.file is not None:
            await self.print_new_lines(self.file)
        try:
            inode = (await fs.stat(self.path)).ino
        except FileNotFoundError:
            return  # it is being rotated: another event will come
        if self.file is None or inode != self.inode:
            if self.file is not None:
                await self.print_new_lines(self.file)  # what came between the two looks, before the name went on
            await self.close()
            if await self.open() and self.file is not None:
                await self.print_new_lines(self.file)

    async def print_new_lines(self, file: fs.FileHandle) -> None:
        """Read to the end of the file as it is now."""
        if (await file.stat()).size < self.position:  # truncated: it begins anew
            self.position = 0
        await stream.pipeline(
            fs.create_read_stream(self.path, fd=file, start=self.position, auto_close=False),
            self.lines,
            self.print_all,
        )

    async def lines(self, chunks: AsyncIterable[bytes]) -> AsyncIterator[str]:
        """Cut chunks into whole lines, and keep those that are wanted."""
        async for chunk in chunks:
            self.position += len(chunk)
            for line in self.splitter.feed(chunk):
                if self.wanted.search(line):
                    yield line

    async def print_all(self, lines: AsyncIterable[str]) -> None:
        """The last stage."""
        async for line in lines:
            print(f"{self.label}{line}", flush=True)

    async def close(self) -> None:
        """Let go of the file."""
        if self.file is not None:
            await self.file.close()
            self.file = None


async def follow(folder: str, followers: dict[str, Follower], everything: bool) -> None:
    """Follow files of one folder, by name, for ever."""
    # The folder is watched, not the files: a file that takes over a name is another file.
    async with fs.watch(folder, ignore=lambda name: name not in followers) as changes:
        for follower in followers.values():  # only now: nothing that comes later can be missed
            await follower.begin(everything)
            await follower.catch_up()
        async for change in changes:
            await followers[change.filename].catch_up()


async def main(options: argparse.Namespace) -> int:
    """Follow every file, those of one folder by one watcher. Ends with a signal, or with the first error."""
    folders: dict[str, dict[str, Follower]] = {}
    for path in map(os.path.abspath, options.files):
        folder, name = os.path.split(path)
        label = f"{name}: " if len(options.files) > 1 else ""
        folders.setdefault(folder, {})[name] = Follower(path, options.grep, label)
    try:
        async with asyncio.TaskGroup() as group:
            for folder, followers in folders.items():
                group.create_task(follow(folder, followers, options.all))
    except* OSError as problems:
        for problem in problems.exceptions:
            print(f"{sys.argv[0]}: {problem}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Print the lines that are added to files.")
    parser.add_argument("files", nargs="+", metavar="FILE", help="need not exist yet; its folder must")
    parser.add_argument("--all", action="store_true", help="print what is there already, too")
    parser.add_argument("--grep", type=re.compile, default="", metavar="REGEX", help="only lines that it is found in")
    sys.exit(multiloop.run(main, parser.parse_args()))
