"""Dead processes that nobody waits for are buried, those of others are not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from multiloop.cluster._orphans import Orphans
from tests.support import wait_until


def state_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except OSError:
        return ""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc")
def test_a_stranger_is_buried_at_the_second_look_and_ours_never() -> None:
    stranger, ours = (os.posix_spawn(sys.executable, [sys.executable, "-c", ""], {}) for _ in range(2))
    wait_until(lambda: (state_of(stranger), state_of(ours)) == ("Z", "Z"))
    orphans = Orphans()
    orphans.look(1.0, {ours})
    orphans.look(1.5, {ours})  # too soon to be a look
    assert state_of(stranger) == "Z"
    orphans.look(2.0, {ours})
    assert state_of(stranger) == ""
    orphans.look(3.0, {ours})
    assert os.waitpid(ours, 0) == (ours, 0)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc")
def test_whoever_waits_for_a_child_between_two_looks_gets_its_end() -> None:
    orphans = Orphans()
    with subprocess.Popen([sys.executable, "-c", "raise SystemExit(7)"]) as child:
        wait_until(lambda: state_of(child.pid) == "Z")
        orphans.look(1.0, ())
        assert child.wait() == 7
    orphans.look(2.0, ())
