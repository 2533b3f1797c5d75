"""A PostgreSQL server of our own, for as long as a row needs one.

What lives here: finding Debian's binaries, making a cluster in a temporary folder, starting and ending it. What must
not: queries of the applications.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .processes import Missing, free_port, run

_ROWS = 10_000
_TABLE = (
    "CREATE TABLE world (id integer PRIMARY KEY, randomnumber integer NOT NULL);"
    f"INSERT INTO world SELECT i, 1 + (random() * 9999)::integer FROM generate_series(1, {_ROWS}) i;"
    "ANALYZE world;"
)
# No durability: what is measured is the client. The defaults of Debian otherwise.
_SETTINGS = ["fsync=off", "synchronous_commit=off", "full_page_writes=off", "listen_addresses=127.0.0.1"]


def binaries() -> Path:
    """The folder of initdb and postgres. Raises Missing when there is none."""
    on_path = shutil.which("initdb")
    found = [Path(on_path).resolve().parent] if on_path else []
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True)
    for folder in found:
        if all((folder / name).exists() for name in ("initdb", "pg_ctl", "psql")):
            return folder
    raise Missing("no PostgreSQL: apt-get install postgresql")


def _as_somebody() -> list[str]:
    """PostgreSQL refuses to run as root: the words that make it somebody else."""
    if os.geteuid() != 0:
        return []
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            user = pwd.getpwnam(name)
            return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
    raise Missing("PostgreSQL does not run as root, and there is no user postgres or nobody")


@contextlib.contextmanager
def server(core: int) -> Iterator[str]:
    """A running server with the table `world`, on the core of the load; gives its address."""
    folder, somebody = binaries(), _as_somebody()
    home = Path(tempfile.mkdtemp(prefix="bench-postgres-"))
    if somebody:
        owner = int(somebody[1].partition("=")[2])
        os.chown(home, owner, -1)
    data, port = home / "data", free_port()
    settings = " ".join(f"-c {setting}" for setting in (*_SETTINGS, f"port={port}", f"unix_socket_directories={home}"))
    try:
        run([*somebody, folder / "initdb", "-D", data, "-U", "bench", "-A", "trust", "-E", "UTF8"], cwd=home)
        control = [*somebody, folder / "pg_ctl", "-D", data, "-w"]
        run([*control, "-l", home / "log", "-o", settings, "start"], cwd=home, core=core)
        try:
            run(
                [folder / "psql", "-q", "-h", "127.0.0.1", "-p", port, "-U", "bench", "-c", _TABLE, "postgres"],
                cwd=home,
            )
            yield f"postgresql://bench@127.0.0.1:{port}/postgres"
        finally:
            run([*control, "-m", "fast", "stop"], cwd=home)
    finally:
        shutil.rmtree(home, ignore_errors=True)
