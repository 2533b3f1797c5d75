"""Logging: what a line looks like, who may configure what, and that a destination that takes nothing changes nothing."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from multiloop import _log_sink, logs
from multiloop._limits import MAX_LOG_DETAIL_CHARS, MAX_LOG_MESSAGE_CHARS, MAX_LOG_QUEUE_RECORDS
from multiloop._log_sink import Sink
from tests.support import environment

START = "import logging, sys, time\nfrom multiloop import logs\nfrom multiloop.logs import LogSettings\n"
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


def run(code: str, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program that sets up logging (it is process-wide, so each test has a process of its own)."""
    program = [sys.executable, "-c", START + textwrap.dedent(code), *arguments]
    return subprocess.run(program, capture_output=True, text=True, cwd=cwd, env=environment(), timeout=60)


def record(message: str, *args: object, name: str = "multiloop.test", **extra: object) -> logging.LogRecord:
    made = logging.LogRecord(name, logging.INFO, "file.py", 1, message, args, None)
    made.__dict__.update(extra)
    return made


# --- what a line looks like ---------------------------------------------------------------------------------------
def test_a_line_has_time_level_process_and_message() -> None:
    line = logs.TextFormatter().format(record("ready in %.1f s", 0.25))
    assert re.fullmatch(rf"{TIME} INFO     \({os.getpid()}\): ready in 0\.2 s", line)


def test_an_application_s_record_names_its_logger() -> None:
    assert ": shop.cart: paid" in logs.TextFormatter().format(record("paid", name="shop.cart"))


@pytest.mark.parametrize("code", [0, 7, 8, 10, 13, 27, 127, 0x85, 0x9B, 0x2028])
def test_no_message_can_forge_a_line_or_command_a_terminal(code: int) -> None:
    line = logs.TextFormatter().format(record(f"GET /{chr(code)}[31m fake"))
    assert chr(code) not in line
    assert (f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}") in line


def test_what_follows_a_line_is_indented_and_escaped() -> None:
    formatter = logs.TextFormatter()
    try:
        raise ValueError("oops\n2026-01-01T00:00:00.000Z INFO     (1): forged\x1b[2J")
    except ValueError:
        text = formatter.format(
            logging.LogRecord("multiloop", logging.ERROR, "file.py", 1, "failed", (), sys.exc_info())
        )
    first, *rest = text.split("\n")
    assert first.endswith(": failed")
    assert all(line.startswith("    ") for line in rest)
    assert "\x1b" not in text
    assert formatter.format(record("blocked", detail="a\nb")).split("\n")[1:] == ["    a", "    b"]


def test_messages_and_details_are_capped() -> None:
    formatter = logs.TextFormatter()
    assert len(formatter.format(record("x" * 1_000_000))) < MAX_LOG_MESSAGE_CHARS + 200
    long = formatter.format(record("x", detail="y" * 1_000_000))
    assert len(long) < MAX_LOG_DETAIL_CHARS + 300
    assert "more characters" in long


def test_json_is_one_object_on_one_line_with_what_extra_gave() -> None:
    text = logs.JsonFormatter().format(record("a\nb\x1b", user=7, odd={1, 2}))
    assert "\n" not in text
    assert "\x1b" not in text
    found = json.loads(text)
    assert found["message"] == "a\nb\x1b"
    assert (found["level"], found["pid"], found["user"]) == ("info", os.getpid(), 7)
    assert len(json.loads(logs.JsonFormatter().format(record("x" * 100_000)))["message"]) == MAX_LOG_MESSAGE_CHARS


# --- the process's set-up -----------------------------------------------------------------------------------------
def test_ours_and_what_an_application_leaves_alone_go_to_standard_error() -> None:
    done = run(
        """
        import warnings
        logs.configure(LogSettings(), worker=3)
        logging.getLogger("multiloop.http").info("ours")
        logging.getLogger("shop").info("theirs")
        logging.getLogger("shop").debug("too much")
        warnings.warn("careful")
        """
    )
    assert done.returncode == 0
    lines = done.stderr.splitlines()
    assert re.fullmatch(rf"{TIME} INFO     worker 3 \(\d+\): ours", lines[0])
    assert lines[1].endswith("shop: theirs")
    assert lines[2].endswith(": UserWarning: careful")
    assert not [line for line in lines[3:] if not line.startswith("    ")]


