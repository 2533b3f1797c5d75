"""Hostile requests as a table: what is sent, and the statuses that may answer it.

Every entry must be answered with one of its statuses and `Connection: close`, the application must not be called for it,
and nothing behind it may be parsed. Classes follow the history of request smuggling and parser faults in HTTP servers.
"""

from __future__ import annotations

from typing import NamedTuple


class Attack(NamedTuple):
    name: str
    sent: bytes
    statuses: tuple[int, ...] = (400,)


def post(fields: str, body: bytes = b"", version: str = "1.1") -> bytes:
    return f"POST / HTTP/{version}\r\nHost: a\r\n{fields}\r\n".encode("latin-1") + body


def get(fields: str = "", target: str = "/", version: str = "1.1", host: str = "Host: a\r\n") -> bytes:
    return f"GET {target} HTTP/{version}\r\n{host}{fields}\r\n".encode("latin-1")


CHUNKED = "Transfer-Encoding: chunked\r\n"
END = b"0\r\n\r\n"


def chunked(body: bytes, fields: str = "") -> bytes:
    return post(CHUNKED + fields, body)


LENGTH_AND_CODING = [
    Attack("length then coding", post("Content-Length: 5\r\n" + CHUNKED, END)),
    Attack("coding then length", post(CHUNKED + "Content-Length: 5\r\n", END)),
    Attack("length and coding in odd case", post("cONTENT-lENGTH: 5\r\ntRANSFER-eNCODING: CHUNKED\r\n", END)),
    Attack("chunked twice in two fields", post(CHUNKED + CHUNKED, END), (400, 501)),
    Attack("chunked twice in one field", post("Transfer-Encoding: chunked, chunked\r\n", END), (400, 501)),
    Attack("chunked then identity", post("Transfer-Encoding: chunked, identity\r\n", END), (400, 501)),
    Attack("identity", post("Transfer-Encoding: identity\r\n", END), (400, 501)),
    Attack("gzip then chunked", post("Transfer-Encoding: gzip, chunked\r\n", END), (400, 501)),
    Attack("xchunked", post("Transfer-Encoding: xchunked\r\n", END), (400, 501)),
    Attack("chunkedx", post("Transfer-Encoding: chunkedx\r\n", END), (400, 501)),
    Attack("comma before chunked", post("Transfer-Encoding: ,chunked\r\n", END), (400, 501)),
    Attack("comma behind chunked", post("Transfer-Encoding: chunked,\r\n", END), (400, 501)),
    Attack("quoted chunked", post('Transfer-Encoding: "chunked"\r\n', END), (400, 501)),
    Attack("empty coding", post("Transfer-Encoding:\r\n", END), (400, 501)),
    Attack("coding in HTTP/1.0", post(CHUNKED, END, version="1.0")),
    Attack("folded coding", post("Transfer-Encoding:\r\n chunked\r\n", END), (400, 501)),
    *(
        Attack(f"{byte!r} {where} chunked", post(f"Transfer-Encoding: {value}\r\n", END), (400, 501))
        for byte in "\x0b\x0c\xa0\x85\x00"
        for where, value in (("before", byte + "chunked"), ("behind", "chunked" + byte))
    ),
]

CONTENT_LENGTH = [
    Attack("two lengths that differ", post("Content-Length: 5\r\nContent-Length: 6\r\n", b"hello!")),
    Attack("two lengths that agree", post("Content-Length: 5\r\nContent-Length: 5\r\n", b"hello")),
    *(
        Attack(f"length {value!r}", post(f"Content-Length: {value}\r\n", b"hello"))
        for value in (
            "5,5",
            "5, 5",
            "+5",
            "-1",
            "0x10",
            "1_0",
            "",
            "1Z",
            "5 5",
            "18446744073709551616",
            "99999999999999999999",
            "\u00b2",
            "5;",
        )
    ),
]

CHUNKS = [
    *(
        Attack(f"chunk size {size!r}", chunked(size + b"\r\nhello\r\n" + END))
        for size in (
            b"0x5",
            b"+5",
            b"-5",
            b"5_0",
            b"",
            b" 5",
            b"5 5",
            b"g",
            b"fffffffffffffffff",
            b"00000000000000005x",
        )
    ),
    Attack("a size line that ends with LF", chunked(b"5\nhello\r\n" + END)),
    Attack("a chunk that ends with LF", chunked(b"5\r\nhello\n" + END)),
    Attack("a chunk that ends with any two bytes", chunked(b"5\r\nhelloXX" + END)),
    Attack("a chunk that ends with CR and any byte", chunked(b"5\r\nhello\rX" + END)),
    Attack("a bare CR in an extension", chunked(b"5;a\rb\r\nhello\r\n" + END)),
    Attack("a bare LF in an extension", chunked(b"5;a\nb\r\nhello\r\n" + END)),
    Attack("a NUL in an extension", chunked(b"5;a\x00b\r\nhello\r\n" + END)),
    Attack("a trailer without a colon", chunked(b"5\r\nhello\r\n0\r\nbad\r\n\r\n")),
    Attack("a trailer with LF only", chunked(b"5\r\nhello\r\n0\r\nX: y\n\r\n")),
    Attack("a body that ends with LF only", chunked(b"5\r\nhello\r\n0\r\n\n")),
]

