"""What a WSGI application is told of a request: the environ (PEP 3333), and `wsgi.errors`.

What lives here: `make_environ`, `ErrorStream`, `FileWrapper`. What must not: threads, the reply.

A field whose name has an underscore is left out (it would be taken for the one with a hyphen), and so is `Proxy` (it
would become HTTP_PROXY, which HTTP clients obey). Fields of one name are joined with a comma, cookies with "; ".
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from .. import __version__

if TYPE_CHECKING:
    from ._exchange import Exchange
    from ._service import HttpService
    from ._state import Listener

log = logging.getLogger("multiloop.wsgi")

_MAX_KEYS = 1024
_keys: dict[bytes, str] = {
    b"content-type": "CONTENT_TYPE",
    b"content-length": "CONTENT_LENGTH",
    b"proxy": "",
}


def _key(name: bytes) -> str:
    key = "" if b"_" in name else "HTTP_" + name.decode("latin-1").upper().replace("-", "_")
    if len(_keys) < _MAX_KEYS:
        _keys[name] = key
    return key


class ErrorStream:
    """`wsgi.errors`: text that becomes records of the log `multiloop.wsgi`, one for each flush."""

    __slots__ = ("_parts",)

    def __init__(self) -> None:
        self._parts: list[str] = []

    def write(self, text: str, /) -> int:
        """Take text; it is logged at the next flush, or when the request ends."""
        self._parts.append(text)
        return len(text)

    def writelines(self, lines: Iterable[str], /) -> None:
        """Take several texts."""
        self._parts.extend(lines)

    def flush(self) -> None:
        """Log what was written."""
        if self._parts:
            parts, self._parts = self._parts, []
            text = "".join(parts).strip("\n")
            if text:
                first, _, rest = text.partition("\n")
                log.error("%s", first, extra={"detail": rest} if rest else None)


class FileWrapper:
    """`wsgi.file_wrapper`: a file as the body of a reply; a plain file is sent by the kernel."""

    def __init__(self, filelike: Any, block_size: int = 64 * 1024) -> None:
        self.filelike = filelike
        self.block_size = block_size

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        block: bytes = self.filelike.read(self.block_size)
        if not block:
            raise StopIteration
        return block

    def seekable(self) -> bool:
        """Whether the file can be read from elsewhere; frameworks ask before they send a part of it."""
        ask = getattr(self.filelike, "seekable", None)
        return bool(ask()) if ask is not None else hasattr(self.filelike, "seek")

    def seek(self, offset: int, whence: int = 0) -> Any:
        """Go on reading from there."""
        return self.filelike.seek(offset, whence)

    def tell(self) -> Any:
        """Return where the next block is read from."""
        return self.filelike.tell()

    def close(self) -> None:
        """Close the file."""
        close = getattr(self.filelike, "close", None)
        if close is not None:
            close()


def base_environ(service: HttpService, listener: Listener) -> dict[str, Any]:
    """Return what is the same for all requests that come in by one listener."""
    host, port = listener.server or ("localhost", None)
    return {
        "SCRIPT_NAME": listener.root_path,
        "SERVER_NAME": "localhost" if listener.is_unix else host,
        "SERVER_PORT": str(port if port is not None else 443 if listener.is_tls else 80),
        "SERVER_SOFTWARE": f"multiloop/{__version__}" if service.config.server_header else "multiloop",
        "REMOTE_ADDR": "",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "https" if listener.is_tls else "http",
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
        "wsgi.file_wrapper": FileWrapper,
    }


def make_environ(
    exchange: Exchange, base: dict[str, Any], body: Any, errors: ErrorStream, client: tuple[str, int] | None
) -> dict[str, Any]:
    """Return the environ of one request."""
    environ = base.copy()
    path = exchange.path
    query = exchange.query.decode("latin-1")
    target = path.decode("latin-1")
    environ["REQUEST_METHOD"] = exchange.method
    environ["PATH_INFO"] = unquote_to_bytes(path).decode("latin-1") if b"%" in path else target
    environ["QUERY_STRING"] = query
    environ["REQUEST_URI"] = environ["RAW_URI"] = f"{target}?{query}" if query else target
    environ["SERVER_PROTOCOL"] = "HTTP/" + exchange.http_version
    environ["wsgi.input"] = body
    environ["wsgi.errors"] = errors
    if client is not None:
        environ["REMOTE_ADDR"] = client[0]
        environ["REMOTE_PORT"] = str(client[1])
    for name, value in exchange.headers:
        key = _keys.get(name)
        if key is None:
            key = _key(name)
        if not key:
            continue
        text = value.decode("latin-1")
        if key in environ:
            text = f"{environ[key]}{'; ' if key == 'HTTP_COOKIE' else ','}{text}"
        environ[key] = text
    proxies = exchange.connection.service.proxies
    if proxies is not None:
        _apply_proxies(proxies, exchange, environ)
    return environ


def _apply_proxies(proxies: Any, exchange: Exchange, environ: dict[str, Any]) -> None:
    scope: dict[str, Any] = {
        "type": "http",
        "scheme": environ["wsgi.url_scheme"],
        "client": exchange.connection.peer(),
        "headers": exchange.headers,
    }
    proxies.apply(scope)
    environ["wsgi.url_scheme"] = scope["scheme"]
    client = scope["client"]
    if client is not None:
        environ["REMOTE_ADDR"] = client[0]
        environ["REMOTE_PORT"] = str(client[1])
