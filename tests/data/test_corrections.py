"""Labels corrected by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from selftaught.data import open_source
from selftaught.data.corrections import read_corrections
from selftaught.errors import UserError


def _table(path: Path, *rows: tuple[str, str]) -> str:
    lines = ["rank,name,label,corrected", *(f"{i},{name},x,{label}" for i, (name, label) in enumerate(rows))]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def test_corrections_are_taken_by_name_and_nothing_else_moves(tmp_path: Path) -> None:
    plain = open_source("digits?n=50&wrong_labels=0.4", split="train")
    wrong = np.flatnonzero(plain.values["mislabelled"])
    truth = open_source("digits?n=50", split="train").labels
    first, second, other = wrong[0], wrong[1], int(np.flatnonzero(plain.values["mislabelled"] == 0)[0])
    table = _table(
        tmp_path / "c.csv",
        (plain.names[first], plain.classes[truth[first]]),
        (plain.names[second], ""),
        (plain.names[other], "-"),
    )
    found = open_source(f"digits?n=50&wrong_labels=0.4&corrections={table}", split="train")
    kept = np.delete(np.arange(50), other)
    assert found.names == [plain.names[i] for i in kept]
    expected = plain.labels.copy()
    expected[first] = truth[first]
    np.testing.assert_array_equal(found.labels, expected[kept])
    flags = plain.values["mislabelled"].copy()
    flags[first] = 0
    np.testing.assert_array_equal(found.values["mislabelled"], flags[kept])
    place = int(np.flatnonzero(kept == first)[0])
    assert found.sample(place)["label"] == truth[first]
    np.testing.assert_array_equal(found.read(place), plain.read(int(first)))
    assert found.fingerprint() != plain.fingerprint()
    assert "1 label corrected, 1 left out" in found.describe()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("nobody", "3")], "nobody: no sample is called so in digits"),
        ([("NAME", "eleven")], "there is no class eleven"),
        ([("NAME", "3"), ("NAME", "4")], "is corrected to 3 and to 4"),
    ],
)
def test_what_can_not_be_meant_is_said(rows: list[tuple[str, str]], message: str, tmp_path: Path) -> None:
    name = open_source("digits?n=5", split="train").names[0]
    table = _table(tmp_path / "c.csv", *((name if one == "NAME" else one, label) for one, label in rows))
    with pytest.raises(UserError, match=message):
        open_source(f"digits?n=5&corrections={table}", split="train")


def test_a_table_that_was_cut_off_is_refused_and_short_rows_are_not(tmp_path: Path) -> None:
    """Spreadsheets leave out empty cells at the end of a row; a last line without its end is half a table."""
    names = open_source("digits?n=5", split="train").names
    whole = f"name,corrected,note\n{names[0]},3\n{names[1]}\n{names[2]},4,sure\n"
    (tmp_path / "c.csv").write_text(whole)
    assert read_corrections(tmp_path / "c.csv") == {names[0]: "3", names[2]: "4"}
    (tmp_path / "c.csv").write_text(whole[: whole.index(",4")])
    with pytest.raises(UserError, match="its last line is cut off"):
        open_source(f"digits?n=5&corrections={tmp_path / 'c.csv'}", split="train")


def test_a_table_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("name,label\na,b\n")
    with pytest.raises(UserError, match="no column 'corrected'; it needs name and corrected"):
        open_source(f"digits?corrections={tmp_path / 'c.csv'}", split="train")


def test_a_spreadsheet_may_take_the_noughts_off_names(tmp_path: Path) -> None:
    reviews = tmp_path / "r.csv"
    reviews.write_text("text,label\n" + "".join(f"words {i},{'ab'[i % 2]}\n" for i in range(12)))
    table = _table(tmp_path / "c.csv", ("0", "b"), ("11", "a"), ("00003", "-"))
    found = open_source(f"{reviews}?corrections={table}", split="all")
    assert found.names[:4] == ["00000", "00001", "00002", "00004"]
    assert [found.classes[k] for k in found.labels] == list("bba") + list("abababa") + ["a"]
    for rows in ([("12", "a")], [("0", "b"), ("00000", "b")], [("01", "a")]):
        with pytest.raises(UserError, match="no sample is called so"):
            open_source(f"{reviews}?corrections={_table(tmp_path / 'd.csv', *rows)}", split="all")
