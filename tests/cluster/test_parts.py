"""Small parts: the shared page, the story of a failure, exit codes."""

from __future__ import annotations

import faulthandler
import os
from typing import NoReturn

import pytest

from multiloop.cluster._exit_codes import ExitCode
from multiloop.cluster._failure import describe
from multiloop.cluster._page import Page
from multiloop.errors import ConfigError, PeerError


def test_a_beat_is_seen_through_another_map_of_the_page() -> None:
    page = Page.create()
    other = Page(os.dup(page.descriptor))
    assert other.last_beat() == 0.0
    page.beat(12345.678)
    assert other.last_beat() == 12345.678
    page.close()
    page.close()
    other.close()


def test_the_stack_is_taken_whole_and_makes_room_for_the_next() -> None:
    page = Page.create()
    page.beat(1.5)
    for _ in range(3):
        faulthandler.dump_traceback(file=page.descriptor)
        assert "test_the_stack_is_taken_whole" in page.take_stack()
        assert page.take_stack() == ""
    assert page.last_beat() == 1.5
    page.close()


def fail(error: BaseException) -> NoReturn:
    raise error


@pytest.mark.parametrize(
    ("error", "reason", "code"),
    [
        (RuntimeError("no luck today\nand more"), "RuntimeError: no luck today", None),
        (KeyError(), "KeyError", None),
        (SystemExit(7), "it called sys.exit(7)", None),
        (ConfigError("--x: wrong", exit_code=4), "--x: wrong", 4),
        (PeerError("no database\nat all"), "no database", None),
    ],
)
def test_a_failure_is_told_in_one_line(error: BaseException, reason: str, code: int | None) -> None:
    try:
        fail(error)
    except BaseException as raised:
        told = describe(raised)
    assert told.reason == reason
    assert told.exit_code == code


def test_the_traceback_says_the_message_once_and_leaves_our_frames_out() -> None:
    try:
        raise RuntimeError("no luck today")
    except RuntimeError as error:
        told = describe(error)
    assert told.details.count("no luck today") == 1
    assert told.details.endswith("RuntimeError: no luck today")
    assert "test_parts.py" in told.details


def test_a_syntax_error_names_its_place() -> None:
    try:
        compile("a b", "app.py", "exec")
    except SyntaxError as error:
        told = describe(error)
    assert told.reason == "SyntaxError: invalid syntax (app.py, line 1)"


def test_every_exit_code_is_there_once() -> None:
    assert [code.value for code in ExitCode] == list(range(9))
