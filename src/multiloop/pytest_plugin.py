"""A pytest plugin: a test that blocks its event loop fails. It comes with multiloop and is off until it is asked for.

What lives here: the option and its meaning for tests. What must not: anything before it is asked for; what blocks
(`health.guard_blocking_calls`).

    [tool.pytest.ini_options]
    multiloop_blocking_calls = "error"          # or "warn"; the same on the command line: --multiloop-blocking-calls=error

`error`: the call raises BlockingCallError, and a test in which somebody caught that fails all the same. `warn`: a
BlockingCallWarning for each place. Both hold for a test with its fixtures. `@pytest.mark.allow_blocking_calls` excepts a
test; `health.allow_blocking_calls()` a line.
"""

from __future__ import annotations

import warnings
from collections.abc import Generator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .health import Guard

_OPTION = "multiloop_blocking_calls"
_CHOICES = ("off", "warn", "error")
_MARK = "allow_blocking_calls"
_IGNORE = "multiloop_blocking_calls_ignore"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option, for the command line and the configuration."""
    parser.getgroup("multiloop").addoption(
        "--multiloop-blocking-calls",
        dest=_OPTION,
        choices=_CHOICES,
        default=None,
        help="what to do with calls that block an event loop: off, warn, error (the test fails)",
    )
    parser.addini(_OPTION, "off (the default), warn, or error: for calls that block an event loop", default="off")
    parser.addini(_IGNORE, "parts of paths: calls with such a file in their stack are not looked at", type="linelist")


def pytest_configure(config: pytest.Config) -> None:
    """Start the guard's part of the run, if it was asked for."""
    config.addinivalue_line("markers", f"{_MARK}: the test may block its event loop")
    chosen = config.getoption(_OPTION) or config.getini(_OPTION)
    if chosen not in _CHOICES:
        raise pytest.UsageError(f"{_OPTION} = {chosen!r}: use one of {', '.join(_CHOICES)}")
    if chosen != "off":
        config.pluginmanager.register(_Guarding(chosen == "error", config.getini(_IGNORE)), "multiloop-guarding")


class _Guarding:
    """Guards each test."""

    def __init__(self, fails: bool, ignore: list[str]) -> None:
        self._fails = fails
        self._ignore = ignore

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None, object, object]:
        return (yield from self._guarded(item))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, object, object]:
        return (yield from self._guarded(item))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, object, object]:
        return (yield from self._guarded(item))

    def _guarded(self, item: pytest.Item) -> Generator[None, object, object]:
        if item.get_closest_marker(_MARK) is not None:
            return (yield)
        from .health import guard_blocking_calls

        with guard_blocking_calls(raises=self._fails, ignore=self._ignore, logs=False) as guard:
            result = yield
        self._tell(guard)
        return result

    def _tell(self, guard: Guard) -> None:
        from .errors import BlockingCallError, BlockingCallWarning

        for call in guard.found:
            if self._fails:  # the test went on although it was raised: somebody caught it
                raise BlockingCallError(call)
            warnings.warn_explicit(BlockingCallWarning(str(call)), None, call.file, call.line)
