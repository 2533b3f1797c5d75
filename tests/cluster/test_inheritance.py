"""Programs that an application starts get nothing of ours: no socket, no channel, no shared memory."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from multiloop.cluster._page import Page

from .harness import serving

APP = """
import subprocess

async def app(scope, receive, send):
    if scope["type"] != "http":
        raise RuntimeError("no lifespan")
    found = subprocess.run(["ls", "-l", "/proc/self/fd"], close_fds=False, capture_output=True, text=True).stdout
    names = [line.split()[-3:] for line in found.splitlines() if "->" in line]
    body = "\\n".join(" ".join(words) for words in names).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})
"""


def test_the_page_that_is_shared_with_a_worker_is_its_owners_alone() -> None:
    before = os.umask(0)
    try:
        page = Page.create()
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.fstat(page.descriptor).st_mode) == 0o600
    page.close()


@pytest.mark.parametrize("policy", ["round_robin", pytest.param("reuse_port", marks=pytest.mark.slow)])
def test_a_program_that_an_application_starts_inherits_no_descriptor_of_ours(tmp_path: Path, policy: str) -> None:
    with serving(tmp_path, app=APP, policy=policy) as server:
        server.wait_ready(2)
        for _ in range(2):
            found = server.get("/").splitlines()
            numbers = {int(line.split(" -> ")[0]) for line in found}
            assert numbers <= {0, 1, 2, 3}, found  # 3 is the folder that ls reads
            assert not [line for line in found if "socket:" in line or "memfd" in line], found
