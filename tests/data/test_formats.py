"""The registry of formats: a new one is found by being listed, and what it says is enough to open its files."""

from __future__ import annotations

import inspect
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from selftaught.data import KINDS, open_source, opening
from selftaught.data.formats import ANY, FORMATS, Format
from selftaught.data.source import Source
from selftaught.errors import UserError

BUILDERS = ("file", "files", "folder", "pattern", "address", "arrays")


def test_every_format_can_open_something_and_says_of_which_kind() -> None:
    assert list(FORMATS) == sorted(FORMATS, key=lambda f: f.rank)
    for found in FORMATS:
        assert found.kind == ANY or found.kind in KINDS
        assert any(getattr(found, slot) for slot in BUILDERS)
        assert bool(found.scheme) == bool(found.address)
        for slot in BUILDERS:
            if getattr(found, slot) is not None:
                kinds = [p.kind for p in inspect.signature(getattr(found, slot)).parameters.values()]
                assert inspect.Parameter.POSITIONAL_OR_KEYWORD in kinds
    unasked = [f for f in FORMATS if f.file and f.reads is None]  # the others look into a file first
    files = Counter((f.kind, suffix) for f in unasked for suffix in f.suffixes)
    assert max(files.values()) == 1


class Dots(Source):
    modality = "points"

    def __init__(self, paths: list[Path], name: str, scale: float) -> None:
        self.paths, self.name, self.scale, self.channels = paths, name, scale, 3
        self.names = [path.name for path in paths]

    def read(self, i: int, min_side: int | None = None) -> np.ndarray:
        return np.loadtxt(self.paths[i], dtype=np.float32, ndmin=2) * np.float32(self.scale)


def open_dots(path: Path, name: str, *, scale: float = 1.0) -> Dots:
    return Dots([path], name, scale)


def open_dot_folder(folder: Path, name: str, *, scale: float = 1.0) -> Dots:
    return Dots(sorted(folder.glob("*.dots")), name, scale)


def test_a_new_format_needs_no_other_edit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.dots", "b.dots"):
        (tmp_path / name).write_text("1 2 3\n4 5 6\n")
    with pytest.raises(UserError, match="can't tell what this file holds"):
        open_source(tmp_path / "a.dots")
    dots = Format("points", 5, (".dots",), file=open_dots, folder=open_dot_folder, scheme="dots", address=_address)
    monkeypatch.setattr(opening, "FORMATS", (*FORMATS, dots))
    one = open_source(f"{tmp_path / 'a.dots'}?scale=2", split="all")
    assert one.describe() == "a.dots: 1 point cloud, 3 channels"
    np.testing.assert_array_equal(one.read(0), [[2, 4, 6], [8, 10, 12]])
    assert len(open_source(tmp_path, split="all")) == 2
    assert open_source(f"dots:{tmp_path / 'b.dots'}", split="all").names == ["b.dots"]
    with pytest.raises(UserError, match="holds points samples, not image"):
        open_source(tmp_path / "a.dots", modality="image")
    with pytest.raises(UserError, match=r"no option 'scales' \(did you mean scale"):
        open_source(tmp_path, scales=3)


def _address(address: str, *, scale: float = 1.0) -> Dots:
    return open_dots(Path(address), address, scale=scale)


def test_kinds_without_a_format_are_refused_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no folder holds cameras that can be read"):
        open_source(tmp_path, modality="camera")
    with pytest.raises(UserError, match="no kind of data 'picture'"):
        open_source(tmp_path, modality="picture")
