"""Whole programs: functions of the main file, missing guards, the interactive interpreter, the end of the program."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from tests.support import environment, wait_until


def run_script(tmp_path: Path, code: str, *args: str, **more: Any) -> subprocess.CompletedProcess[str]:
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(code))
    return subprocess.run(
        [sys.executable, str(script), *args], capture_output=True, text=True, env=environment(), timeout=60, **more
    )


def run_code(code: str, *flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *flags, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        env=environment(PYTHONPATH=os.pathsep.join((environment()["PYTHONPATH"], os.getcwd()))),
        timeout=60,
    )


def test_functions_and_classes_of_the_main_file_work(tmp_path: Path) -> None:
    done = run_script(
        tmp_path,
        """
        import sys
        from dataclasses import dataclass
        import multiloop
        from multiloop import pool

        @dataclass
        class Point:
            x: int

        @pool.offloaded
        def moved(point):
            return Point(point.x + 1)

        def double(point):
            return Point(point.x * 2)

        async def main():
            print(await pool.run(double, Point(4)), await moved(Point(1)), pool.run is not None)

        if __name__ == "__main__":
            multiloop.run(main)
        """,
    )
    assert done.stderr == ""
    assert done.stdout == "Point(x=8) Point(x=2) True\n"


def test_a_main_file_that_runs_as_a_module_works_too(tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(
        "from multiloop.pool import Pool\n"
        "from . import helper\n"
        "def double(x): return helper.double(x)\n"
        "if __name__ == '__main__':\n"
        "    with Pool(workers=1) as pool: print(pool.submit(double, 4).result())\n"
    )
    (package / "helper.py").write_text("def double(x): return x * 2\n")
    done = subprocess.run(
        [sys.executable, "-m", "package"], capture_output=True, text=True, env=environment(), cwd=tmp_path, timeout=60
    )
    assert (done.stdout, done.stderr) == ("8\n", "")


@pytest.mark.parametrize("how", ["asynchronous", "synchronous"])
def test_a_missing_guard_is_one_clear_line(tmp_path: Path, how: str) -> None:
    start = {
        "asynchronous": "multiloop.run(main)",
        "synchronous": "with Pool(workers=1) as made: print(made.submit(work, 1).result())",
    }[how]
    done = run_script(
        tmp_path,
        f"""
        import multiloop
        from multiloop.pool import Pool

        def work(value):
            return value

        async def main():
            async with Pool(workers=1) as made:
                print(await made.run(work, 1))

        {start}
        """,
    )
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert any('put what starts the program under: if __name__ == "__main__":' in line for line in lines[-3:])
    assert done.stdout == ""


def test_main_is_not_imported_when_no_function_of_it_is_used(tmp_path: Path) -> None:
    done = run_script(
        tmp_path,
        """
        from multiloop.pool import Pool
        print("once")
        made = Pool(workers=1)
        print(made.submit(pow, 2, 3).result())
        """,
    )
    assert (done.stdout, done.stderr) == ("once\n8\n", "")


def test_code_from_the_command_line_needs_cloudpickle_or_says_so() -> None:
    code = """
        from multiloop.pool import Pool, _calls
        {before}
        class Point:
            def __init__(self, x): self.x = x
        def double(point): return Point(point.x * 2)
        with Pool(workers=1) as made:
            print(made.submit(pow, 2, 3).result())
            print(made.submit(double, Point(4)).result().x)
    """
    refused = run_code(code.format(before="_calls._cloudpickle = lambda: None"))
    assert refused.stdout == "8\n"
    assert "interactive interpreter, a notebook or -c" in refused.stderr
    assert "install multiloop[cloudpickle]" in refused.stderr
    pytest.importorskip("cloudpickle")
    done = run_code(code.format(before=""))
    assert (done.stdout, done.stderr) == ("8\n8\n", "")


def test_what_was_submitted_is_finished_at_the_end_of_the_program() -> None:
    for end in ("", "t.shutdown(wait=False)"):
        done = run_code(
            f"""
            from multiloop.pool import Pool
            from tests.pool.functions import touch
            import os, time
            t = Pool(workers=2).executor
            t.submit(time.sleep, 0.3).add_done_callback(lambda f: os.write(1, b"apple"))
            {end}
            """
        )
        assert (done.stdout, done.stderr, done.returncode) == ("apple", "", 0)


def test_submitting_after_the_end_raises() -> None:
    done = run_code(
        """
        import atexit
        @atexit.register
        def run_last():
            try:
                t.submit(id, None)
            except RuntimeError:
                print("runtime-error")
                raise
        from multiloop.pool import Pool
        t = Pool(workers=2).executor
        t.submit(id, 42).result()
        """
    )
    assert "RuntimeError: cannot schedule new futures" in done.stderr
    assert done.stdout == "runtime-error\n"


def test_a_program_that_ends_without_closing_its_pool_ends_and_leaves_nothing() -> None:
    done = run_code(
        """
        import multiloop
        from multiloop import pool
        from multiloop.pool import Pool
        async def main():
            made = Pool(workers=2)
            await made.run(pow, 1, 2)
            await pool.run(pow, 1, 2)
            print(*[worker.pid for taken in pool.statistics() for worker in taken.workers])
        multiloop.run(main)
        """,
        "-W",
        "error",
    )
    assert done.stderr == ""
    for pid in map(int, done.stdout.split()):
        wait_until(lambda pid=pid: not _runs(pid))


def test_an_interrupt_ends_a_program_with_busy_workers(tmp_path: Path) -> None:
    code = """
        import multiloop, sys
        from multiloop.pool import Pool
        from tests.pool.functions import forever
        async def main():
            async with Pool(workers=2) as made:
                tasks = [made.run(forever) for _ in range(5)]
                await made.ready()
                print(*[worker.pid for worker in made.statistics().workers], flush=True)
                await tasks[0]
        multiloop.run(main)
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(PYTHONPATH=os.pathsep.join((environment()["PYTHONPATH"], os.getcwd()))),
        start_new_session=True,
    ) as program:
        assert program.stdout is not None
        pids = [int(word) for word in program.stdout.readline().split()]
        assert len(pids) == 2
        os.killpg(program.pid, signal.SIGINT)  # as Ctrl-C: everybody gets it
        _, errors = program.communicate(timeout=20)
    assert program.returncode == 130
    assert "Traceback" not in errors
    wait_until(lambda: not any(map(_runs, pids)))


