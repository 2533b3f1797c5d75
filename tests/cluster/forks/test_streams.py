"""The streams of workers that were started with pipes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.forks.program import run


@pytest.mark.slow
def test_silent_workers_have_streams_at_once(tmp_path: Path) -> None:
    ended = run(
        tmp_path,
        """
        if cluster.is_primary:
            cluster.setup_primary(silent=True)
            before_the_loop = cluster.fork()
            before_the_loop.process.stdout.on("data", lambda data: say(data.decode().strip(), "of the first"))
            before_the_loop.process.stdin.end("x" * 300_000)  # more than the pipe takes

            async def program():
                on_the_loop = cluster.fork()
                on_the_loop.process.stdout.on("data", lambda data: say(data.decode().strip(), "of the second"))
                on_the_loop.process.stdin.end()
                read_at_once = cluster.fork()
                read_at_once.process.stdin.end("yz")
                say((await read_at_once.process.stdout.read()).decode().strip(), "of the third")
                await cluster.wait()

            multiloop.run(program)
        else:
            print(len(sys.stdin.read()))
        """,
    )
    assert ended.code == 0, ended.err
    assert sorted(ended.lines) == ["0 of the second", "2 of the third", "300000 of the first"]
