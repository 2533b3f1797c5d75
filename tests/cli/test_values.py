"""Options: what each kind of value takes, which source wins, and what cannot go together."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from multiloop.cli import _kinds as kinds
from multiloop.cli._options import OPTIONS, TARGET
from multiloop.cli._settings import build, cpu_count
from multiloop.cli._sources import COMMAND_LINE, DEFAULT, DEV, gather
from multiloop.cluster._settings import ListenAddress, ServeSettings
from multiloop.errors import ConfigError
from multiloop.http._config import HttpConfig


def gathered(folder: Path | str = "/", environ: dict[str, str] | None = None, **said: Any) -> ServeSettings:
    arguments = {"target": "main:app", **{name.replace("_", "-"): value for name, value in said.items()}}
    return build(gather(arguments, environ or {}, str(folder)))


def mistake(folder: Path | str = "/", environ: dict[str, str] | None = None, **said: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        gathered(folder, environ, **said)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- kinds --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("said", "value"),
    [
        ("30", 30),
        ("1.5", 1.5),
        ("500ms", 0.5),
        ("30s", 30),
        ("2m", 120),
        ("1h", 3600),
        ("1d", 86400),
        (2, 2),
        (0.5, 0.5),
    ],
)
def test_times(said: Any, value: float) -> None:
    assert kinds.seconds().read(said) == value


@pytest.mark.parametrize("said", ["", "x", "-1", "1e3", "nan", "inf", "30 years", True, None, -1, [1]])
def test_no_times(said: Any) -> None:
    with pytest.raises(ValueError, match="in seconds"):
        kinds.seconds().read(said)


@pytest.mark.parametrize(
    ("said", "value"),
    [("0", 0), ("65536", 65536), ("64KiB", 65536), ("64k", 65536), ("16MB", 16_000_000), ("2 GiB", 2**31), (5, 5)],
)
def test_sizes(said: Any, value: int) -> None:
    assert kinds.size().read(said) == value


@pytest.mark.parametrize("said", ["", "1.5MB", "x", "-1", "64 parsecs", True, 1.5, None])
def test_no_sizes(said: Any) -> None:
    with pytest.raises(ValueError, match="64KiB"):
        kinds.size().read(said)


@pytest.mark.parametrize("said", ["", "-1", "65536", "8000.0", "1_000", "٣", True, 80.0, None])
def test_no_ports(said: Any) -> None:
    with pytest.raises(ValueError, match="from 0 to 65535"):
        kinds.number(0, 65535).read(said)


@pytest.mark.parametrize(("said", "value"), [("1", True), ("Yes", True), ("off", False), (True, True), (False, False)])
def test_flags(said: Any, value: bool) -> None:
    assert kinds.flag.read(said) is value


def test_other_kinds() -> None:
    assert kinds.listing("A").read("a, b,,c") == ("a", "b", "c")
    assert kinds.listing("A").read(["a", "b,c"]) == ("a", "b", "c")
    assert kinds.file_mode.read("660") == 0o660
    assert kinds.workers.read("auto") == "auto"
    assert kinds.workers.read("3") == 3
    assert kinds.share.read("0.25") == 0.25
    for kind, said in [(kinds.file_mode, "999"), (kinds.workers, "all"), (kinds.share, "2"), (kinds.flag, "maybe")]:
        with pytest.raises(ValueError):
            kind.read(said)


@pytest.mark.parametrize("option", [*OPTIONS.values()], ids=lambda option: option.name)
def test_every_default_is_a_value_of_its_kind_and_survives_being_printed(option: Any) -> None:
    import tomllib

    value = option.default_value()
    if value is not None and (option.name, value) != ("name", ""):  # "" is no name: the target is it
        assert option.kind.read(tomllib.loads(f"it = {option.kind.write(value)}")["it"]) == value


# --- sources ------------------------------------------------------------------------------------------------------
def test_the_command_line_comes_before_the_environment_before_config_before_pyproject(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.multiloop]\nport = 1\ngrace = 1\nroot_path = "/p"\nstandby = 1\n')
    config = tmp_path / "c.toml"
    config.write_text("port = 2\ngrace = 2\nroot-path = '/c'\n")
    environ = {"MULTILOOP_PORT": "3", "MULTILOOP_GRACE": "3s", "MULTILOOP_CONFIG": str(config)}
    found = gather({"target": "main:app", "port": "4"}, environ, str(tmp_path))
    assert [
        (found[name].value, found[name].source) for name in ("port", "grace", "root-path", "standby", "backlog")
    ] == [
        (4, COMMAND_LINE),
        (3.0, "MULTILOOP_GRACE"),
        ("/c", str(config)),
        (1, "pyproject.toml"),
        (511, DEFAULT),
    ]


def test_the_target_may_come_from_a_file_and_flags_from_the_environment(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.multiloop]\ntarget = "shop:app"\nhost = ["::1", "127.0.0.1"]\n')
    settings = build(gather({}, {"MULTILOOP_ACCESS_LOG": "on", "MULTILOOP_WS_DEFLATE": "0"}, str(tmp_path)))
    assert settings.target.name == "shop:app"
    assert settings.http.access_log
    assert not settings.http.ws_deflate
    assert [address.host for address in settings.listen] == ["::1", "127.0.0.1"]


def test_an_empty_variable_says_nothing() -> None:
    assert gather({}, {"MULTILOOP_PORT": ""}, "/")["port"].source == DEFAULT
    assert gather({}, {"MULTILOOP_CONTROL": ""}, "/")["control"].value == ""


def test_every_mistake_says_where_it_was_made(tmp_path: Path) -> None:
    assert mistake(port="x").startswith("--port 'x': ")
    assert mistake(environ={"MULTILOOP_PORT": "x"}).startswith("MULTILOOP_PORT 'x': ")
    assert "enableServiceLinks" in mistake(environ={"MULTILOOP_PORT": "tcp://10.0.0.1:80"})
    (tmp_path / "pyproject.toml").write_text("[tool.multiloop]\nport = 'x'\n")
    assert mistake(tmp_path).startswith("pyproject.toml, [tool.multiloop] port 'x': ")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("prot = 1", "'prot' is no option, did you mean 'port'?"),
        ("check = true", "'check' is no option"),
        ("config = 'x'", "'config' is no option"),
        ("keep_alive_timeout = 1\nkeep-alive-timeout = 2", "there twice"),
        ("port = ", "is not TOML"),
        ("port = true", "whole number"),
        ("access-log = 1", "true or false"),
    ],
)
def test_a_wrong_file_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    config = tmp_path / "c.toml"
    config.write_text(text)
    assert said in mistake(config=str(config))


def test_files_that_are_not_there(tmp_path: Path) -> None:
    assert "cannot be read" in mistake(config=str(tmp_path / "none.toml"))
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'multiloop'\n")
    gathered(tmp_path)
    (tmp_path / "pyproject.toml").write_text("[tool]\nmultiloop = 3\n")
    assert "not a table" in mistake(tmp_path)
    (tmp_path / "pyproject.toml").write_text("# multiloop\n[")
    assert mistake(tmp_path).startswith("pyproject.toml is not TOML")


def test_a_password_is_never_shown() -> None:
    assert "\0" not in mistake(tls_cert="c", tls_key_password="geheim\0")
    assert "geheim" not in mistake(tls_cert="c", tls_key_password="geheim\0")


def test_dev_changes_defaults_and_nothing_that_is_given() -> None:
    found = gather({"target": "a:b", "dev": True, "access-log": False}, {}, "/")
    assert (found["reload"].value, found["reload"].source) == (True, DEV)
    assert found["access-log"].value is False
    assert build(found).supervisor.workers == 1


# --- settings -----------------------------------------------------------------------------------------------------
def test_without_options_the_settings_are_the_declared_defaults() -> None:
    settings = gathered()
    assert settings.http == HttpConfig()
    assert settings.listen == (ListenAddress("127.0.0.1", 8000),)
    assert settings.supervisor.workers == cpu_count() >= 1
    assert settings.tls is None


def test_every_option_reaches_its_field() -> None:
    settings = gathered(
        keep_alive_timeout="7", trusted_proxies=("10.0.0.0/8", "unix"), tls_cert="c", tls_key="k", max_rss="1GiB",
        env_file="e", log_file="l", log_format="json", app_dir="d", factory=True, interface="wsgi", uds="s",
        uds_mode="660", workers="3",
    )  # fmt: skip
    assert settings.http.keep_alive_timeout == 7
    assert settings.http.proxy_headers == ("10.0.0.0/8", "unix")
    assert settings.tls is not None
    assert (settings.tls.cert, settings.tls.key) == ("c", "k")
    assert (settings.supervisor.max_rss, settings.supervisor.workers) == (2**30, 3)
    assert (settings.env_file, settings.logs.file, settings.logs.format) == ("e", "l", "json")
    assert (settings.target.app_dir, settings.target.factory, settings.target.interface) == ("d", True, "wsgi")
    assert settings.listen == (ListenAddress(path="s", path_mode=0o660),)


def test_every_field_of_the_settings_has_an_option_or_a_reason() -> None:
    import dataclasses

    from multiloop.cli._options import _OWNERS

    fields = {
        f"{owner}.{field.name}".lstrip(".") for owner, kind in _OWNERS.items() for field in dataclasses.fields(kind)
    }
    made_of_others = {"target", "listen", "supervisor", "http", "tls", "logs", "process"}
    made_of_others |= {"supervisor.workers", "http.log_format"}
    made_of_others |= {f"listen.{name}" for name in ("host", "port", "path", "fd", "fd_name")}
    made_of_others |= {"process.admin", "admin.host", "admin.port"}
    not_for_users = {"supervisor.credit"}
    assert fields - made_of_others - not_for_users == {o.field for o in (TARGET, *OPTIONS.values())} - {""}


def test_addresses_add_up() -> None:
    assert [a.path or a.fd or a.port for a in gathered(uds="a.sock", fd=("5",)).listen] == ["a.sock", 5]
    assert [a.path or a.port for a in gathered(uds="a.sock", port="80").listen] == ["a.sock", 80]
    assert [a.host for a in gathered(host=("a", "b")).listen] == ["a", "b"]


def test_what_systemd_hands_over_is_listened_on_when_no_address_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_FDS", "1")
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    assert gathered().listen == (ListenAddress(fd=3),)
    assert "LISTEN_FDS" not in os.environ
    monkeypatch.setenv("LISTEN_FDS", "1")
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    assert gathered(port="9000").listen == (ListenAddress("127.0.0.1", 9000),)


def test_reload_watches_the_application_s_folder_unless_told_otherwise(tmp_path: Path) -> None:
    assert gathered(reload=True, app_dir=str(tmp_path)).reload_dirs == (str(tmp_path),)
    assert gathered(reload=True, reload_dir=(str(tmp_path), "/usr")).reload_dirs == (str(tmp_path), "/usr")
    assert gathered().reload_dirs == ()


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"workers": "0", "reload": True}, "--reload needs workers"),
        ({"workers": "0", "policy": "shared"}, "--policy needs workers"),
        ({"workers": "0", "max_requests": "5"}, "--max-requests needs workers"),
        ({"uds_mode": "660"}, "--uds-mode is of no use without --uds"),
        ({"tls_key": "k"}, "--tls-key is of no use without --tls-cert"),
        ({"tls_cert": "c", "tls_require_client_cert": True}, "without --tls-ca"),
        ({"reload_dir": ("d",)}, "without --reload"),
        ({"log_config": "c.json", "log_file": "f"}, "--log-config and --log-file"),
        ({"log_config": "c.json", "log_format": "json"}, "--log-config and --log-format"),
        ({"policy": "reuse_port", "uds": "s"}, "--policy reuse_port"),
        ({"standby": "1", "reload": True}, "--standby and --reload"),
        ({"host": (",",)}, "--host"),
        ({"target": None}, "no target"),
    ],
)  # fmt: skip
def test_what_cannot_go_together_is_one_line(said: dict[str, Any], words: str) -> None:
    assert words in mistake(**said)


def test_workers_0_passes_over_what_is_said_for_every_run() -> None:
    assert gathered("/", {"MULTILOOP_POLICY": "shared", "MULTILOOP_RELOAD": "1"}, workers="0").supervisor.workers == 0
    assert "--standby" in mistake("/", {"MULTILOOP_WORKERS": "0"}, standby="1")
    assert "--policy" in mistake("/", {"MULTILOOP_POLICY": "shared"}, workers="0", policy="shared")


def test_workers_0_with_dev_serves_here_without_reloading() -> None:
    settings = gathered(workers="0", dev=True)
    assert not settings.reload
    assert settings.supervisor.workers == 0