@pytest.mark.parametrize("busy", ["forever", "hold"])
def test_when_the_program_is_killed_no_worker_outlives_it(busy: str) -> None:
    """Whatever they do: also inside C code that never lets go of the interpreter."""
    code = f"""
        import multiloop, re, time
        from multiloop.pool import Pool
        from tests.pool import functions as work
        async def main():
            made = Pool(workers=3)
            await made.ready()
            for _ in range(2):
                {"made.run(work.forever)" if busy == "forever" else "made.run(re.fullmatch, '(a*)*b', 'a' * 40)"}
            print(*[worker.pid for worker in made.statistics().workers], flush=True)
            await multiloop.timers.sleep(60)
        multiloop.run(main)
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(PYTHONPATH=os.pathsep.join((environment()["PYTHONPATH"], os.getcwd()))),
    ) as program:
        assert program.stdout is not None
        pids = [int(word) for word in program.stdout.readline().split()]
        assert len(pids) == 3
        wait_until(lambda: sum(map(_is_busy, pids)) >= 2)
        program.kill()
        wait_until(lambda: not any(map(_runs, pids)))


def test_output_of_a_task_is_not_lost_when_its_worker_is_killed(tmp_path: Path) -> None:
    done = run_script(
        tmp_path,
        """
        import os, signal
        from multiloop.pool import Pool

        def work():
            print("printed")
            os.kill(os.getpid(), signal.SIGKILL)

        if __name__ == "__main__":
            with Pool(workers=1) as made:
                print(type(made.submit(work).exception()).__name__)
        """,
    )
    assert (done.stdout, done.stderr) == ("printed\nWorkerDied\n", "")


def test_a_forked_child_starts_workers_of_its_own(tmp_path: Path) -> None:
    done = run_script(
        tmp_path,
        """
        import os, warnings
        from multiloop.pool import Pool

        if __name__ == "__main__":
            warnings.simplefilter("ignore")
            made = Pool(workers=1)
            first = made.submit(os.getpid).result()
            child = os.fork()
            if not child:
                again = made.submit(os.getpid).result()
                made.shutdown()
                os._exit(0 if again != first else 1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            assert made.submit(os.getpid).result() == first
            made.shutdown()
            print("fine")
        """,
    )
    assert (done.stdout, done.stderr) == ("fine\n", "")


def test_starting_a_worker_loads_only_what_it_uses(tmp_path: Path) -> None:
    done = run_script(
        tmp_path,
        """
        from multiloop.pool import Pool

        if __name__ == "__main__":
            with Pool(workers=1) as made:
                print(made.submit(eval, "[name in __import__('sys').modules for name in "
                      "('asyncio', 'socket', 'logging', 'uvloop', 'ctypes', 'pickle')]").result())
        """,
    )
    assert done.stdout == "[False, False, False, False, False, False]\n", done.stderr


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1][0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _is_busy(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1][0] == "R"
