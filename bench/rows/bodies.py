"""Large replies, uploads, static files."""

from __future__ import annotations

from pathlib import Path

from ..harness.bench import Bench
from ..harness.environments import APPS
from ..harness.model import Row
from ._servers import Load, bun, granian, node, ours, served, uvicorn

_UPLOAD = Load(expected=b"1048576", connections=16, script=APPS / "upload.lua", data=b"x" * 1048576)


def _reply(name: str, size: int, mode: str, connections: int) -> Row:
    load = Load(expected=size, connections=connections)
    return Row(
        f"reply-{mode}",
        "Bodies",
        f"a reply of {name}",
        (
            served(ours(f"handlers:reply_{mode}"), load),
            served(ours(f"asgi_apps:reply_{mode}", name="multiloop, ASGI"), load),
            served(uvicorn(f"asgi_apps:reply_{mode}"), load),
            served(granian(f"asgi_apps:reply_{mode}"), load),
            served(node("http.js", mode), load),
            served(bun(mode), load),
        ),
        what=f"{name} from memory over {connections} kept connections.",
    )


UPLOAD = Row(
    "upload-1m",
    "Bodies",
    "an upload of 1 MiB",
    (
        served(ours("handlers:upload"), _UPLOAD),
        served(ours("asgi_apps:upload", name="multiloop, ASGI"), _UPLOAD),
        served(uvicorn("asgi_apps:upload"), _UPLOAD),
        served(granian("asgi_apps:upload"), _UPLOAD),
        served(node("http.js", "upload"), _UPLOAD),
        served(bun("upload"), _UPLOAD),
    ),
    what="POST with 1 MiB, read to its end by the application, over 16 kept connections.",
)


def _folder(bench: Bench) -> Path:
    folder = bench.scratch / "static"
    folder.mkdir(parents=True, exist_ok=True)
    for name, size in (("10k.bin", 10_000), ("1m.bin", 1_000_000)):
        if not (folder / name).exists():
            (folder / name).write_bytes(b"x" * size)
    return folder


def _environment(bench: Bench) -> dict[str, str]:
    folder = str(_folder(bench))
    return {"BENCH_STATIC": folder, "GRANIAN_STATIC_PATH_MOUNT": folder}


def _static(name: str, file: str, size: int, connections: int) -> Row:
    load = Load(f"/{file}", size, connections)
    mounted = Load(f"/static/{file}", size, connections)  # where granian puts it
    return Row(
        f"static-{file.partition('.')[0]}",
        "Bodies",
        f"a static file of {name}",
        (
            served(ours("handlers:files"), load, env=_environment),
            served(uvicorn("starlette_static:app"), load, env=_environment),
            served(granian("asgi_apps:hello"), mounted, env=_environment),
            served(node("http.js", "static", name="Node with sirv"), load, env=_environment),
            served(bun("static"), load, env=_environment),
        ),
        what=f"{name} from a file, {connections} kept connections: http.static, Starlette on uvicorn, granian's own mount.",
    )


ROWS = (
    _reply("10 KB", 10_000, "10k", 64),
    _reply("1 MB", 1_000_000, "1m", 16),
    UPLOAD,
    _static("10 KB", "10k.bin", 10_000, 64),
    _static("1 MB", "1m.bin", 1_000_000, 16),
)
