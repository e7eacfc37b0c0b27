"""The commands of every tutorial run as they stand, on fewer samples and for a few steps."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from selftaught.cli import main
from selftaught.data.embedded import EMBEDDED_NAMES

PAGES = sorted((Path(__file__).parents[1] / "docs" / "tutorials").glob("*.md"))
FEW = 48


def commands(page: Path) -> list[list[str]]:
    blocks = re.findall(r"^```bash\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [shlex.split(line) for line in "".join(blocks).splitlines() if line.strip()]


def shortened(words: list[str]) -> list[str]:
    """The same command on a few samples; training for two steps."""
    found = [f"{word}?n={FEW}" if word in EMBEDDED_NAMES and words[1] != "data" else word for word in words]
    found = [re.sub(r"\?n=\d+", f"?n={FEW}", word) for word in found]
    return found[1:] + (["--steps", "2", "--batch-size", "8", "--workers", "0"] if words[1] == "train" else [])


def test_every_kind_of_data_has_a_page_with_a_figure() -> None:
    assert len(PAGES) >= 7
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert "selftaught train " in text
        figures = re.findall(r"!\[[^\]]+\]\(\.\./(images/[^)]+)\)", text)
        assert figures
        for figure in figures:
            assert (page.parents[1] / figure).is_file(), f"{page.name}: {figure} is missing; see docs/_tutorials.py"


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_commands_of_a_tutorial_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for words in commands(page):
        assert words[0] == "selftaught"
        assert main(shortened(words)) == 0, shlex.join(words)
