"""A small parallel build runner: steps with dependencies, as many at once as there are cores.

    python examples/build_runner.py build.toml            # or: -j 4, --keep-going, and names of steps

build.toml says what there is to do:

    [compile]
    run = "cc -c main.c -o main.o"
    inputs = ["main.c"]          # with outputs: skipped when every output is newer than every input
    outputs = ["main.o"]

    [link]
    run = "cc main.o -o program"
    needs = ["compile"]

What it shows: children started with `child_process.spawn`, their output read line by line while they run, one failure (or
Ctrl-C) that stops the others and everything they have started, and a limit on how many run at once.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path

import multiloop
from multiloop import child_process


class BuildError(Exception):
    """The build file cannot be meant as written, or a step failed."""


@dataclass(frozen=True)
class Step:
    """One step of the build."""

    name: str
    run: str
    needs: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()

    def is_fresh(self, folder: Path) -> bool:
        """Whether every output is there and newer than every input."""
        try:
            oldest = min(os.stat(folder / path).st_mtime for path in self.outputs)
            return all(os.stat(folder / path).st_mtime <= oldest for path in self.inputs)
        except (OSError, ValueError):  # one is missing, or none was declared
            return False


def read_steps(text: str) -> dict[str, Step]:
    """Read a build file; refuse what is missing, unknown or goes in a circle."""
    steps: dict[str, Step] = {}
    for name, table in tomllib.loads(text).items():
        unknown = set(table) - {"run", "needs", "inputs", "outputs"}
        if unknown or "run" not in table:
            raise BuildError(f"[{name}]: {f'unknown: {min(unknown)}' if unknown else 'run is missing'}")
        lists = {key: tuple(table.get(key, ())) for key in ("needs", "inputs", "outputs")}
        steps[name] = Step(name, table["run"], **lists)
    for step in steps.values():
        for needed in step.needs:
            if needed not in steps:
                raise BuildError(f"[{step.name}] needs {needed!r}, which is not there")
    for name in steps:
        _closure(steps, name, ())
    return steps


def _closure(steps: dict[str, Step], name: str, above: tuple[str, ...]) -> set[str]:
    """Return a step and all that it needs."""
    if name in above:
        raise BuildError("goes in a circle: " + " → ".join((*above[above.index(name) :], name)))
    found = {name}
    for needed in steps[name].needs:
        found |= _closure(steps, needed, (*above, name))
    return found


class Build:
    """One run over the steps."""

    def __init__(self, steps: dict[str, Step], folder: Path, jobs: int, keep_going: bool) -> None:
        self.steps = steps
        self.folder = folder
        self.keep_going = keep_going
        self.failed: list[str] = []
        self.done: list[str] = []
        self._limit = multiloop.Limiter(jobs)
        self._running: dict[str, asyncio.Task[bool]] = {}

    async def run(self, names: list[str]) -> bool:
        """Run the named steps and what they need; whether all went well."""
        wanted: set[str] = set()
        for name in names or self.steps:
            if name not in self.steps:
                raise BuildError(f"there is no step {name!r}")
            wanted |= _closure(self.steps, name, ())
        tasks = {self._start(name) for name in wanted}
        try:
            while tasks:
                done, tasks = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                if not all(task.result() for task in done) and not self.keep_going:
                    break
        finally:
            for task in tasks:
                task.cancel()  # each kills its child
            await asyncio.gather(*tasks, return_exceptions=True)
        return not self.failed

    def _start(self, name: str) -> asyncio.Task[bool]:
        if name not in self._running:
            self._running[name] = asyncio.create_task(self._step(self.steps[name]), name=name)
        return self._running[name]

    async def _step(self, step: Step) -> bool:
        for needed in step.needs:
            if not await asyncio.shield(self._start(needed)):
                return False
        async with self._limit:
            if await multiloop.offload(step.is_fresh, self.folder):
                self._say(step, "is fresh")
                return True
            return await self._run_command(step)

    async def _run_command(self, step: Step) -> bool:
        began = time.monotonic()
        self._say(step, f"$ {step.run}")
        # Leaving the block early (a failure elsewhere, Ctrl-C) kills the child.
        async with child_process.spawn(
            step.run, shell=True, cwd=self.folder, stdio=["ignore", "pipe", "pipe"]
        ) as child:
            assert child.stdout is not None
            assert child.stderr is not None
            await asyncio.gather(self._show(step, child.stdout), self._show(step, child.stderr))
            code, signal = await child.wait()
        took = f"{time.monotonic() - began:.2f} s"
        if code == 0:
            self.done.append(step.name)
            self._say(step, f"done in {took}")
            return True
        self.failed.append(step.name)
        self._say(step, f"FAILED after {took}: " + (f"killed by {signal}" if signal else f"code {code}"))
        return False

    async def _show(self, step: Step, pipe: child_process.ReadPipe) -> None:
        async for line in pipe.lines():
            self._say(step, line)

    def _say(self, step: Step, text: str) -> None:
        print(f"{step.name:>12} | {text}", flush=True)


async def main(arguments: argparse.Namespace) -> int:
    """Read the build file and run it; returns the exit code."""
    path = Path(arguments.file)
    try:
        steps = read_steps(await multiloop.offload(path.read_text))
        build = Build(steps, path.parent, arguments.jobs, arguments.keep_going)
        went_well = await build.run(arguments.steps)
    except (BuildError, OSError, tomllib.TOMLDecodeError) as error:
        print(f"{path}: {error}", file=sys.stderr)
        return 2
    print(f"{len(build.done)} done" + (f", failed: {', '.join(build.failed)}" if build.failed else ""))
    return 0 if went_well else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Run the steps of a build file, in parallel where they allow it.")
    parser.add_argument("file", help="the build file (TOML)")
    parser.add_argument("steps", nargs="*", help="which steps, with what they need; all of them without")
    parser.add_argument("-j", "--jobs", type=int, default=os.cpu_count() or 1, help="how many at once")
    parser.add_argument("-k", "--keep-going", action="store_true", help="go on with other steps after a failure")
    sys.exit(multiloop.run(main, parser.parse_args()))
