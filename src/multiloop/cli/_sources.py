"""Where the options' values come from: the command line, the environment, --config, pyproject.toml, the defaults.

What lives here: `gather` and `gather_apps`, which ask them in this order and remember who said what. What must not: which
options there are (`_options`), what follows from a value (`_settings`).

Every mistake is a ConfigError of one line that begins with where it was made: `--port`, `MULTILOOP_PORT`,
`pyproject.toml, [tool.multiloop] port`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigError
from ._options import OPTIONS, TARGET, Option

COMMAND_LINE = "command line"
DEFAULT = "default"
DEV = "--dev"


@dataclass(frozen=True, slots=True)
class Setting:
    """One value in force, and who gave it."""

    value: Any
    source: str

    @property
    def is_given(self) -> bool:
        """Whether somebody said so (else it is a default, or follows from --dev)."""
        return self.source not in (DEFAULT, DEV)


Settings = Mapping[str, Setting]


@dataclass(frozen=True, slots=True)
class _File:
    label: str  # "pyproject.toml, [tool.multiloop]"
    source: str
    values: Mapping[str, Any]
    apps: tuple[_File, ...] = ()  # its [apps.NAME] tables


def gather(
    arguments: Mapping[str, Any], environ: Mapping[str, str] = os.environ, folder: str = "."
) -> dict[str, Setting]:
    """Find every option's value.

    Args:
        arguments: what the command line said, by option name (and "target"); absent when it said nothing.
        folder: where pyproject.toml is looked for.

    Raises:
        ConfigError: a value is wrong, a file cannot be read, or it has a key that is no option.
    """
    return _gather(arguments, environ, _files(arguments, environ, folder), None)


def look_up(
    names: Iterable[str], arguments: Mapping[str, Any], environ: Mapping[str, str] = os.environ
) -> dict[str, Setting]:
    """Find the values of some options, where files say nothing: of `multiloop run`. Raises as `gather`."""
    found = {}
    for name in names:
        option = OPTIONS[name]
        found[name] = _find(option, arguments, environ, ()) or Setting(option.default_value(), DEFAULT)
    return found


def gather_apps(
    arguments: Mapping[str, Any], environ: Mapping[str, str] = os.environ, folder: str = "."
) -> list[dict[str, Setting]]:
    """Find every option's value for each application: one, or those of the [apps.NAME] tables of the first file that
    has some. What an application's own table says comes first, then what is said for all. Raises as `gather`."""
    files = _files(arguments, environ, folder)
    file = next((file for file in files if file.apps), None)
    if file is None:
        return [_gather(arguments, environ, files, None)]
    if arguments.get(TARGET.name) is not None:
        raise ConfigError(f"TARGET {arguments[TARGET.name]!r} beside the [apps] of {file.source}: leave one out")
    return [_gather(arguments, environ, files, app) for app in file.apps]


def _files(arguments: Mapping[str, Any], environ: Mapping[str, str], folder: str) -> list[_File]:
    files: list[_File] = []
    config = _find(OPTIONS["config"], arguments, environ, ())
    if config is not None:
        files.append(_config_file(config.value))
    if (pyproject := _pyproject(folder)) is not None:
        files.append(pyproject)
    return files


def _gather(
    arguments: Mapping[str, Any], environ: Mapping[str, str], files: list[_File], app: _File | None
) -> dict[str, Setting]:
    found: dict[str, Setting] = {}
    for option in (TARGET, *OPTIONS.values()):
        own = app is not None and option.name in app.values
        setting = _find(option, {}, {}, [app]) if app is not None and own else _find(option, arguments, environ, files)
        if setting is not None:
            found[option.name] = setting
    is_dev = "dev" in found and found["dev"].value
    for option in (TARGET, *OPTIONS.values()):
        if option.name not in found:
            if is_dev and option.has_dev_default:
                found[option.name] = Setting(option.dev_default, DEV)
            else:
                found[option.name] = Setting(option.default_value(), DEFAULT)
    return found


