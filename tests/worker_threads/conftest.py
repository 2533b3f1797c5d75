"""What all tests of worker threads get: the kinds there are here, and a look at what a test left open."""

import faulthandler
import gc
import sys
import time

import pytest
from tests.support import open_descriptors

KINDS = ["process", "thread"]
if sys.version_info >= (3, 14):
    KINDS.insert(1, "interpreter")
ISOLATED = [kind for kind in KINDS if kind != "thread"]


def pytest_generate_tests(metafunc):
    if "kind" in metafunc.fixturenames:
        metafunc.parametrize("kind", KINDS)
    if "isolated" in metafunc.fixturenames:
        metafunc.parametrize("isolated", ISOLATED)


@pytest.fixture(autouse=True)
def no_test_hangs():
    """A test that waits in vain ends the run after four minutes (pytest's own limit is two), with all stacks."""
    faulthandler.dump_traceback_later(240, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture(autouse=True)
def nothing_left_open():
    """Every descriptor that a test opened is closed when it ends."""
    gc.collect()
    before = open_descriptors()
    yield
    deadline = time.monotonic() + 3
    while True:
        gc.collect()
        left = open_descriptors() - before
        if not left or time.monotonic() > deadline:
            break
        time.sleep(0.01)  # threads of workers that were told to stop close theirs
    assert not left, f"left open: {left}"