def test_an_application_s_own_set_up_is_kept_and_ours_goes_on() -> None:
    done = run(
        """
        import logging.config
        logs.configure(LogSettings())
        log = logging.getLogger("multiloop.http")
        logging.config.dictConfig({"version": 1, "handlers": {"out": {"class": "logging.StreamHandler",
            "stream": "ext://sys.stdout"}}, "root": {"handlers": ["out"], "level": "INFO"}})
        assert log.disabled
        logs.reassert()
        log.info("ours")
        logging.getLogger("shop").info("theirs")
        """
    )
    assert done.stdout == "theirs\n"
    assert done.stderr.endswith("ours\n")
    assert len(done.stderr.splitlines()) == 1


def test_a_wrong_log_call_is_a_line_and_no_exception() -> None:
    done = run("logs.configure(LogSettings())\nlogging.getLogger('x').error('%d', 'one')\nprint('goes on')")
    assert done.stdout == "goes on\n"
    assert "a log call at" in done.stderr
    assert "Traceback" not in done.stderr


def test_access_lines_have_every_field_and_escape_the_target() -> None:
    done = run(
        """
        logs.configure(LogSettings(level="error"), worker=1)
        access = logs.access_logger()
        access(logs.Access("10.0.0.1:5", "GET", '/a"\\x1b\\n\\\\' + "y" * 9000, "1.1", 200, 13, 0.0123, "a-1"))
        logs.configure(LogSettings(format="json"), worker=1)
        logs.access_logger()(logs.Access("10.0.0.1:5", "GET", "/a\\n", "1.1", 404, 13, 0.0123, "a-2"))
        """
    )
    text, as_json = done.stderr.splitlines()
    assert r'10.0.0.1:5 "GET /a\x22\x1b\x0a\x5cyyy' in text
    assert text.endswith('... HTTP/1.1" 200 13 12.3ms a-1')
    assert len(text) < MAX_LOG_MESSAGE_CHARS + 200
    found = json.loads(as_json)
    assert found.pop("time")
    assert found.pop("pid")
    assert found == {
        "level": "info",
        "logger": "multiloop.access",
        "worker": 1,
        "client": "10.0.0.1:5",
        "method": "GET",
        "target": "/a\n",
        "version": "1.1",
        "status": 404,
        "bytes": 13,
        "duration": 0.0123,
        "request_id": "a-2",
    }


def test_a_file_is_appended_to_and_reopened_after_rotation(tmp_path: Path) -> None:
    done = run(
        """
        import os
        logs.configure(LogSettings(file="a.log"))
        log = logging.getLogger("multiloop")
        log.info("first")
        logs.flush()
        os.rename("a.log", "a.log.1")
        log.info("second")
        logs.reopen()
        log.info("third")
        """,
        cwd=tmp_path,
    )
    assert done.stderr == ""
    assert [line.rsplit(" ", 1)[1] for line in (tmp_path / "a.log.1").read_text().splitlines()] == ["first", "second"]
    assert (tmp_path / "a.log").read_text().endswith("third\n")


CONFIG = {
    "version": 1,
    "formatters": {"f": {"format": "%(worker)s %(name)s %(message)s"}},
    "handlers": {"out": {"class": "logging.StreamHandler", "stream": "ext://sys.stdout", "formatter": "f"}},
    "root": {"handlers": ["out"], "level": "INFO"},
}
INI = """\
[loggers]
keys=root
[handlers]
keys=out
[formatters]
keys=f
[logger_root]
level=INFO
handlers=out
[handler_out]
class=StreamHandler
args=(sys.stdout,)
formatter=f
[formatter_f]
format=%(worker)s %(name)s %(message)s
"""
TOML = """\
[formatters.f]
format = "%(worker)s %(name)s %(message)s"
[handlers.out]
class = "logging.StreamHandler"
stream = "ext://sys.stdout"
formatter = "f"
[root]
handlers = ["out"]
level = "INFO"
"""


@pytest.mark.parametrize(("name", "text"), [("c.json", json.dumps(CONFIG)), ("c.toml", TOML), ("c.ini", INI)])
def test_a_configuration_of_the_user_s_is_used(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    done = run(
        """
        logs.configure(LogSettings(config=sys.argv[1]), worker=2)
        logging.getLogger("multiloop").info("hello %s", "you")
        logs.access_logger()(logs.Access("c", "GET", "/\\n", "1.1", 200, 5, 0.001, "a-3"))
        """,
        str(tmp_path / name),
    )
    assert done.stdout.splitlines() == [
        "2 multiloop hello you",
        r'2 multiloop.access c "GET /\x0a HTTP/1.1" 200 5 1.0ms',
    ]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("LogSettings(level='loud')", "--log-level 'loud'"),
        ("LogSettings(format='xml')", "--log-format 'xml'"),
        ("LogSettings(file='/none/a.log')", "--log-file '/none/a.log' cannot be opened: No such file"),
        ("LogSettings(config='/none/a.json')", "--log-config '/none/a.json' cannot be read"),
        ("LogSettings(config='bad.json')", "--log-config 'bad.json' is no logging configuration"),
        ("LogSettings(config='bad.toml')", "--log-config 'bad.toml' is no logging configuration"),
        ("LogSettings(config='bad.ini')", "--log-config 'bad.ini' is no logging configuration"),
    ],
)
def test_what_cannot_be_used_is_one_line(tmp_path: Path, settings: str, said: str) -> None:
    (tmp_path / "bad.json").write_text('{"handlers": {"x": {"class": "no.such.Handler"}}}')
    (tmp_path / "bad.toml").write_text("= 1")
    (tmp_path / "bad.ini").write_text("nothing")
    done = run(
        f"""
        from multiloop.errors import ConfigError
        try:
            logs.configure({settings})
        except ConfigError as error:
            print(error)
        """,
        cwd=tmp_path,
    )
    assert done.stdout.startswith(said), done
    assert len(done.stdout.splitlines()) == 1


