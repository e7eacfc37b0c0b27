"""Small files that are read whole: what is none is an error that callers know, whatever it is; lists of names."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from selftaught._reading import json_of, kept_json, name_lines, names_of, text_of, yaml_text
from selftaught._words import one_line
from selftaught.data import open_source
from selftaught.errors import UserError
from tests.conftest import write_photos


def test_pipes_and_devices_are_no_files_and_are_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "endless").symlink_to("/dev/zero")
    (tmp_path / "loop").symlink_to("loop")
    for name in ("pipe", "endless", "loop", "none"):
        for read in (text_of, json_of, names_of):
            with pytest.raises(OSError, match=r"pipe or a device|symbolic links|No such file"):
                read(tmp_path / name)
        assert kept_json(tmp_path / name) == {}


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "9" * 5000, "{", "", "\udcff"])
def test_what_is_no_json_is_a_value_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_bytes(os.fsencode(text))
    with pytest.raises(ValueError, match=r"."):
        json_of(tmp_path / "x.json")
    assert kept_json(tmp_path / "x.json") == {}


@pytest.mark.parametrize("text", ["[" * 800, "a: 2020-99-99", "!!python/object:os.system x"])
def test_what_is_no_yaml_is_a_yaml_error(text: str) -> None:
    with pytest.raises(yaml.YAMLError):
        yaml_text(text)


NAMES = [
    "plain.png", "new\nline.png", "a return\r.png", " blank", "blank ", '"quoted"', "café.png", "caf\udce9.png", "",
    "\x85nel", "a\u2028line", "=cmd", "-", "# 3 names", "#x",
]  # fmt: skip


def test_a_list_of_names_is_read_as_it_was_written(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_bytes(os.fsencode(name_lines(NAMES)))
    assert names_of(tmp_path / "names.txt") == NAMES
    lines = name_lines(NAMES).splitlines(keepends=True)
    for cut in ("".join(lines[:5]), "".join(lines[:1]), "".join([*lines, "one more"])):
        (tmp_path / "names.txt").write_bytes(os.fsencode(cut))
        with pytest.raises(ValueError, match="holds"):
            names_of(tmp_path / "names.txt")
    (tmp_path / "typed.txt").write_bytes(b'\xef\xbb\xbf a.png \r\n\r\n"b.png\n c d.png')
    assert names_of(tmp_path / "typed.txt") == ["a.png", '"b.png', "c d.png"]


def test_a_list_that_may_be_cut_off_is_told_from_one_that_is_not(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("7\n1")
    with pytest.raises(ValueError, match="cut off"):
        names_of(tmp_path / "names.txt", ["1", "7", "12"])
    assert names_of(tmp_path / "names.txt", ["1", "7"]) == ["7", "1"]
    (tmp_path / "names.txt").write_text("7\n1\n")
    assert names_of(tmp_path / "names.txt", ["1", "7", "12"]) == ["7", "1"]


@pytest.mark.parametrize("option", ["only=", "by=list:"])
def test_any_name_can_be_named_in_a_list(tmp_path: Path, option: str) -> None:
    folder = write_photos(tmp_path / "photos", count=6, side=16, classes=1)
    photos = sorted(folder.rglob("*.*"))
    odd = [b"new\nline.png", b"caf\xe9.png", b" blank.png"]
    for photo, name in zip(photos, odd, strict=False):
        os.rename(photo, os.path.join(os.fsencode(photo.parent), name))
    names = [name for name in open_source(folder, split="all").names if not name.rpartition("/")[2].startswith("0")]
    assert len(names) == 3
    (tmp_path / "list.txt").write_bytes(os.fsencode(name_lines(names)))
    found = open_source(f"{folder}?{option}{tmp_path / 'list.txt'}", split="all" if option == "only=" else "test")
    assert sorted(found.names) == sorted(names)
    (tmp_path / "list.txt").unlink()
    os.mkfifo(tmp_path / "list.txt")
    with pytest.raises(UserError, match=r"text file|a pipe"):
        open_source(f"{folder}?{option}{tmp_path / 'list.txt'}", split="test")


def test_a_message_is_one_line_of_a_bounded_length() -> None:
    assert one_line("a\nb\rc") == "a\\nb\\rc"
    assert len(one_line("x" * 100_000)) < 1100
