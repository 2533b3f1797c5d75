"""TLS contexts, for both sides.

What lives here: `create_secure_context`, and the client's default. What must not: connections.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence

from ..errors import UsageError
from ..loop import offload

_default_client: ssl.SSLContext | None = None


def create_secure_context(
    *,
    server: bool = False,
    cert: str | None = None,
    key: str | None = None,
    key_password: str | None = None,
    ca: str | None = None,
    require_client_cert: bool = False,
    ciphers: str | None = None,
    alpn_protocols: Sequence[str] = (),
) -> ssl.SSLContext:
    """Return a TLS context from PEM files (read here and now: call it at start-up).

    Args:
        server: for `create_server`; else for `connect`, which checks the server's certificate and name.
        cert, key: our certificate chain and its key (may be in the same file).
        ca: who signs the other side's certificates; for clients the default is the system's store.
        require_client_cert: servers only: refuse clients without a certificate signed by `ca`.

    Raises:
        OSError: a file cannot be read (its name is in the error), or is no PEM (ssl.SSLError).
        UsageError: the options do not fit together.
    """
    if server and cert is None:
        raise UsageError("create_secure_context(server=True): a server needs cert=")
    if require_client_cert and (not server or ca is None):
        raise UsageError(
            "create_secure_context(require_client_cert=True): for servers, with ca= that signs the clients"
        )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH if server else ssl.Purpose.SERVER_AUTH, cafile=ca)
    if cert is not None:
        context.load_cert_chain(cert, key, key_password)
    if require_client_cert:
        context.verify_mode = ssl.CERT_REQUIRED
    if ciphers is not None:
        context.set_ciphers(ciphers)
    if alpn_protocols:
        context.set_alpn_protocols(list(alpn_protocols))
    return context


async def client_context(tls: bool | ssl.SSLContext) -> ssl.SSLContext:
    """Return the context that `connect(tls=...)` means; the default one is made once, off the loop (it reads files)."""
    global _default_client
    if isinstance(tls, ssl.SSLContext):
        return tls
    if _default_client is None:
        _default_client = await offload(create_secure_context)
    return _default_client
