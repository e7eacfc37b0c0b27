"""The page about views runs as it stands."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from selftaught import views
from selftaught.views import Recipe, ViewSet

PAGE = (Path(__file__).parents[2] / "docs" / "views.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_the_code_of_the_page_runs() -> None:
    code = blocks("python")
    assert len(code) == 6
    done = subprocess.run([sys.executable, "-c", "\n".join(code)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_files_of_the_page_are_read(tmp_path: Path) -> None:
    found = []
    for place, text in enumerate(blocks("yaml")):
        (tmp_path / f"{place}.yaml").write_text(text)
        found.append(views.load(tmp_path / f"{place}.yaml"))
    assert [type(one) for one in found] == [ViewSet, Recipe]
    assert [one.name for one in found[0]] == ["strong", "weak"]


def test_every_ready_made_view_is_named() -> None:
    from selftaught.views import presets

    for name in presets.__all__:
        assert f"`{name}`" in PAGE