def _find(
    option: Option, arguments: Mapping[str, Any], environ: Mapping[str, str], files: list[_File] | tuple[()]
) -> Setting | None:
    if (said := arguments.get(option.name)) is not None:
        label = option.flag if option is not TARGET else "TARGET"
        return Setting(_read(option, said, label), COMMAND_LINE)
    # An empty variable is no answer (compose files set such), except where empty text means something.
    if (said := environ.get(option.variable)) is not None and (said or option.name == "control"):
        return Setting(_read(option, said, option.variable), option.variable)
    for file in files:
        if option.name in file.values:
            return Setting(_read(option, file.values[option.name], f"{file.label} {option.name}"), file.source)
    return None


def _read(option: Option, said: Any, label: str) -> Any:
    try:
        return option.kind.read(said)
    except ValueError as error:
        if isinstance(said, str) and said.startswith("tcp://") and label == option.variable:
            hint = "; Kubernetes sets it for a service named multiloop: enableServiceLinks: false"
        else:
            hint = ""
        shown = "..." if option.is_secret else repr(said)
        raise ConfigError(f"{label} {shown}: {error}{hint}") from None


# --- files --------------------------------------------------------------------------------------------------------
def _config_file(path: str) -> _File:
    try:
        table = _load(path)
    except OSError as error:
        raise ConfigError(f"--config {path!r} cannot be read: {error.strerror}") from None
    return _table(table, f"{path},", path, "apps")


def _pyproject(folder: str) -> _File | None:
    path = os.path.join(folder, "pyproject.toml")
    try:
        with open(path, encoding="utf-8") as file:
            if "multiloop" not in file.read():
                return None
        table = _load(path, "pyproject.toml").get("tool", {}).get("multiloop")
    except (OSError, UnicodeDecodeError, AttributeError):
        return None
    if table is None:
        return None
    if not isinstance(table, dict):
        raise ConfigError("pyproject.toml: [tool.multiloop] is not a table")
    return _table(table, "pyproject.toml, [tool.multiloop]", "pyproject.toml", "tool.multiloop.apps")


def _load(path: str, label: str = "") -> dict[str, Any]:
    import tomllib

    with open(path, "rb") as file:
        try:
            return tomllib.load(file)
        except ValueError as error:  # also of what is not UTF-8, and of numbers with thousands of digits
            raise ConfigError(f"{label or path} is not TOML: {error}") from None
        except RecursionError:
            raise ConfigError(f"{label or path} is not TOML that can be read: it is nested too deeply") from None


def _table(table: dict[str, Any], label: str, source: str, key: str) -> _File:
    """A file's table: options for all, and a table for each of several applications."""
    apps = table.pop("apps", {})
    if not isinstance(apps, dict) or not all(isinstance(app, dict) for app in apps.values()):
        raise ConfigError(f"{source}: [{key}] holds one table for each application: [{key}.NAME]")
    values = _keys(table, label.rstrip(","))
    if apps and TARGET.name in values:
        raise ConfigError(f"{source}: a target beside [{key}]: put it into the table of an application")
    return _File(label, source, values, tuple(_app(name, app, source, key) for name, app in apps.items()))


def _app(name: str, table: Mapping[str, Any], source: str, key: str) -> _File:
    label = f"{source}, [{key}.{name}]"
    values = {"name": name, **_keys(table, label)}
    whole = next((option.name for option in OPTIONS.values() if option.whole and option.name in values), None)
    if whole is not None:
        raise ConfigError(f"{label} {whole}: it holds for the whole server, say it outside of [{key}]")
    if TARGET.name not in values:
        raise ConfigError(f'{label}: no target, as in target = "main:app"')
    return _File(label, source, values)


def _keys(table: Mapping[str, Any], label: str) -> dict[str, Any]:
    known = {option.name for option in OPTIONS.values() if option.in_files} | {TARGET.name}
    found: dict[str, Any] = {}
    for key, value in table.items():
        name = key.replace("_", "-")
        if name not in known:
            import difflib  # only for a mistake: every start would wait for it

            near = difflib.get_close_matches(name, known, 1)
            hint = f", did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"{label}: {key!r} is no option{hint}")
        if name in found:
            raise ConfigError(f"{label}: {name!r} is there twice")
        found[name] = value
    return found
