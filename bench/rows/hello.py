"""Small replies: native handlers, ASGI, WSGI, frameworks, handlers that wait, two workers."""

from __future__ import annotations

from ..harness.model import Budget, Row
from ._servers import (
    Load,
    bun,
    fastpysgi,
    granian,
    gunicorn,
    hypercorn,
    node,
    ours,
    pure,
    python,
    served,
    uvicorn,
)  # fmt: skip

HELLO = Load()
_FASTAPI_HELLO = b'{"hello":"world"}'
_FASTAPI_ITEM = b'{"id":7,"name":"thing","tags":["a","b","c"],"price":9.5}'
_TWO = Load(pin=False)

NATIVE = Row(
    "native-hello",
    "Replies",
    "GET hello, native handler",
    (
        served(ours("handlers:hello"), HELLO),
        served(bun("hello"), HELLO),
        served(node("http.js", "hello"), HELLO),
        served(python("floor.py", name="uvloop, fixed reply", role="floor"), HELLO),
        served(pure("handlers:hello"), HELLO, quick=False),
    ),
    budgets=(Budget(("Bun",), 0.95), Budget(("Node",), 0.65), Budget(("uvloop, fixed reply",), 1.25)),
    quick=True,
    what="64 kept connections ask for 13 bytes. The floor writes a fixed reply and looks at nothing; 1.25 × it is the goal.",
)

ASGI = Row(
    "asgi-hello",
    "Replies",
    "GET hello, ASGI",
    (
        served(ours("asgi_apps:hello"), HELLO),
        served(uvicorn("asgi_apps:hello"), HELLO),
        served(granian("asgi_apps:hello"), HELLO),
        served(fastpysgi("asgi_apps:hello"), HELLO),
        served(gunicorn("asgi_apps:hello", "asgi"), HELLO, quick=False),
        served(hypercorn("asgi_apps:hello"), HELLO, quick=False),
        served(pure("asgi_apps:hello"), HELLO, quick=False),
    ),
    budgets=(Budget(("uvicorn", "granian", "fastpysgi", "gunicorn asgi"), 0.6),),
    quick=True,
    what="The same through an ASGI application without a framework.",
)

WSGI = Row(
    "wsgi-flask",
    "Replies",
    "GET hello, Flask (WSGI)",
    (
        served(ours("flask_app:app"), HELLO),
        served(gunicorn("flask_app:app", "gthread", "--threads", "8"), HELLO),
        served(granian("flask_app:app", interface="wsgi"), HELLO),
    ),
    what="A Flask view; 8 threads in multiloop and gunicorn, granian's own number.",
)

FASTAPI = tuple(
    Row(
        key,
        "Replies",
        title,
        (
            served(ours("fastapi_app:app"), load),
            served(uvicorn("fastapi_app:app"), load),
            served(granian("fastapi_app:app"), load),
            served(gunicorn("fastapi_app:app", "asgi"), load),
        ),
        what=what,
    )
    for key, title, load, what in (
        ("fastapi-hello", "FastAPI, hello", Load(expected=_FASTAPI_HELLO), "A FastAPI route that returns a dict."),
        (
            "fastapi-json",
            "FastAPI, JSON through a model",
            Load("/items/7", _FASTAPI_ITEM),
            "A FastAPI route with a path parameter that returns a pydantic model.",
        ),
    )
)

WAITING = Row(
    "await-10ms",
    "Replies",
    "a handler that waits 10 ms",
    (
        served(ours("handlers:wait_10ms"), HELLO),
        served(ours("asgi_apps:wait_10ms", name="multiloop, ASGI"), HELLO),
        served(uvicorn("asgi_apps:wait_10ms"), HELLO),
        served(granian("asgi_apps:wait_10ms"), HELLO),
        served(node("http.js", "wait"), HELLO),
        served(bun("wait"), HELLO),
    ),
    what="Each request sleeps 10 ms, as one that asks somebody else does: 64 connections, at most 6 400 requests a second.",
)

TWO_WORKERS = Row(
    "two-workers",
    "Replies",
    "GET hello on two workers",
    (
        served(ours("handlers:hello", workers=2), _TWO),
        served(node("cluster.js", "2", name="Node cluster"), _TWO),
        served(ours("asgi_apps:hello", name="multiloop, ASGI", workers=2), _TWO),
        served(uvicorn("asgi_apps:hello", workers=2), _TWO),
        served(granian("asgi_apps:hello", workers=2), _TWO),
    ),
    what="Nothing is pinned but the load: on a machine with two cores the second worker shares one with it.",
)

ROWS = (NATIVE, ASGI, WSGI, *FASTAPI, WAITING, TWO_WORKERS)