# --- destinations that take nothing -------------------------------------------------------------------------------
FLOOD = """
import os
logs.configure(LogSettings(config=sys.argv[1] if len(sys.argv) > 1 else None))
log, slowest = logging.getLogger("multiloop"), 0.0
for number in range(20_000):
    began = time.perf_counter()
    log.info("x" * 1000)
    slowest = max(slowest, time.perf_counter() - began)
print(slowest, logs.statistics().dropped, time.perf_counter(), flush=True)
"""


def test_a_stalled_standard_error_stops_nothing() -> None:
    reader, writer = os.pipe()  # nobody ever reads
    try:
        child = subprocess.run(
            [sys.executable, "-c", START + FLOOD],
            stdout=subprocess.PIPE,
            stderr=writer,
            text=True,
            env=environment(),
            timeout=60,
        )
    finally:
        os.close(reader)
        os.close(writer)
    slowest, dropped, _ = child.stdout.split()
    assert child.returncode == 0
    assert float(slowest) < 10  # a machine under load may pause a thread; a blocked write would take for ever
    assert int(dropped) > 1000


def test_a_stalled_handler_of_the_user_s_stops_nothing(tmp_path: Path) -> None:
    config = {**CONFIG, "handlers": {"out": {"class": "logging.StreamHandler"}}}
    (tmp_path / "c.json").write_text(json.dumps(config))
    reader, writer = os.pipe()
    # The user's handler is left stuck in its write; os._exit is how a process with a stuck thread of the user's ends.
    code = START + FLOOD + "os._exit(0)"
    try:
        child = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "c.json")],
            stdout=subprocess.PIPE,
            stderr=writer,
            text=True,
            env=environment(),
            timeout=60,
        )
    finally:
        os.close(reader)
        os.close(writer)
    slowest, dropped, _ = child.stdout.split()
    assert float(slowest) < 10
    assert int(dropped) > 1000


@pytest.mark.parametrize("close", ["reader", "descriptor"])
def test_a_closed_standard_error_stops_nothing(close: str) -> None:
    done = run(
        f"""
        import os
        if {close!r} == "descriptor":
            os.close(2)
        else:
            reader, writer = os.pipe()
            os.dup2(writer, 2)
            os.close(reader)
            os.close(writer)
        logs.configure(LogSettings())
        for number in range(100):
            logging.getLogger("multiloop").warning("lost")
        logs.flush()
        print(logs.statistics().written, logs.statistics().dropped)
        """
    )
    assert done.returncode == 0
    assert done.stdout == "0 100\n"


@pytest.fixture
def full_disk() -> Iterator[Sink]:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    sink = Sink("/dev/full", lambda count: f"{count} lost")
    yield sink
    sink.close(1.0)


def test_a_full_disk_loses_lines_and_counts_them(full_disk: Sink) -> None:
    full_disk.put("one")
    full_disk.put("two")
    assert full_disk.flush(5.0)
    assert (full_disk.written, full_disk.dropped >= 2) == (0, True)


