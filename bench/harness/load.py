"""Load: wrk and ab, and what they say; a check that the answer is right before anything is counted.

What lives here: running a generator for one window, and reading its report. The readers are pure.
"""

from __future__ import annotations

import http.client
import re
from dataclasses import dataclass
from pathlib import Path

from .processes import Failed, run

_UNITS_MS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}


@dataclass(frozen=True, slots=True)
class Window:
    """What a generator saw in one window."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float


def read_wrk(report: str) -> Window:
    """Read what wrk printed. Raises Failed when a reply or a connection was not good: such figures count nothing."""
    total = re.search(r"(\d+) requests in ([\d.]+)(us|ms|s|m)\b", report)
    found = dict(re.findall(r"^\s+(50|99)%\s+(\S+)$", report, re.MULTILINE))
    if total is None or len(found) != 2:
        raise Failed(f"wrk said nothing that can be read: {report.strip()[-400:]}")
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", report)
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", report)
    wrong = int(bad.group(1)) if bad else 0
    wrong += sum(map(int, errors.groups())) if errors else 0
    if wrong or total.group(1) == "0":
        raise Failed(f"{wrong} went wrong, {total.group(1)} requests were answered: {report.strip()[-300:]}")
    seconds = float(total.group(2)) * _UNITS_MS[total.group(3)] / 1e3
    return Window(int(total.group(1)), seconds, _ms(found["50"]), _ms(found["99"]))


def _ms(text: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s|m)", text).groups()  # type: ignore[union-attr]
    return float(number) * _UNITS_MS[unit]


def read_ab(report: str) -> Window:
    """Read what ab printed. Raises Failed when a request failed."""
    done = re.search(r"Complete requests:\s+(\d+)", report)
    took = re.search(r"Time taken for tests:\s+([\d.]+)", report)
    found = dict(re.findall(r"^\s+(50|99)%\s+(\d+)", report, re.MULTILINE))
    if done is None or took is None or len(found) != 2:
        raise Failed(f"ab said nothing that can be read: {report.strip()[-400:]}")
    failed = re.search(r"Failed requests:\s+([1-9]\d*)", report) or re.search(r"Non-2xx responses:\s+(\d+)", report)
    if failed:
        raise Failed(f"{failed.group(1)} of {done.group(1)} requests failed: {report.strip()[-300:]}")
    return Window(int(done.group(1)), float(took.group(1)), float(found["50"]), float(found["99"]))


def wrk(
    port: int, path: str, *, connections: int, seconds: float, core: int | None, script: Path | None = None
) -> Window:
    """Keep `connections` connections busy for so long, from one core (None: wherever there is room)."""
    more = ["-s", script] if script else []
    report = run(
        ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--latency", *more,
         f"http://127.0.0.1:{port}{path}"],
        core=core, timeout_s=seconds + 30,
    )  # fmt: skip
    return read_wrk(report)


def ab(port: int, *, requests: int, connections: int) -> Window:
    """One connection for each request."""
    return read_ab(run(["ab", "-q", "-n", requests, "-c", connections, f"http://127.0.0.1:{port}/"], timeout_s=120))


def ask(port: int, path: str = "/", data: bytes | None = None, timeout_s: float = 10.0) -> tuple[int, bytes]:
    """Status and body of one request on a connection that is not asked to close: some peers do not survive that."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    try:
        connection.request("GET" if data is None else "POST", path, body=data)
        reply = connection.getresponse()
        return reply.status, reply.read()
    except http.client.HTTPException as error:
        raise Failed(f"{path} was answered with no HTTP: {error!r}") from error
    finally:
        connection.close()


def check_answer(port: int, path: str, expected: int | bytes, *, data: bytes | None = None) -> None:
    """Raise Failed unless the status is 200 and the body what it should be: these bytes, or so many of them."""
    status, body = ask(port, path, data)
    if status != 200 or (len(body) if isinstance(expected, int) else body) != expected:
        raise Failed(f"{path} answered {status} and {len(body)} bytes, {body[:60]!r} …, expected {expected!r}")
