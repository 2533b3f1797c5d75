"""The examples of worker threads: a picture in shared memory, a worker with an HTTP server of its own."""

from __future__ import annotations

import json
import re
import signal
import struct
import subprocess
import sys
import urllib.request
import zlib
from pathlib import Path
from typing import Any

import pytest
from tests.support import environment, wait_until

EXAMPLES = Path(__file__).parents[2] / "examples"
KINDS = ["process", pytest.param("interpreter", marks=pytest.mark.skipif(sys.version_info < (3, 14), reason="3.14"))]


def run(script: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", str(EXAMPLES / script), *options]
    return subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=60)


def pixels_of(file: Path) -> tuple[int, int, list[bytes]]:
    """Width, height and rows of a PNG file as the example writes it."""
    data = file.read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    chunks = {}
    at = 8
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        name, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        assert struct.unpack_from(">I", data, at + 8 + length)[0] == zlib.crc32(name + body)
        chunks[name] = body
        at += 12 + length
    width, height, *kind = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    assert kind == [8, 6, 0, 0, 0]
    raw = zlib.decompress(chunks[b"IDAT"])
    return width, height, [raw[row * (1 + 4 * width) + 1 : (row + 1) * (1 + 4 * width)] for row in range(height)]


@pytest.mark.parametrize("kind", KINDS)
def test_workers_share_the_rows_of_one_picture(tmp_path: Path, kind: str, monkeypatch: Any) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import mandelbrot

    file = tmp_path / "picture.png"
    done = run("mandelbrot.py", str(file), "--size", "48x31", "--workers", "2", "--kind", kind)
    assert done.stderr == ""
    assert sum(map(int, re.findall(rf"\({kind}\): (\d+) rows", done.stdout))) == 31
    view = mandelbrot.View(48, 31)
    width, height, rows = pixels_of(file)
    assert (width, height) == (48, 31)
    scale = view.span / view.width
    corner = view.middle - complex(view.width, -view.height) * scale / 2
    for row, column in ((0, 0), (7, 40), (15, 24), (30, 47)):
        count = mandelbrot.steps(corner - row * scale * 1j + column * scale, view.most_steps)
        expected = mandelbrot.colour(count, view.most_steps).to_bytes(4, sys.byteorder)
        assert rows[row][4 * column : 4 * column + 4] == expected
    assert len({row[at : at + 4] for row in rows for at in range(0, len(row), 4)}) > 20  # colours


def test_the_picture_refuses_nonsense() -> None:
    assert "write it as 640x480" in run("mandelbrot.py", "--size", "wide").stderr


def test_a_worker_answers_while_the_program_blocks_its_loop() -> None:
    command = [sys.executable, "-W", "error", str(EXAMPLES / "status_server.py"), "--numbers", "1000000000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment()) as program:
        try:
            assert program.stdout is not None
            url = program.stdout.readline().split()[0]

            def status() -> Any:
                with urllib.request.urlopen(url, timeout=10) as reply:
                    return json.load(reply)

            wait_until(lambda: status().get("steps", 0) > 100)
            first = status()["progress"]
            wait_until(lambda: status()["progress"] > first)
        finally:
            program.send_signal(signal.SIGKILL)
    wait_until(lambda: is_closed(url))  # the worker went with the program


def is_closed(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=10):
            return False
    except OSError:
        return True


def test_the_program_that_is_done_ends_its_worker() -> None:
    done = run("status_server.py", "--numbers", "2000")
    assert done.stderr == ""
    assert done.stdout.splitlines()[1] == "below 2,000, 1,161 takes longest: 181 steps"
