"""`glob`: the paths that fit patterns.

What lives here: the search, a generator that asks and is answered (`_search`), and the two who answer: one call on a
thread or, when the user's own `exclude` has to be asked, the loop with a call for each directory. What must not: what
patterns mean (`_pattern`).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Generator, Iterable
from typing import Any, Literal, NamedTuple

from ..loop import ErrorFirst, Operation, call, launch
from ._calls import check_wanted
from ._dir import Dirent, scandir_blocking
from ._paths import Path, nul_in, text_of
from ._pattern import Part, Pattern, parse

Exclude = Callable[[Any], bool] | Iterable[str] | str
LeftOut = Callable[[str, Dirent], bool]
State = tuple[Pattern, int]  # a pattern, and which of its parts is to be found next


def glob(
    pattern: str | Iterable[str],
    *,
    cwd: Path | None = None,
    exclude: Exclude = (),
    with_file_types: bool = False,
    callback: ErrorFirst | None = None,
) -> Operation[list[Any]]:
    """Find what fits a pattern or one of several: `await fs.glob("**/*.py")`, or `async for path in fs.glob(...)`.

    `*` `?` `[a-z]` within a name, `**` for any number of directories (links to directories are not entered), `{a,b}`,
    `?(a|b)` `*(..)` `+(..)` `@(..)` `!(..)`. A name that begins with a dot only fits a part that begins with one; "dir/"
    fits directories only. Each path comes once; a directory that cannot be read counts as empty.

    Args:
        cwd: where relative patterns begin, and what the results are relative to (the working folder).
        exclude: patterns, or a function of the path (of the `Dirent`, `with_file_types`) that says True for what to leave
            out, with all that is in it. It is called on the loop.
        with_file_types: give `Dirent`s in place of paths.
    """
    texts = [pattern] if isinstance(pattern, str) else list(pattern)
    top = text_of(cwd) if cwd is not None else "."
    if callable(exclude):
        return launch(_find_asking(texts, top, exclude, with_file_types), callback)  # type: ignore[no-any-return]
    unwanted = [exclude] if isinstance(exclude, str) else list(exclude)
    return call(callback, _find, (texts, top, unwanted, with_file_types))  # type: ignore[no-any-return]


def parse_all(texts: Iterable[str]) -> list[Pattern]:
    """Parse patterns. Raises InvalidPath for a NUL in one."""
    if (problem := nul_in(*texts)) is not None:
        raise problem
    return [each for text in texts for each in parse(text) if each.parts]


# --- who answers ------------------------------------------------------------------------------------------------------
class Question(NamedTuple):
    """What the search asks: the entries of a directory, one entry, or whether a link leads to a directory."""

    kind: Literal["list", "look", "is_directory"]
    path: str


def _find(texts: list[str], top: str, exclude: list[str], with_file_types: bool) -> list[Any]:
    unwanted = parse_all(exclude)

    def left_out(path: str, entry: Dirent) -> bool:
        return any(fits(each, path) for each in unwanted)

    search = _search(parse_all(texts), left_out)
    answer: Any = None
    try:
        while True:
            check_wanted()
            answer = _answer(search.send(answer), top)
    except StopIteration as end:
        return _results(end.value, with_file_types)


async def _find_asking(texts: list[str], top: str, exclude: Callable[[Any], bool], with_file_types: bool) -> list[Any]:
    def left_out(path: str, entry: Dirent) -> bool:
        return bool(exclude(entry if with_file_types else path))

    search = _search(parse_all(texts), left_out)
    answer: Any = None
    while True:
        try:
            question = search.send(answer)
        except StopIteration as end:
            return _results(end.value, with_file_types)
        answer = await call(None, _answer, (question, top))


def _results(found: dict[str, Dirent], with_file_types: bool) -> list[Any]:
    return list(found.values()) if with_file_types else list(found)


def _answer(question: Question, top: str) -> Any:
    path = os.path.join(top, question.path)  # an absolute one stays as it is
    try:
        if question.kind == "list":
            return scandir_blocking(path, False)
        if question.kind == "look":
            mode = os.lstat(path).st_mode
            return Dirent(os.path.basename(path), os.path.dirname(path), stat.S_IFMT(mode))
        return os.path.isdir(path)
    except OSError:
        return [] if question.kind == "list" else None


def fits(pattern: Pattern, path: str) -> bool:
    """Whether a whole path fits a pattern."""
    return _fits(pattern.parts, path.strip("/").split("/"))


def _fits(parts: tuple[Part, ...], names: list[str]) -> bool:
    if not parts:
        return not names
    if parts[0].globstar:
        return _fits(parts[1:], names) or (bool(names) and parts[0].matches(names[0]) and _fits(parts, names[1:]))
    return bool(names) and parts[0].matches(names[0]) and _fits(parts[1:], names[1:])


# --- the search -------------------------------------------------------------------------------------------------------
def _search(patterns: Iterable[Pattern], left_out: LeftOut) -> Generator[Question, Any, dict[str, Dirent]]:
    """Walk for all patterns at once; each directory is listed once. Returns what was found, by path."""
    found: dict[str, Dirent] = {}
    beginnings = {prefix: [(each, 0) for each in patterns if each.absolute == bool(prefix)] for prefix in ("/", "")}
    waiting = [(prefix, states) for prefix, states in beginnings.items() if states]
    while waiting:
        directory, states = waiting.pop()
        here = _with_empty_globstars(states)
        below: list[tuple[str, list[State]]] = []
        for entry in (yield from _candidates(directory, here)):
            path = directory + entry.name
            after = [state for each in here for state in _after(each, entry)]
            if not after or left_out(path, entry):
                continue
            ended = [each for each, index in after if _is_over(each, index)]
            if ended and path not in found and (yield from _is_kind(ended, path, entry)):
                found[path] = entry
            further = [(each, index) for each, index in after if index < len(each.parts)]
            if further and (entry.is_directory() or entry.is_symbolic_link()):
                below.append((f"{path}/", further))
        waiting += reversed(below)
    return found


def _candidates(directory: str, states: list[State]) -> Generator[Question, Any, list[Dirent]]:
    literals = [each.parts[index].literal for each, index in states]
    if None in literals:
        entries: list[Dirent] = yield Question("list", directory)
        known = {entry.name for entry in entries}
    else:
        entries, known = [], set()  # names that are known need no list: the directory need not be readable
    for name in dict.fromkeys(literals):
        if name is not None and name not in known:
            entry = yield Question("look", directory + name)
            if entry is not None:
                entry.name = name  # ".." has another one on the disk
                entries.append(entry)
    return entries


def _with_empty_globstars(states: list[State]) -> list[State]:
    reached = dict.fromkeys(states)
    for each, index in states:
        while index < len(each.parts) - 1 and each.parts[index].globstar:
            index += 1
            reached[each, index] = None
    return list(reached)


def _after(state: State, entry: Dirent) -> list[State]:
    """Where a pattern stands once this entry is taken for the part that is next."""
    each, index = state
    part = each.parts[index]
    if not part.matches(entry.name):
        return []
    if not part.globstar:
        return [(each, index + 1)]
    if index == len(each.parts) - 1:
        return [(each, index + 1), (each, index)] if entry.is_directory() else [(each, index + 1)]
    return [(each, index)] if entry.is_directory() else []


def _is_over(pattern: Pattern, index: int) -> bool:
    # A globstar at the end may stand for nothing: "a/**" fits "a", too.
    return index == len(pattern.parts) or (index == len(pattern.parts) - 1 > 0 and pattern.parts[index].globstar)


def _is_kind(ended: list[Pattern], path: str, entry: Dirent) -> Generator[Question, Any, bool]:
    if entry.is_directory() or not all(each.directories_only for each in ended):
        return True
    return entry.is_symbolic_link() and bool((yield Question("is_directory", path)))
