"""Choosing a kind, workers that do not stop, the start of a worker, and functions of the main script."""

import logging
import os
import subprocess
import sys
import time

import pytest
from tests.support import SOURCE, environment, until
from tests.worker_threads import targets
from tests.worker_threads.conftest import ISOLATED

import multiloop
from multiloop.errors import UsageError, WorkerStuck
from multiloop.worker_threads import Worker, _choose, zombies

HAS_INTERPRETERS = "interpreter" in ISOLATED
needs_interpreters = pytest.mark.skipif(not HAS_INTERPRETERS, reason="needs Python 3.14")


def script(tmp_path, text, name="script.py"):
    path = tmp_path / name
    path.write_text(text)
    return path


def run_script(path, *args):
    return subprocess.run(
        [sys.executable, str(path), *args], env=environment(), capture_output=True, text=True, timeout=60, check=False
    )


async def choice(target, **options):
    """What auto chooses, and why."""
    worker = Worker(target, **options)
    worker.on("error", lambda error: None)
    await worker.wait()
    return worker.kind, worker.kind_reason


# --- auto -------------------------------------------------------------------------------------------------------------
@pytest.mark.skipif(HAS_INTERPRETERS, reason="there are interpreters")
def test_auto_is_a_process_before_314_and_says_why(tmp_path):
    async def main():
        assert await choice(script(tmp_path, "")) == ("process", "needs Python 3.14")

    multiloop.run(main)


@needs_interpreters
@pytest.mark.parametrize(
    ("text", "wanted", "reason"),
    [
        ("import json, asyncio\n", "interpreter", "standard library"),
        ("import neighbour\n", "interpreter", "standard library"),
        ("from multiloop import timers, net\n", "interpreter", "standard library"),
        ("def later():\n    import numpy\n", "process", "numpy does not load"),
        ("import uses_numpy\n", "process", "numpy does not load"),
        ("import numpy.linalg as la\n", "process", "numpy does not load"),
        ("from multiloop import http\n", "process", "multiloop.http does not load"),
        ("import no_such_package_at_all\n", "process", "'no_such_package_at_all' is not found"),
        ("import click\n", "interpreter", "these load in an interpreter: click"),
        ("this is no Python\n", "process", "cannot be read"),
    ],
)
def test_auto_looks_at_what_the_sources_import(tmp_path, text, wanted, reason):
    script(tmp_path, "value = 1\n", "neighbour.py")
    script(tmp_path, "import neighbour\nimport numpy\n", "uses_numpy.py")

    async def main():
        found, why = await choice(script(tmp_path, text))
        assert found == wanted
        assert reason in why

    multiloop.run(main)


@needs_interpreters
def test_auto_chooses_a_process_for_what_an_interpreter_cannot_keep(tmp_path):
    async def main():
        kind, reason = await choice(script(tmp_path, ""), resource_limits={"memory": 1 << 32})
        assert kind == "process"
        assert "resource_limits" in reason

    multiloop.run(main)


@needs_interpreters
def test_packages_are_tried_once(monkeypatch, tmp_path):
    tried = []
    monkeypatch.setattr(_choose, "_known", {})
    monkeypatch.setattr(_choose, "_try_out", lambda package: tried.append(package) or "")

    async def main():
        for _ in range(2):
            await choice(script(tmp_path, "import click\n"))

    multiloop.run(main)
    assert tried == ["click"]


@needs_interpreters
def test_terminate_while_the_kind_is_being_chosen(monkeypatch, tmp_path):
    monkeypatch.setattr(_choose, "_known", {})

    async def main():
        worker = Worker(script(tmp_path, "import click\n"))
        assert worker.kind == "auto"
        assert await worker.terminate() == 1

    multiloop.run(main)


@needs_interpreters
def test_a_package_that_does_not_load_there_is_named_with_what_to_do(tmp_path):
    pytest.importorskip("numpy")

    async def main():
        worker = Worker(script(tmp_path, "import numpy\n"), kind="interpreter")
        errors = []
        worker.on("error", errors.append)
        assert await worker.wait() == 1
        assert isinstance(errors[0], ImportError)
        assert "numpy does not load in an interpreter of its own" in str(errors[0])
        assert "kind='process'" in str(errors[0])

    multiloop.run(main)