LINES = [
    Attack("LF line ends", b"GET / HTTP/1.1\nHost: a\n\n"),
    Attack("LF behind the request line", b"GET / HTTP/1.1\nHost: a\r\n\r\n"),
    Attack("LF behind a field", b"GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n"),
    Attack("LF at the end of the head", b"GET / HTTP/1.1\r\nHost: a\r\n\nGET /admin HTTP/1.1\r\nHost: a\r\n\r\n"),
    Attack("a bare CR in a value", get("X: a\rb\r\n")),
    Attack("CR CR LF", get("X: a\r\r\n")),
    Attack("CR and any byte at the end", b"GET / HTTP/1.1\r\nHost: a\r\n\rX"),
    Attack("a folded field", get("X: a\r\n b\r\n")),
    Attack("a folded field with a tab", get("X: a\r\n\tb\r\n")),
    Attack("a space before the first field", b"GET / HTTP/1.1\r\n Host: a\r\n\r\n"),
    Attack("a space before the colon", get("X : y\r\n")),
    Attack("a tab before the colon", get("X\t: y\r\n")),
    Attack("an empty name", get(": y\r\n")),
    Attack("no colon", get("X\r\n")),
    Attack("a space inside a name", get("X Y: z\r\n")),
    *(Attack(f"{byte!r} in a name", get(f"X{byte}Y: z\r\n")) for byte in '\x00\x01\x7f\x80\xff()@[]{}"/'),
    *(Attack(f"{byte!r} in a value", get(f"X: y{byte}z\r\n")) for byte in "\x00\x01\x08\x0b\x1f\x7f"),
]

REQUEST_LINE = [
    Attack("HTTP/1.10", get(version="1.10"), (400, 505)),
    Attack("HTTP/1.2", get(version="1.2"), (505,)),
    Attack("HTTP/9.9", get(version="9.9"), (505,)),
    Attack("HTTP/2.0", get(version="2.0"), (505,)),
    Attack("HTTP/0.9", get(version="0.9"), (505,)),
    Attack("HTTP/1.1 in lower case", b"GET / http/1.1\r\nHost: a\r\n\r\n", (400, 505)),
    Attack("no version", b"GET /\r\n\r\n", (400, 505)),
    Attack("the HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", (400, 505)),
    Attack("a tab in the request line", b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", (400, 501)),
    Attack("a space in the target", b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n"),
    Attack("an unknown method", b"FOO / HTTP/1.1\r\nHost: a\r\n\r\n", (400, 501)),
    Attack("a lower-case method", b"get / HTTP/1.1\r\nHost: a\r\n\r\n", (400, 501)),
    Attack("a TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(40)),
    Attack("binary", bytes(range(128, 200))),
]

HOST_AND_TARGET = [
    Attack("no Host", get(host="")),
    Attack("two Hosts", get(host="Host: a\r\nHost: b\r\n")),
    Attack("two Hosts that agree", get(host="Host: a\r\nHost: a\r\n")),
    Attack("an empty Host", get(host="Host:\r\n")),
    *(
        Attack(f"Host {value!r}", get(host=f"Host: {value}\r\n"))
        for value in (
            "a/b?c#",
            "a/b",
            "a?b",
            "a#b",
            "user@a",
            "a, b",
            "a,b",
            "a b",
            "[::1",
            "a:b",
            "a:80:80",
            "a:123456",
            "a\\b",
            "<a>",
            "a\u00e9",
        )
    ),
    Attack("GET *", get(target="*")),
    Attack("the authority form outside CONNECT", get(target="a:80")),
    Attack("CONNECT", b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", (400, 405, 501)),
    Attack("a path without a slash", get(target="evil")),
    Attack("a path that starts with @", get(target="@evil")),
    Attack("a fragment", get(target="/a#b")),
    Attack("a non-ASCII target", get(target="/\u00e9")),
    Attack("an absolute target with userinfo", get(target="http://user@a/")),
    Attack("an absolute target without a host", get(target="http:///a")),
    Attack("another scheme", get(target="ftp://a/")),
    Attack("an expectation that nobody knows", get("Expect: tea\r\n"), (417,)),
]

ALL = LENGTH_AND_CODING + CONTENT_LENGTH + CHUNKS + LINES + REQUEST_LINE + HOST_AND_TARGET

# Oversize anything: too long to be split at every byte.
OVERSIZE = [
    Attack("20 000 fields", get("X-a: b\r\n" * 20000), (431,)),
    Attack("101 fields", get("X-a: b\r\n" * 101), (431,)),
    Attack("a field of 1 MB", get("X: " + "a" * (1 << 20) + "\r\n"), (431,)),
    Attack("a field of 9 KB", get("X: " + "a" * 9000 + "\r\n"), (431,)),
    Attack("fields of 60 KB in all", get("".join(f"X-{i}: {'a' * 1000}\r\n" for i in range(60))), (431,)),
    Attack("a target of 9 KB", get(target="/" + "a" * 9000), (414,)),
    Attack("a target of 1 MB", get(target="/" + "a" * (1 << 20)), (414, 431)),
    Attack("a method of 1 MB", b"G" * (1 << 20), (400, 501)),
    Attack("a chunk extension of 1 MB", chunked(b"5;a=" + b"b" * (1 << 20) + b"\r\nhello\r\n" + END), (400, 413, 431)),
    Attack("a chunk extension of 20 KB", chunked(b"5;a=" + b"b" * 20000 + b"\r\nhello\r\n" + END), (400, 413, 431)),
    Attack("trailers of 1 MB", chunked(b"5\r\nhello\r\n0\r\n" + b"X-a: b\r\n" * 130000 + b"\r\n"), (400, 431)),
    Attack("one trailer of 1 MB", chunked(b"5\r\nhello\r\n0\r\nX: " + b"b" * (1 << 20) + b"\r\n\r\n"), (400, 431)),
]
