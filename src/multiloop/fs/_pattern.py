"""Glob patterns: what they mean, as regular expressions for one part of a path at a time.

What lives here: pure functions: braces expanded, patterns cut into parts, each part translated. What must not: the file
system (`_glob`).

The language: `*` `?` `[a-z]` `[!a-z]` within a part · `**` any number of directories · `{a,b}` `{1..5}` ·
`?(a|b)` `*(a|b)` `+(a|b)` `@(a|b)` `!(a|b)` · a backslash takes the next character as it is. Names that begin with a dot
match only a part that begins with one.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterator
from typing import NamedTuple

_MAGIC = re.compile(r"[*?\[\\]|[@+!]\(")
_RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)(?:\.\.(-?\d+))?\Z|([A-Za-z])\.\.([A-Za-z])\Z")
_CLASSES = {"alpha": "a-zA-Z", "digit": "0-9", "alnum": "a-zA-Z0-9", "upper": "A-Z", "lower": "a-z", "space": r"\s"}


class Part(NamedTuple):
    """One part of a pattern. `globstar`: any number of directories. Else a name to find, or one to match."""

    literal: str | None
    match: re.Pattern[str] | None
    globstar: bool = False
    dot: bool = False

    def matches(self, name: str) -> bool:
        """Whether a name fits."""
        if self.literal is not None:
            return name == self.literal
        if name.startswith(".") and not self.dot:
            return False
        return self.globstar or (self.match is not None and self.match.match(name) is not None)


class Pattern(NamedTuple):
    """A whole pattern, without braces."""

    absolute: bool
    parts: tuple[Part, ...]
    directories_only: bool


@functools.lru_cache(256)
def parse(text: str) -> tuple[Pattern, ...]:
    """Expand the braces of a pattern and translate the rest."""
    return tuple(dict.fromkeys(_parse_one(each) for each in expand_braces(text)))


def _parse_one(text: str) -> Pattern:
    names = [name for name in _split(text) if name != "."]
    directories_only = bool(names) and names[-1] == ""
    parts: list[Part] = []
    for name in names:
        if name == "" or (name == "**" and parts and parts[-1].globstar):
            continue
        parts.append(_part(name))
    return Pattern(text.startswith("/"), tuple(parts), directories_only and bool(parts))


def _split(text: str) -> Iterator[str]:
    # Slashes inside an extended group do not separate.
    depth = start = 0
    for index, character in enumerate(text):
        if character == "(" and index and text[index - 1] in "?*+@!":
            depth += 1
        elif character == ")" and depth:
            depth -= 1
        elif character == "/" and not depth:
            yield text[start:index]
            start = index + 1
    yield text[start:]


def _part(name: str) -> Part:
    if name == "**":
        return Part(None, None, globstar=True)
    if not _MAGIC.search(name):
        return Part(name, None)
    return Part(None, re.compile(f"(?s:{translate(name)})\\Z"), dot=name.startswith((".", "\\.")))


# --- one part ---------------------------------------------------------------------------------------------------------
def translate(text: str) -> str:
    """Translate one part of a pattern into a regular expression."""
    out: list[str] = []
    index = 0
    while index < len(text):
        character = text[index]
        if character in "?*+@!" and text.startswith("(", index + 1) and (end := _closing(text, index + 1)):
            inner = "|".join(translate(each) for each in _alternatives(text[index + 2 : end]))
            rest = translate(text[end + 1 :])
            if character == "!":
                out.append(f"(?!(?:{inner}){rest}\\Z)[^/]*?{rest}")
            else:
                out.append(f"(?:{inner}){'' if character == '@' else character}{rest}")
            return "".join(out)
        if character == "*":
            while text.startswith("*", index + 1):
                index += 1
            out.append("[^/]*")
        elif character == "?":
            out.append("[^/]")
        elif character == "[" and (end := _class_end(text, index)):
            out.append(_class(text[index + 1 : end]))
            index = end
        elif character == "\\" and index + 1 < len(text):
            index += 1
            out.append(re.escape(text[index]))
        else:
            out.append(re.escape(character))
        index += 1
    return "".join(out)


def _closing(text: str, start: int) -> int:
    depth = 0
    for index in range(start, len(text)):
        if text[index] == "(":
            depth += 1
        elif text[index] == ")":
            depth -= 1
            if not depth:
                return index
    return 0


def _alternatives(text: str) -> Iterator[str]:
    depth = start = 0
    for index, character in enumerate(text):
        if character == "(":
            depth += 1
        elif character == ")":
            depth -= 1
        elif character == "|" and not depth:
            yield text[start:index]
            start = index + 1
    yield text[start:]


def _class_end(text: str, start: int) -> int:
    index = start + 1
    if text.startswith(("!", "^"), index):
        index += 1
    index += text.startswith("]", index)  # first, it is a member
    while index < len(text):
        if text.startswith("[:", index) and (end := text.find(":]", index)) > 0:
            index = end + 2
        elif text[index] == "]":
            return index
        else:
            index += 1
    return 0


def _class(members: str) -> str:
    negated = members[0] in "!^"
    out: list[str] = []
    index = int(negated)
    while index < len(members):
        low, following, high = members[index], members[index + 1 : index + 2], members[index + 2 : index + 3]
        if members.startswith("[:", index) and (end := members.find(":]", index)) > 0:
            out.append(_CLASSES.get(members[index + 2 : end], ""))
            index = end + 2
        elif following == "-" and high:
            if low > high:
                return "(?!)"  # a range that ends before it begins has no members
            out.append(f"{re.escape(low)}-{re.escape(high)}")
            index += 3
        else:
            out.append(re.escape(low))
            index += 1
    listed = "".join(out)
    if not listed:  # a class that nobody knows
        return "[^/]" if negated else "(?!)"
    return f"[{'^/' if negated else ''}{listed}]"


# --- braces -----------------------------------------------------------------------------------------------------------
def expand_braces(text: str) -> list[str]:
    """Expand `{a,b}` and `{1..5}`, also nested."""
    found = _first_braces(text)
    if found is None:
        return [text]
    start, end, choices = found
    return [
        text[:start] + middle + rest
        for choice in choices
        for middle in expand_braces(choice)
        for rest in expand_braces(text[end + 1 :])
    ]


def _first_braces(text: str) -> tuple[int, int, list[str]] | None:
    start = text.find("{")
    while start >= 0:
        if not (start and text[start - 1] == "\\"):
            depth = 0
            commas = [start]
            for index in range(start, len(text)):
                if text[index] == "{":
                    depth += 1
                elif text[index] == "," and depth == 1:
                    commas.append(index)
                elif text[index] == "}":
                    depth -= 1
                    if not depth:
                        choices = _choices(text, [*commas, index])
                        if choices is not None:
                            return start, index, choices
                        break
        start = text.find("{", start + 1)
    return None


def _choices(text: str, cuts: list[int]) -> list[str] | None:
    if len(cuts) > 2:
        return [text[left + 1 : right] for left, right in itertools.pairwise(cuts)]
    found = _RANGE.match(text[cuts[0] + 1 : cuts[1]])
    if found is None:
        return None
    if found[4]:
        low, high = ord(found[4]), ord(found[5])
        step = 1 if low <= high else -1
        return [chr(each) for each in range(low, high + step, step)]
    low, high = int(found[1]), int(found[2])
    step = max(1, abs(int(found[3] or 1))) * (1 if low <= high else -1)
    width = max(len(each) if each.lstrip("-").startswith("0") and len(each) > 1 else 0 for each in found.group(1, 2))
    return [f"{each:0{width}}" if width else str(each) for each in range(low, high + (1 if step > 0 else -1), step)]