@needs_interpreters
@pytest.mark.parametrize("call", ["os.chdir('/')", "os.umask(0)", "os.setuid(0)", "os.abort()"])
def test_an_interpreter_cannot_change_what_concerns_the_whole_program(tmp_path, call):
    before = os.getcwd()

    async def main():
        worker = Worker(script(tmp_path, f"import os\n{call}\n"), kind="interpreter")
        errors = []
        worker.on("error", errors.append)
        assert await worker.wait() == 1
        assert isinstance(errors[0], UsageError)
        assert "whole program" in str(errors[0])

    multiloop.run(main)
    assert os.getcwd() == before


@needs_interpreters
def test_everything_of_ours_that_a_worker_may_need_imports_in_an_interpreter(tmp_path):
    names = ["timers", "events", "fs", "net", "dns", "stream", "child_process", "worker_threads", "health"]
    text = "".join(f"import multiloop.{name}\n" for name in names)
    text += (
        "import asyncio, multiloop\n"
        "async def main():\n"
        "    await multiloop.timers.sleep(0.001)\n"
        "    assert await multiloop.offload(len, 'abc') == 3\n"
        "    return type(asyncio.get_running_loop()).__module__\n"
        "multiloop.worker_threads.parent_port.post_message(multiloop.run(main))\n"
    )

    async def main():
        worker = Worker(script(tmp_path, text), kind="interpreter")
        assert [message async for message in worker] == ["asyncio.unix_events"]

    multiloop.run(main)


@needs_interpreters
def test_an_interpreter_starts_processes_but_no_interpreters():
    async def main():
        worker = Worker(targets.nest_kind, worker_data="interpreter", kind="interpreter")
        with pytest.raises(UsageError, match="use 'process'"):
            async for _ in worker:
                pass
        worker = Worker(targets.nest_kind, worker_data="auto", kind="interpreter")
        assert [message async for message in worker] == ["process"]

    multiloop.run(main)


# --- what does not stop -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "stuck", [kind for kind in ("interpreter", "thread") if kind != "interpreter" or HAS_INTERPRETERS]
)
def test_what_is_inside_c_code_is_reported_with_its_stack_counted_and_told_when_it_ends(stuck, caplog):
    reading, writing = os.pipe()

    async def main():
        worker = Worker(targets.read_in_c, worker_data=reading, kind=stuck, name="reader")
        codes, errors = [], []
        worker.on("exit", codes.append)
        worker.on("error", errors.append)
        async for message in worker:
            assert message == "reading"
            break
        with pytest.raises(WorkerStuck, match="kind='process'") as caught:
            await worker.terminate()
        assert "os.read(fd, 1)" in caught.value.stack
        assert errors == [caught.value]
        assert not worker.has_ref
        (found,) = zombies()
        assert found[:3] == (worker.thread_id, "reader", stuck)
        assert "read_in_c" in found.stack
        with pytest.raises(WorkerStuck):
            await worker.terminate()
        assert codes == []
        os.write(writing, b"x")
        await until(lambda: codes == [1], 10)
        assert zombies() == []

    with caplog.at_level(logging.ERROR):
        multiloop.run(main)
    assert "does not stop" in caplog.text
    os.close(reading)
    os.close(writing)


