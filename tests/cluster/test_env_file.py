"""The file of --env-file: what a line may be, and that the environment has the last word."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from multiloop.cluster import _env_file
from multiloop.errors import ConfigError


def read(folder: Path, text: str) -> dict[str, str]:
    (folder / ".env").write_text(text)
    return _env_file.read(str(folder / ".env"))


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A=1", "1"),
        ("  export A = 1  ", "1"),
        ("A=", ""),
        ("A= # nothing", ""),
        ("A=#fff", "#fff"),
        ("A=two words # and a comment", "two words"),
        ("A=a#b", "a#b"),
        ("A='$HOME \\n # kept'", "$HOME \\n # kept"),
        ('A="a\\n\\"b\\" \\\\ # kept" # comment', 'a\n"b" \\ # kept'),
        ("A=postgres://u:p@h/db?x=1&y=2", "postgres://u:p@h/db?x=1&y=2"),
    ],
)
def test_an_assignment(tmp_path: Path, line: str, value: str) -> None:
    assert read(tmp_path, f"# comment\n\n{line}\r\n") == {"A": value}


@pytest.mark.parametrize("line", ["A", "1A=2", "A='open", 'A="open', "A='a' b", "= 1", "A B=1"])
def test_what_is_no_assignment_names_its_line(tmp_path: Path, line: str) -> None:
    with pytest.raises(ConfigError, match="line 2: write NAME=value"):
        read(tmp_path, f"OK=1\n{line}\n")


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        _env_file.read(str(tmp_path / "none"))
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8"):
        _env_file.read(str(tmp_path / "binary"))


def test_what_is_set_already_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SET_BEFORE", "mine")
    monkeypatch.delenv("SET_BY_FILE", raising=False)
    (tmp_path / ".env").write_text("SET_BEFORE=file\nSET_BY_FILE=file\n")
    _env_file.apply(str(tmp_path / ".env"))
    assert (os.environ["SET_BEFORE"], os.environ["SET_BY_FILE"]) == ("mine", "file")
    monkeypatch.delenv("SET_BY_FILE")