def test_a_destination_that_takes_again_is_told_what_was_lost(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    sink = Sink(str(fifo), lambda count: f"{count} lost")
    for number in range(MAX_LOG_QUEUE_RECORDS + 2000):
        sink.put(f"line {number} " + "x" * 100)
    assert sink.dropped > 0
    os.set_blocking(reader, True)
    received = bytearray()
    done = threading.Thread(target=lambda: received.extend(b"".join(iter(lambda: os.read(reader, 65536), b""))))
    done.start()
    assert sink.close(10.0)
    done.join(10.0)
    os.close(reader)
    lines = received.decode().splitlines()
    assert re.fullmatch(r"\d+ lost", next(line for line in lines if "lost" in line))
    assert lines[0].startswith("line 0 ")


def test_a_non_blocking_pipe_gets_every_line_whole() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    code = """
        logs.configure(LogSettings())
        for n in range(3000):
            logging.getLogger('multiloop').info('line %d %s', n, 'x' * 200)
        logs.flush(20)
    """
    child = subprocess.Popen([sys.executable, "-c", START + textwrap.dedent(code)], stderr=writer, env=environment())
    os.close(writer)
    with os.fdopen(reader) as lines:
        found = [int(line.split(": line ")[1].split()[0]) for line in lines]
    assert child.wait(10) == 0
    assert found == list(range(3000))


def test_the_end_of_a_process_waits_for_its_last_lines_only_so_long() -> None:
    done = run("logs.configure(LogSettings())\nfor n in range(5000): logging.getLogger('multiloop').info('n %d', n)")
    assert done.stderr.splitlines()[-1].endswith("n 4999")


def test_a_forked_child_logs_with_a_thread_of_its_own() -> None:
    done = run(
        """
        import os, warnings
        warnings.simplefilter("ignore")
        logs.configure(LogSettings())
        log = logging.getLogger("multiloop")
        log.info("parent")
        logs.flush()
        if not os.fork():
            log.info("child")
            logs.flush()
            os._exit(0)
        os.wait()
        """
    )
    assert sorted(line.rsplit(": ", 1)[1] for line in done.stderr.splitlines()) == ["child", "parent"]


def test_a_log_call_inside_a_destructor_that_interrupts_another_does_not_hang() -> None:
    done = run(
        """
        import gc
        logs.configure(LogSettings())
        log = logging.getLogger("multiloop")
        class Loud:
            def __del__(self): log.info("gone")
        gc.set_threshold(100)
        for n in range(2000):
            loud = Loud()
            loud.itself = loud
            log.info("line %d", n)
        """
    )
    assert done.returncode == 0
    assert "gone" in done.stderr


def test_no_thread_runs_before_the_first_line(tmp_path: Path) -> None:
    sink = Sink(str(tmp_path / "a.log"), str)
    assert not [thread for thread in threading.enumerate() if thread.name == "multiloop-logs"]
    sink.put("line")
    assert sink.close(5.0)
    assert (tmp_path / "a.log").read_text() == "line\n"
    assert not [thread for thread in threading.enumerate() if thread.name == "multiloop-logs"]
    assert _log_sink._takes(0, 0.0) in (True, False)


# --- standard output and error of a worker ------------------------------------------------------------------------
def test_print_never_waits_for_a_reader_that_does_not_read() -> None:
    reader, writer = os.pipe()  # nobody ever reads
    code = """
        logs.configure(LogSettings(file=os.devnull))
        logs.queue_streams()
        slowest = 0.0
        for number in range(10_000):
            began = time.perf_counter()
            print("x" * 1000)
            slowest = max(slowest, time.perf_counter() - began)
        print(slowest, file=sys.stderr)
        """
    try:
        child = subprocess.run(
            [sys.executable, "-c", START + "import os\n" + textwrap.dedent(code)],
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
            timeout=60,
        )
    finally:
        os.close(reader)
        os.close(writer)
    assert child.returncode == 0
    assert float(child.stderr) < 10  # a machine under load may pause a thread; a blocked write would take for ever


def test_what_is_printed_comes_out_whole_and_in_order() -> None:
    done = run(
        """
        import os
        logs.configure(LogSettings())
        logs.queue_streams()
        logs.queue_streams()
        for number in range(500):
            print("line", number)
        sys.stdout.buffer.write(b"bytes\\n")
        sys.stdout.write("no end")
        print("problem", file=sys.stderr)
        assert sys.stdout.fileno() == 1
        assert not sys.stdout.isatty()
        """
    )
    assert done.returncode == 0
    assert done.stdout == "".join(f"line {number}\n" for number in range(500)) + "bytes\nno end"
    assert done.stderr == "problem\n"


def test_a_closed_standard_output_and_a_stream_of_the_program_s_own_are_no_trouble() -> None:
    done = run(
        """
        import io, os
        logs.configure(LogSettings())
        sys.stdout = mine = io.StringIO()
        logs.queue_streams()
        assert sys.stdout is mine
        os.close(2)
        for _ in range(100):
            print("lost", file=sys.stderr)
        """
    )
    assert done.returncode == 0
    done = run(
        """
        import os
        reader, writer = os.pipe()
        os.dup2(writer, 1)
        os.close(reader)
        os.close(writer)
        logs.configure(LogSettings())
        logs.queue_streams()
        for _ in range(100):
            print("lost")
        """
    )
    assert (done.returncode, done.stderr) == (0, "")