@pytest.mark.parametrize(
    "stuck", [kind for kind in ("interpreter", "thread") if kind != "interpreter" or HAS_INTERPRETERS]
)
def test_what_does_not_stop_never_holds_up_the_end_of_the_program(tmp_path, stuck):
    path = script(
        tmp_path,
        "import sys, time, multiloop\n"
        "from multiloop import events\n"
        "from multiloop.errors import WorkerStuck\n"
        "from multiloop.worker_threads import Worker, parent_port\n"
        "def sleep():\n"
        "    from multiloop.worker_threads import parent_port\n"
        "    parent_port.post_message('sleeping')\n"
        "    time.sleep(60)\n"
        "async def main():\n"
        f"    worker = Worker(sleep, kind={stuck!r})\n"
        "    await events.once(worker, 'message')\n"
        "    if sys.argv[1] == 'terminate':\n"
        "        try:\n"
        "            await worker.terminate()\n"
        "        except WorkerStuck:\n"
        "            print('stuck')\n"
        "    else:\n"
        "        worker.unref()\n"
        "if __name__ == '__main__':\n"
        "    multiloop.run(main)\n"
        "    print('done', flush=True)\n",
    )
    for word, said in (("terminate", "stuck\ndone\n"), ("leave", "done\n")):
        began = time.monotonic()
        done = run_script(path, word)
        assert done.stdout == said
        assert done.returncode == 0
        assert time.monotonic() - began < 50


# --- the start --------------------------------------------------------------------------------------------------------
def test_the_start_of_a_worker_imports_nothing_but_the_standard_library_and_no_loop():
    code = (
        "import sys\n"
        "before = set(sys.modules)\n"
        "import multiloop.worker_threads._child, multiloop.worker_threads\n"
        "from multiloop.worker_threads import SharedBuffer, worker_data, is_main_thread, get_environment_data\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(sorted(new - sys.stdlib_module_names - {'multiloop'}), 'asyncio' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(SOURCE)!r})\n{code}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[] False\n"


# --- functions of the main script -------------------------------------------------------------------------------------
MAIN_SCRIPT = """
import multiloop
from multiloop.worker_threads import Worker
import multiloop.worker_threads as wt

class Point:
    def __init__(self, x): self.x = x

def work(data):
    wt.parent_port.post_message([Point(data.x + 1), __name__])

async def main(kind):
    async for point, name in Worker(work, worker_data=Point(1), kind=kind):
        print(kind, type(point) is Point, point.x, name)

{start}
"""
START = "for kind in {kinds!r}:\n    multiloop.run(main, kind)\n"


def test_functions_and_classes_of_the_main_script_work_as_in_multiprocessing(tmp_path):
    guarded = "if __name__ == '__main__':\n    " + START.format(kinds=ISOLATED).replace("\n", "\n    ")
    done = run_script(script(tmp_path, MAIN_SCRIPT.format(start=guarded)))
    assert done.stderr == ""
    assert done.stdout.splitlines() == [f"{kind} True 2 __mp_main__" for kind in ISOLATED]


@pytest.mark.parametrize("isolated_kind", ISOLATED)
def test_a_missing_guard_is_one_clear_line(tmp_path, isolated_kind):
    done = run_script(script(tmp_path, MAIN_SCRIPT.format(start=START.format(kinds=[isolated_kind]))))
    assert done.returncode == 1
    assert 'if __name__ == "__main__":' in done.stderr
    assert "UsageError" in done.stderr


def test_functions_of_a_script_without_a_file_are_refused(monkeypatch):
    code = (
        "import sys; sys.modules['cloudpickle'] = None\n"
        "import multiloop\n"
        "from multiloop.worker_threads import Worker\n"
        "def work(): pass\n"
        "multiloop.run(lambda: Worker(work) and None)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 1
    assert "has no main file" in done.stderr
    assert "cloudpickle" in done.stderr


def test_the_same_file_can_be_both_sides_as_in_node(tmp_path):
    path = script(
        tmp_path,
        "import multiloop\n"
        "from multiloop.worker_threads import Worker, is_main_thread, parent_port\n"
        "class Point:\n"
        "    x = 3\n"
        "async def main():\n"
        "    async for point in Worker(__file__, kind='process'):\n"
        "        print(type(point) is Point, point.x)\n"
        "if is_main_thread:\n"
        "    multiloop.run(main)\n"
        "else:\n"
        "    parent_port.post_message(Point())\n",
    )
    done = run_script(path)
    assert done.stderr == ""
    assert done.stdout == "True 3\n"
