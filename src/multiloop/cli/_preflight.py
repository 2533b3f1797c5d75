"""What can be found out before a worker is started: every mistake that costs nothing to see.

What lives here: `check`. What must not: importing the application (the first worker does, so that a reload finds the
new code in new processes), opening the listening sockets.
"""

from __future__ import annotations

import importlib.util
import os
import sys

from ..cluster import _env_file
from ..cluster._settings import ServeSettings
from ..errors import ConfigError
from ..http._config import TlsConfig
from ..http._target import EXIT_NO_TARGET, AppTarget


def check(settings: ServeSettings) -> None:
    """Raise ConfigError (one line) for a target, folder or file that is not there or cannot be used."""
    _check_target(settings.target)
    for folder in settings.reload_dirs:
        if not os.path.isdir(folder):
            raise ConfigError(f"--reload-dir {folder!r} is not a folder")
    if settings.env_file is not None:
        _env_file.read(settings.env_file)
    if settings.tls is not None:
        _check_tls(settings.tls)
    if settings.http.proxy_headers:
        from ..http._proxy import TrustedProxies

        TrustedProxies(settings.http.proxy_headers)


def _check_target(target: AppTarget) -> None:
    folder = os.path.abspath(target.app_dir)
    if not os.path.isdir(folder):
        raise ConfigError(f"--app-dir {target.app_dir!r} is not a folder")
    module, _, attribute = target.name.partition(":")
    if module.endswith(".py") or "/" in module or os.sep in module:
        place, name = os.path.split(module.removesuffix(".py"))
        where = f" with --app-dir {place}" if place else ""
        raise ConfigError(
            f"target {target.name!r} is a path: write {name}:{attribute or 'app'}{where}", exit_code=EXIT_NO_TARGET
        )
    top = module.partition(".")[0]
    if top and not _is_importable(top, folder):
        raise ConfigError(
            f"no module named {top!r} (target {target.name!r}, looked in {folder} and the Python path)",
            exit_code=EXIT_NO_TARGET,
        )


def _is_importable(top: str, folder: str) -> bool:
    """Whether a top-level module is there. Nothing is imported, also not by finders of editable installs."""
    before = sys.path[:]
    sys.path.insert(0, folder)
    try:
        return top in sys.modules or importlib.util.find_spec(top) is not None
    except (ImportError, ValueError):
        return True  # let the import itself say what is wrong
    finally:
        sys.path[:] = before


def _check_tls(tls: TlsConfig) -> None:
    import ssl

    from ..http._service import make_tls_context

    for option, path in (("--tls-cert", tls.cert), ("--tls-key", tls.key), ("--tls-ca", tls.ca)):
        if path is not None:
            try:
                with open(path, "rb"):
                    pass
            except OSError as error:
                raise ConfigError(f"{option} {path!r} cannot be read: {error.strerror}") from None
    if tls.key_password is None and _is_encrypted(tls.key or tls.cert):
        raise ConfigError(f"--tls-key {tls.key or tls.cert!r} is encrypted: set MULTILOOP_TLS_KEY_PASSWORD")
    try:
        make_tls_context(tls)
    except ssl.SSLError as error:
        reason = (error.reason or str(error)).lower().replace("_", " ")
        raise ConfigError(f"--tls-cert {tls.cert!r} and its key cannot be used: {reason}") from None
    except OSError as error:
        raise ConfigError(f"--tls-cert {tls.cert!r} cannot be used: {error.strerror or error}") from None


def _is_encrypted(path: str) -> bool:
    """Whether OpenSSL would ask for a password, at the terminal."""
    with open(path, "rb") as file:
        text = file.read(1024 * 1024)
    return b"ENCRYPTED" in text
