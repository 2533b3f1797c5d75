"""A program that traces with OpenTelemetry gets a span for each request, task and block; one that does not pays nothing."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

import multiloop
from multiloop import health
from multiloop.http import Request
from multiloop.pool import Pool
from tests.http.harness import Client, answer, run, service_of
from tests.support import environment, until

trace = pytest.importorskip("opentelemetry.trace")
pytest.importorskip("opentelemetry.sdk.trace")
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider  # noqa: E402
from opentelemetry.sdk.trace.export import SimpleSpanProcessor  # noqa: E402
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter  # noqa: E402

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Exported:
    """What has been exported."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    def spans(self) -> list[ReadableSpan]:
        return list(self._exporter.get_finished_spans())


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> Iterator[Exported]:
    """This program traces, for the time of one test."""
    exported = Exported()
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", exported.provider)
    yield exported
    exported.provider.shutdown()


def current() -> str:
    return f"{trace.get_current_span().get_span_context().span_id:x}"


seen: list[str] = []


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    await asyncio.sleep(0)
    seen.append(current())
    await answer(send)


async def handler(request: Request) -> str:
    await asyncio.sleep(0)
    seen.append(current())
    return "ok"


def sync_handler(request: Request) -> str:
    seen.append(current())
    return "ok"


def nodes_face(request: Request, response: Any) -> None:
    seen.append(current())
    asyncio.get_running_loop().call_soon(response.end, "ok")


def wsgi(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [("Content-Type", "text/plain")])
    seen.append(current())
    yield b"ok"


@pytest.mark.parametrize(
    ("app", "interface"),
    [(asgi, "asgi"), (handler, "handler"), (sync_handler, "handler"), (nodes_face, "node"), (wsgi, "wsgi")],
)
def test_a_request_is_a_span_below_the_clients_and_above_what_serves_it(
    app: Any, interface: str, exported: Exported
) -> None:
    seen.clear()

    async def main() -> None:
        async with service_of(app, interface) as service:
            client = Client(service, tcp=True)
            for _ in range(2):
                assert (await client.get("/a?b=1", f"traceparent: {PARENT}\r\n")).status == 200
            await until(lambda: len(exported.spans()) == 2)

    run(main)
    for span, inside in zip(exported.spans(), seen, strict=True):
        assert (span.name, span.kind) == ("GET", trace.SpanKind.SERVER)
        assert span.context is not None
        assert span.parent is not None
        assert f"{span.context.span_id:x}" == inside
        assert f"{span.context.trace_id:032x}" == PARENT.split("-")[1]
        assert f"{span.parent.span_id:016x}" == PARENT.split("-")[2]
        assert span.attributes is not None
        assert span.attributes["url.path"] == "/a"
        assert span.attributes["url.query"] == "b=1"
        assert span.attributes["http.response.status_code"] == 200


def test_a_request_that_fails_or_is_cut_off_ends_its_span_with_an_error(exported: Exported) -> None:
    async def fails(request: Request) -> Any:
        if request.path == "/500":
            raise ValueError("no")
        return cut()

    async def cut() -> Any:
        yield b"part"
        raise OSError("gone")

    async def main() -> None:
        async with service_of(fails, "handler") as service:
            assert (await Client(service).get("/500")).status == 500
            with pytest.raises(EOFError):
                await Client(service).get("/cut")
        await until(lambda: len(exported.spans()) == 2)

    logging.getLogger("multiloop.http").disabled = True
    try:
        run(main)
    finally:
        logging.getLogger("multiloop.http").disabled = False
    failed, cut_off = exported.spans()
    assert {span.status.status_code for span in (failed, cut_off)} == {trace.StatusCode.ERROR}
    assert failed.attributes is not None
    assert failed.attributes["http.response.status_code"] == 500
    assert "cut" in (cut_off.status.description or "")


def test_a_block_of_the_loop_is_a_span_with_its_place(exported: Exported) -> None:
    async def main() -> None:
        health.watch(0.05)
        await asyncio.sleep(0.1)
        time.sleep(0.3)
        await until(exported.spans)

    multiloop.run(main)
    span = exported.spans()[0]
    assert span.name == "event loop blocked"
    assert span.attributes is not None
    assert str(span.attributes["code.file.path"]).endswith("test_telemetry.py")
    assert span.end_time is not None
    assert span.start_time is not None
    assert 0.2e9 < span.end_time - span.start_time < 5e9


def double(value: int) -> int:
    return 2 * value


def test_a_task_is_a_span_until_it_has_ended_in_every_form(exported: Exported) -> None:
    errors: list[Any] = []
    before = multiloop.on_uncaught(errors.append)

    async def main() -> None:
        async with Pool(kind="thread", workers=1) as pool:
            with exported.provider.get_tracer("test").start_as_current_span("outer"):
                assert await pool.run(double, 4) == 8
            told: list[Any] = []
            pool.options(callback=lambda *args: told.append(args)).run(double, 1)
            await until(lambda: told)
            assert await asyncio.wrap_future(pool.submit(double, 2)) == 4
            assert await asyncio.wrap_future(pool.executor.submit(double, 3)) == 6
            pool.run(double, None)  # nobody asks: uncaught all the same
            await until(lambda: errors)
            await until(lambda: len(exported.spans()) == 6)

    try:
        multiloop.run(main)
    finally:
        multiloop.on_uncaught(before)
    spans = exported.spans()
    tasks = [span for span in spans if span.name == "pool double"]
    assert len(tasks) == 5
    outer = next(span for span in spans if span.name == "outer")
    assert outer.context is not None
    assert [span.parent.span_id for span in tasks if span.parent is not None] == [outer.context.span_id]
    assert [span.status.is_ok for span in tasks].count(False) == 1
    assert [type(error) for error in errors] == [TypeError]


@pytest.mark.parametrize("how", ["not loaded", "no provider", "switched off"])
def test_a_program_that_does_not_trace_has_no_tracer(how: str, exported: Exported, monkeypatch: Any) -> None:
    code = "import sys, multiloop, multiloop.http, multiloop.pool; print('opentelemetry' in ' '.join(sys.modules))"
    if how == "not loaded":
        found = subprocess.run(
            [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, timeout=60
        )
        assert found.stdout.strip() == "False"
        return
    if how == "no provider":
        monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    else:
        monkeypatch.setenv("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", "flask, multiloop")

    async def main() -> None:
        async with service_of(handler, "handler") as service:
            assert service.access is None
            assert (await Client(service).get()).status == 200

    run(main)
    assert exported.spans() == []
