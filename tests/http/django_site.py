"""A Django site for the tests, made without files: settings, URLs and views, for ASGI and WSGI."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any

import django
from django.conf import settings
from django.http import FileResponse, HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import path

settings.configure(
    DEBUG=False,
    SECRET_KEY="for tests alone",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    MIDDLEWARE=["django.middleware.common.CommonMiddleware", "django.middleware.gzip.GZipMiddleware"],
    INSTALLED_APPS=[],
    DATABASES={},
    LOGGING_CONFIG=None,
    FILE_UPLOAD_MAX_MEMORY_SIZE=64 * 1024,
    DATA_UPLOAD_MAX_MEMORY_SIZE=None,
    DEFAULT_CHARSET="utf-8",
    USE_TZ=True,
)
django.setup()
logging.getLogger("django.request").setLevel(logging.CRITICAL)

left: list[str] = []  # streams whose client went away


def hello(request: HttpRequest) -> HttpResponse:
    return HttpResponse("hello", content_type="text/plain")


async def hello_async(request: HttpRequest) -> HttpResponse:
    await asyncio.sleep(0)
    return HttpResponse("hello from a coroutine")


def echo(request: HttpRequest, name: str) -> JsonResponse:
    return JsonResponse(
        {
            "name": name,
            "method": request.method,
            "query": request.GET.dict(),
            "form": request.POST.dict(),
            "cookie": request.COOKIES.get("c"),
            "secure": request.is_secure(),
            "url": request.build_absolute_uri(),
        }
    )


def upload(request: HttpRequest) -> JsonResponse:
    return JsonResponse({name: [file.name, file.size] for name, file in request.FILES.items()})


def raw(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(len(request.body)))


def stream(request: HttpRequest) -> StreamingHttpResponse:
    def pieces() -> Iterator[bytes]:
        for number in range(5):
            yield b"%d\n" % number

    async def pieces_async() -> AsyncIterator[bytes]:
        for piece in pieces():
            yield piece

    return StreamingHttpResponse(pieces_async() if hasattr(request, "scope") else pieces())


async def endless(request: HttpRequest) -> StreamingHttpResponse:
    async def pieces() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"x" * 1000
                await asyncio.sleep(0.01)
        finally:
            left.append("endless")

    return StreamingHttpResponse(pieces())


def download(request: HttpRequest) -> Any:
    return FileResponse(open(__file__, "rb"), as_attachment=True)


def failing(request: HttpRequest) -> HttpResponse:
    raise ValueError("from a view")


urlpatterns = [
    path("", hello),
    path("async", hello_async),
    path("echo/<str:name>", echo),
    path("upload", upload),
    path("raw", raw),
    path("stream", stream),
    path("endless", endless),
    path("download", download),
    path("failing", failing),
]
