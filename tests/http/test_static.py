"""Static files: nothing outside the root, conditional and ranged requests, large files, both faces."""

from __future__ import annotations

import asyncio
import os
import socket
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from multiloop import http
from multiloop.fs import _ready
from multiloop.http._static import StaticFiles
from multiloop.http._static_open import open_at_once
from multiloop.http._static_rules import choose, content_type
from tests.support import open_descriptors

from .harness import Client, Reply, eventually, run, service_of

BIG = os.urandom(2_000_000)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A tree with everything that must and must not be served."""
    root = tmp_path / "public"
    (root / "sub" / "empty").mkdir(parents=True)
    (root / "a.txt").write_text("hello")
    (root / "empty.txt").write_text("")
    (root / "caf\u00e9 & co.html").write_text("<p>caf\u00e9")
    (root / "big.bin").write_bytes(BIG)
    (root / "sub" / "index.html").write_text("<p>index")
    (root / ".env").write_text("SECRET")
    (root / ".git").mkdir()
    (root / ".git" / "config").write_text("SECRET")
    (root / ".well-known").mkdir()
    (root / ".well-known" / "acme").write_text("token")
    (tmp_path / "secret.txt").write_text("SECRET")
    (tmp_path / "public-secret").mkdir()
    (tmp_path / "public-secret" / "x").write_text("SECRET")
    (root / "link-in").symlink_to("a.txt")
    (root / "link-dir").symlink_to("sub")
    (root / "link-absolute").symlink_to(root / "a.txt")
    (root / "link-out").symlink_to("../secret.txt")
    (root / "link-passwd").symlink_to("/etc/passwd")
    (root / "link-dir-out").symlink_to("../public-secret")
    (root / "link-up").symlink_to("..")
    (root / "link-loop").symlink_to("link-loop")
    (root / "link-zero").symlink_to("/dev/zero")
    (root / "sub" / "link-prefix").symlink_to("../../public-secret/x")
    os.mkfifo(root / "fifo")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(root / "socket"))
    return root


def ask(app: Any, path: str, fields: str = "", method: str = "GET") -> Reply:
    """Ask, three times: what was remembered of the first reply (`_static_known`) must change nothing."""

    async def main() -> Reply:
        async with service_of(app) as service:
            client = Client(service, tcp=True)
            first, *later = [await client.get(path, fields, method) for _ in range(3)]
            for reply in later:
                assert (reply.status, reply.body) == (first.status, first.body)
                assert {**reply.headers, "date": ""} == {**first.headers, "date": ""}
            return first

    return run(main)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/a.txt", b"hello"),
        ("/%61.txt", b"hello"),
        ("/a.txt?x=1", b"hello"),
        ("/empty.txt", b""),
        ("/caf%C3%A9%20&%20co.html", "<p>caf\u00e9".encode()),
        ("/sub/", b"<p>index"),
        ("/sub/index.html", b"<p>index"),
        ("/.well-known/acme", b"token"),
        ("/link-in", b"hello"),
        ("/link-absolute", b"hello"),
        ("/link-dir/", b"<p>index"),
        ("/link-dir/index.html", b"<p>index"),
    ],
)
def test_files_below_the_root_are_served(root: Path, path: str, body: bytes) -> None:
    reply = ask(http.static(root), path)
    assert (reply.status, reply.body) == (200, body)
    assert reply.headers["content-length"] == str(len(body))


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/",
        "/sub/empty/",
        "/sub/empty",
        "/a.txt/",
        "/a.txt/x",
        "/../secret.txt",
        "/sub/../../secret.txt",
        "/%2e%2e/secret.txt",
        "/..%2fsecret.txt",
        "/..%2Fsecret.txt",
        "/sub%2findex.html",
        "/%2e%2e%2fsecret.txt",
        "/%252e%252e/secret.txt",
        "/sub/%2e%2e/a.txt",
        "/./a.txt",
        "/sub/.",
        "//etc/passwd",
        "/%2fetc/passwd",
        "/sub//index.html",
        "/..\\secret.txt",
        "/..%5csecret.txt",
        "/a.txt%00",
        "/a.txt%00.png",
        "/%0a",
        "/../public-secret/x",
        "/-secret/x",
        "/.env",
        "/.git/config",
        "/%2eenv",
        "/link-out",
        "/link-passwd",
        "/link-dir-out/x",
        "/link-up/secret.txt",
        "/link-up/public-secret/x",
        "/link-loop",
        "/link-zero",
        "/sub/link-prefix",
        "/fifo",
        "/socket",
        "/" + "x" * 300,
        "/" + "x/" * 100,
        "/%ff%fe",
    ],
)
def test_nothing_else_is(root: Path, path: str) -> None:
    async def main() -> None:
        async with service_of(http.static(root)) as service:
            client = Client(service)
            for method in ("GET", "HEAD"):
                reply = await client.get(path, "", method)
                assert reply.status == 404
                assert b"SECRET" not in reply.body
            assert (await client.get("/a.txt")).body == b"hello"

    run(main)


def test_a_directory_without_its_slash_is_a_redirect_only_if_it_has_an_index(root: Path) -> None:
    reply = ask(http.static(root), "/sub?x=1")
    assert (reply.status, reply.headers["location"]) == (301, "/sub/?x=1")
    assert ask(http.static(root, index=None), "/sub").status == 404
    assert ask(http.static(root, index=None), "/sub/").status == 404
    assert ask(http.static(root), "//sub").status == 404  # never "//sub/", which leads to another host


def test_a_prefix_is_taken_off_and_required(root: Path) -> None:
    files = http.static(root, prefix="/static/")
    assert ask(files, "/static/a.txt").body == b"hello"
    for path in ("/a.txt", "/statica.txt", "/static", "/static/../a.txt", "/static/static/a.txt"):
        assert ask(files, path).status == 404


def test_hidden_files_are_served_when_asked_for(root: Path) -> None:
    assert ask(http.static(root, hidden=True), "/.env").body == b"SECRET"
    assert ask(http.static(root, hidden=True), "/../secret.txt").status == 404


def test_only_get_and_head_are_answered(root: Path) -> None:
    reply = ask(http.static(root), "/a.txt", "Content-Length: 0\r\n", "POST")
    assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD")


def test_a_root_that_is_no_directory_is_an_error_at_once(root: Path) -> None:
    with pytest.raises(NotADirectoryError) as caught:
        http.static(root / "a.txt")
    assert caught.value.filename == str(root / "a.txt")


def test_a_root_that_is_a_link_may_be_moved_by_a_deployment(tmp_path: Path) -> None:
    for release in ("one", "two"):
        (tmp_path / release).mkdir()
        (tmp_path / release / "file").write_text(release)
        (tmp_path / release / "link").symlink_to("file")
    current = tmp_path / "current"
    current.symlink_to("one")
    files = http.static(current)
    assert ask(files, "/file").body == ask(files, "/link").body == b"one"
    current.unlink()
    current.symlink_to("two")
    assert ask(files, "/file").body == ask(files, "/link").body == b"two"


def test_the_reply_says_type_and_validators(root: Path) -> None:
    headers = ask(http.static(root, max_age=60), "/a.txt").headers
    assert headers["content-type"] == "text/plain; charset=utf-8"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["last-modified"] == formatdate((root / "a.txt").stat().st_mtime, usegmt=True)
    assert headers["etag"].startswith('"')
    assert headers["cache-control"] == "public, max-age=60"
    assert "cache-control" not in ask(http.static(root), "/a.txt").headers


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.html", "text/html; charset=utf-8"),
        ("a.js", "text/javascript; charset=utf-8"),
        ("a.mjs", "text/javascript; charset=utf-8"),
        ("a.css", "text/css; charset=utf-8"),
        ("a.json", "application/json; charset=utf-8"),
        ("a.svg", "image/svg+xml; charset=utf-8"),
        ("a.PNG", "image/png"),
        ("a.woff2", "font/woff2"),
        ("a.wasm", "application/wasm"),
        ("a.tar.gz", "application/gzip"),
        ("a.svgz", "application/gzip"),
        ("a", "application/octet-stream"),
        ("a.exe2", "application/octet-stream"),
    ],
)
def test_types_come_from_the_name_and_not_from_the_machine(name: str, kind: str) -> None:
    assert content_type(name) == kind


NOW_S = 1_700_000_000
DATE = formatdate(NOW_S, usegmt=True)
BEFORE = formatdate(NOW_S - 1, usegmt=True)
ETAG = f'"{NOW_S * 10**9:x}-{100:x}"'


@pytest.mark.parametrize(
    ("headers", "status", "offset", "length"),
    [
        ({}, 200, 0, 100),
        ({"if-none-match": ETAG}, 304, 0, 0),
        ({"if-none-match": f"W/{ETAG}"}, 304, 0, 0),
        ({"if-none-match": f'"other", {ETAG}'}, 304, 0, 0),
        ({"if-none-match": "*"}, 304, 0, 0),
        ({"if-none-match": '"other"'}, 200, 0, 100),
        ({"if-none-match": '"other"', "if-modified-since": DATE}, 200, 0, 100),
        ({"if-none-match": "garbage"}, 200, 0, 100),
        ({"if-modified-since": DATE}, 304, 0, 0),
        ({"if-modified-since": BEFORE}, 200, 0, 100),
        ({"if-modified-since": "garbage"}, 200, 0, 100),
        ({"if-modified-since": "Mon, 01 Jan 99999999999 00:00:00 GMT"}, 200, 0, 100),
        ({"if-match": ETAG}, 200, 0, 100),
        ({"if-match": '"other"'}, 412, 0, 0),
        ({"if-unmodified-since": DATE}, 200, 0, 100),
        ({"if-unmodified-since": BEFORE}, 412, 0, 0),
        ({"range": "bytes=0-0"}, 206, 0, 1),
        ({"range": "bytes=10-19"}, 206, 10, 10),
        ({"range": "Bytes = 10-19"}, 200, 0, 100),
        ({"range": "bytes=90-"}, 206, 90, 10),
        ({"range": "bytes=90-1000"}, 206, 90, 10),
        ({"range": "bytes=-7"}, 206, 93, 7),
        ({"range": "bytes=-1000"}, 206, 0, 100),
        ({"range": "bytes=-0"}, 416, 0, 0),
        ({"range": "bytes=100-"}, 416, 0, 0),
        ({"range": "bytes=5-4"}, 200, 0, 100),
        ({"range": "bytes=-"}, 200, 0, 100),
        ({"range": "bytes=a-b"}, 200, 0, 100),
        ({"range": "bytes=0-0,-1"}, 200, 0, 100),
        ({"range": "bytes=" + ",".join(["0-"] * 1000)}, 200, 0, 100),
        ({"range": "lines=0-1"}, 200, 0, 100),
        ({"range": "bytes=" + "9" * 4000 + "-"}, 200, 0, 100),
        ({"range": "bytes=\u0661-"}, 200, 0, 100),
        ({"range": "bytes=10-19", "if-range": ETAG}, 206, 10, 10),
        ({"range": "bytes=10-19", "if-range": DATE}, 206, 10, 10),
        ({"range": "bytes=10-19", "if-range": '"other"'}, 200, 0, 100),
        ({"range": "bytes=10-19", "if-range": f"W/{ETAG}"}, 200, 0, 100),
        ({"range": "bytes=10-19", "if-none-match": ETAG}, 304, 0, 0),
    ],
)
def test_conditions_and_ranges(headers: dict[str, str], status: int, offset: int, length: int) -> None:
    choice = choose(headers, "a.txt", 100, NOW_S * 10**9, None)
    assert (choice.status, choice.offset, choice.length) == (status, offset, length)
    fields = dict(choice.headers)
    assert fields["etag"] == ETAG
    if status == 206:
        assert fields["content-range"] == f"bytes {offset}-{offset + length - 1}/100"
    if status == 416:
        assert fields["content-range"] == "bytes */100"
    if status in (304, 412, 416):
        assert "content-length" not in fields


def test_large_files_whole_and_in_part_over_a_kept_connection(root: Path) -> None:
    async def main() -> None:
        async with service_of(http.static(root)) as service:
            client = Client(service, tcp=True)
            assert (await client.get("/big.bin")).body == BIG
            reply = await client.get("/big.bin", "Range: bytes=1000-1999999\r\n")
            assert (reply.status, reply.body) == (206, BIG[1000:])
            reply = await client.get("/big.bin", method="HEAD")
            assert reply.headers["content-length"] == str(len(BIG))
            etag = reply.headers["etag"]
            assert (await client.get("/big.bin", f"If-None-Match: {etag}\r\n")).status == 304
            assert (await client.get("/a.txt")).body == b"hello"

    run(main)


def test_a_handler_may_pass_requests_on(root: Path) -> None:
    files = http.static(root, prefix="/static")

    def handler(request: Any) -> Any:
        return files(request) if request.path.startswith("/static/") else "own"

    assert ask(handler, "/static/a.txt").body == b"hello"
    assert ask(handler, "/other").body == b"own"


def test_the_same_files_as_an_asgi_application(root: Path) -> None:
    from starlette.applications import Starlette
    from starlette.routing import Mount

    app = Starlette(routes=[Mount("/static", app=http.static(root).asgi)])

    async def main() -> None:
        async with service_of(app) as service:
            client = Client(service)
            assert (await client.get("/static/a.txt")).body == b"hello"
            assert (await client.get("/static/big.bin")).body == BIG
            assert (await client.get("/static/big.bin", "Range: bytes=5-\r\n")).body == BIG[5:]
            assert (await client.get("/static/sub")).headers["location"] == "/static/sub/"
            assert (await client.get("/static/a.txt", method="HEAD")).headers["content-length"] == "5"
            assert (await client.get("/static/a.txt", "Content-Length: 0\r\n", "POST")).status == 405
            for path in ("/static/../secret.txt", "/static/%2e%2e/secret.txt", "/static/.env", "/static/link-out"):
                assert (await client.get(path)).status == 404

    run(main)


def test_descriptors_are_closed_whatever_happens(root: Path) -> None:
    async def main() -> None:
        async with service_of(http.static(root), write_timeout=0.2) as service:
            client = Client(service, tcp=True)
            await client.get("/a.txt")  # starts the threads
            before = {entry for entry in open_descriptors() if "public" in entry}
            assert not before
            leaving = [Client(service, tcp=True) for _ in range(5)]
            for one in leaving:
                await one.send(b"GET /big.bin HTTP/1.1\r\nHost: a\r\n\r\n" * 3)
            await leaving[0].more()
            for one in leaving[1:4]:
                one.reset()
            await client.get("/big.bin", "If-None-Match: *\r\n")
            await client.get("/fifo")
            await eventually(lambda: not [entry for entry in open_descriptors() if "public" in entry])
            for one in leaving:
                one.close()
            await eventually(lambda: not service.active)

    run(main)


def test_a_file_that_becomes_shorter_never_looks_complete(root: Path) -> None:
    size = 50_000_000
    os.truncate(root / "big.bin", size)

    async def main() -> None:
        async with service_of(http.static(root)) as service:
            client = Client(service, tcp=True)
            await client.send(b"GET /big.bin HTTP/1.1\r\nHost: a\r\n\r\n")
            assert b"content-length: %d" % size in await client.until(b"\r\n\r\n")
            os.truncate(root / "big.bin", 10)
            assert len(await client.rest()) < size

    run(main)


def test_the_loop_is_not_blocked_while_many_files_are_opened(root: Path) -> None:
    async def main() -> None:
        async with service_of(http.static(root)) as service:
            clients = [Client(service) for _ in range(20)]
            replies = await asyncio.gather(*(client.get("/a.txt") for client in clients))
            assert {reply.body for reply in replies} == {b"hello"}

    run(main)


@pytest.mark.parametrize("face", ["handler", "asgi"])
def test_a_file_that_changes_is_never_answered_from_what_was_remembered(root: Path, face: str) -> None:
    async def main() -> None:
        files = http.static(root)
        known = files._known if face == "handler" else files._known_asgi
        async with service_of(files if face == "handler" else files.asgi) as service:
            client = Client(service, tcp=True)

            async def get(path: str, fields: str = "") -> Reply:
                for _ in range(
                    20
                ):  # the kernel may say "not now" while names change nearby: then nothing is remembered
                    reply = await client.get(path, fields)
                    if path.encode() in known._known:
                        break
                return reply

            first = await get("/a.txt")
            os.utime(root / "a.txt", ns=(1, 1))
            later = await get("/a.txt")
            assert (first.body, later.body) == (b"hello", b"hello")
            assert first.headers["etag"] != later.headers["etag"]
            assert later.headers["last-modified"] == "Thu, 01 Jan 1970 00:00:00 GMT"
            (root / "a.txt").write_text("hello, world")
            assert (await get("/a.txt")).body == b"hello, world"
            assert (await get("/a.txt", "Range: bytes=0-4\r\n")).body == b"hello"
            etag = (await get("/a.txt")).headers["etag"]
            assert (await get("/a.txt", f"If-None-Match: {etag}\r\n")).status == 304
            assert (await get("/a.txt", 'If-Match: "other"\r\n')).status == 412
            assert (await client.get("/a.txt", method="HEAD")).headers["content-length"] == "12"
            assert (await client.get("/a.txt", method="POST")).status == 405
            (root / "a.txt").write_bytes(BIG)
            assert (await get("/a.txt")).body == BIG
            (root / "a.txt").write_text("")
            assert (await get("/a.txt")).body == b""

    run(main)


@pytest.mark.parametrize("face", ["handler", "asgi"])
@pytest.mark.parametrize("becomes", ["link", "link of a folder", "fifo", "folder", "nothing", "hidden from us"])
def test_a_file_that_becomes_something_else_is_not_served_any_more(
    root: Path, tmp_path: Path, becomes: str, face: str
) -> None:
    async def main() -> None:
        files = http.static(root)
        async with service_of(files if face == "handler" else files.asgi) as service:
            client = Client(service, tcp=True)
            path = root / "sub" / "index.html"
            for _ in range(3):
                assert (await client.get("/sub/")).body == (await client.get("/sub/index.html")).body == b"<p>index"
            secret = tmp_path / "secret" / "index.html"
            secret.parent.mkdir()
            secret.write_text("SECRET!!")  # as long, and as old
            os.utime(secret, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
            if becomes == "link of a folder":
                path.unlink()
                (root / "sub" / "empty").rmdir()
                (root / "sub" / "link-prefix").unlink()
                (root / "sub").rmdir()
                (root / "sub").symlink_to(secret.parent)
            elif becomes == "hidden from us" and os.getuid() == 0:
                pytest.skip("root may read everything")
            elif becomes == "hidden from us":
                path.chmod(0)
            else:
                path.unlink()
                if becomes == "link":
                    path.symlink_to(secret)
                elif becomes == "fifo":
                    os.mkfifo(path)
                elif becomes == "folder":
                    path.mkdir()
            for asked in ("/sub/", "/sub/index.html") * 2:
                assert (await client.get(asked)).status == 404
        await eventually(
            lambda: not [entry for entry in open_descriptors() if "/public" in entry or "/secret" in entry]
        )

    run(main)


def test_a_root_that_a_deployment_moves_is_followed(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.txt").write_text(name)
        os.utime(tmp_path / name / "a.txt", ns=(5, 5))
    (tmp_path / "now").symlink_to("one")

    async def main() -> None:
        async with service_of(http.static(tmp_path / "now")) as service:
            client = Client(service, tcp=True)
            assert {(await client.get("/a.txt")).body for _ in range(3)} == {b"one"}
            (tmp_path / "next").symlink_to("two")
            (tmp_path / "next").rename(tmp_path / "now")
            assert {(await client.get("/a.txt")).body for _ in range(3)} == {b"two"}

    run(main)


def test_a_handler_of_ones_own_may_await_the_reply_and_change_it(root: Path) -> None:
    files = http.static(root)

    async def handler(request: http.Request) -> http.Response:
        reply = await files(request)
        reply.headers.append(("x-mine", "1"))  # type: ignore[union-attr]
        return reply

    async def main() -> None:
        async with service_of(handler) as service:
            client = Client(service, tcp=True)
            for _ in range(5):
                reply = await client.get("/a.txt")
                assert (reply.body, reply.headers["x-mine"]) == (b"hello", "1")

    run(main)


def test_a_plain_request_for_a_known_file_takes_the_short_way(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if _ready.below is None or _ready.status is None or not any(_ready.status(root) for _ in range(1000)):
        pytest.skip("the pure form, or a file system without the promise: nothing is remembered")
    files = http.static(root)
    long_way = 0
    answer = StaticFiles._answer

    async def counted(self: StaticFiles, request: http.Request) -> http.Response:
        nonlocal long_way
        long_way += 1
        return await answer(self, request)

    monkeypatch.setattr(StaticFiles, "_answer", counted)

    async def main() -> None:
        async with service_of(files) as service:
            client = Client(service, tcp=True)
            for _ in range(200):
                assert (await client.get("/a.txt")).body == b"hello"

    run(main)
    assert long_way < 20  # the kernel may say "not now" while names change nearby


def test_only_so_many_replies_are_remembered(root: Path) -> None:
    files = http.static(root)

    async def main() -> None:
        async with service_of(files) as service:
            client = Client(service, tcp=True)
            (root / "many").mkdir()
            for number in range(600):
                (root / "many" / str(number)).write_text(str(number))
            for number in range(600):
                assert (await client.get(f"/many/{number}")).body == str(number).encode()
            long = "/" + "%61" * 200 + "/" + "%61" * 200
            assert (await client.get(long)).status == 404
            assert len(files._known._known) <= 512

    run(main)


def test_what_is_in_memory_is_opened_without_a_thread_and_never_through_a_link(root: Path) -> None:
    if _ready.below is None or _ready.status is None or not any(_ready.status(root) for _ in range(1000)):
        pytest.skip("the pure form, or a file system without the promise: a thread opens every file")
    before = open_descriptors()
    for names in ([b"a.txt"], [b"sub", b""], [b".env"]):
        # the kernel may say "not now" while names change nearby
        file = next(filter(None, (open_at_once(str(root), names, "index.html") for _ in range(1000))), None)
        assert file is not None
        file.close()
    links = (
        b"link-in link-dir/index.html link-absolute link-out link-passwd link-dir-out/x link-up/secret.txt link-loop"
    )
    others = b"link-zero fifo socket sub missing a.txt/ sub/../../secret.txt /etc/passwd"
    for path in (links + b" " + others).split():
        assert open_at_once(str(root), path.split(b"/"), None) is None, path
        assert open_at_once(str(root), [path], None) is None, path
    assert open_descriptors() == before
