"""Names to write under before a file is put in its place."""

from __future__ import annotations

import json
import os
from pathlib import Path

from selftaught._paths import part_of
from selftaught.report.page import save
from selftaught.run.layout import write_json


def test_what_a_killed_process_left_is_taken_away_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "report.html"
    mine = part_of(target)
    mine.write_text("half")
    dead = os.fork()
    if dead == 0:
        os._exit(0)
    os.waitpid(dead, 0)
    left = Path(str(mine).replace(f"-{os.getpid()}-", f"-{dead}-"))
    others = [tmp_path / f".report.html.elsewhere-{dead}-1.part", Path(str(left).replace("report", "reports"))]
    for path in (left, *others):
        path.write_text("half")
    assert part_of(target) == mine
    assert not left.exists()
    assert all(path.exists() for path in (mine, *others))


def test_a_report_leaves_nothing_of_a_killed_one(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        part_of(tmp_path / "report.html").write_text("half")
        os._exit(0)
    os.waitpid(child, 0)
    assert len(list(tmp_path.iterdir())) == 1
    save(tmp_path, "<p>whole</p>")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_two_processes_that_write_one_file_leave_it_whole(tmp_path: Path) -> None:
    """Each writes sixty times; whoever is last, the file is one of theirs, and neither meets the other's part."""
    target, children = tmp_path / "evaluation.json", []
    for value in range(2):
        child = os.fork()
        if child == 0:
            try:
                for _ in range(60):
                    write_json(target, [value] * 5000)
            except BaseException:
                os._exit(1)
            os._exit(0)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    found = json.loads(target.read_text())
    assert found in ([0] * 5000, [1] * 5000)
    assert [path.name for path in tmp_path.iterdir()] == ["evaluation.json"]
