"""Code in the README and the pages runs as it stands: blocks of Python, one page's in one process."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import numpy as np
import pytest
from skimage import data, io

from selftaught import catalog
from selftaught.cli._main import _parser
from selftaught.cli.commands.train import parse_train
from tests.forked import run

ROOT = Path(__file__).parents[1]


def blocks(page: str, language: str = "python") -> list[str]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with ``photos/`` in it: 32 small pictures."""
    (tmp_path / "photos").mkdir()
    picture = data.astronaut()
    for k in range(32):
        y, x = 60 * (k // 8), 56 * (k % 8)
        io.imsave(tmp_path / "photos" / f"{k:02d}.png", picture[y : y + 64, x : x + 64].astype(np.uint8))
    return tmp_path


def test_the_readme_s_third_level_runs(tmp_path: Path) -> None:
    (third,) = (code for code in blocks("README.md") if "objectives" in code)
    assert run(third + "print(bool(torch.isfinite(loss)), x1.shape)", tmp_path).startswith("True torch.Size([3, 3, 96")


@pytest.mark.slow
def test_the_readme_s_second_level_runs(photos: Path) -> None:
    (second,) = (code for code in blocks("README.md") if "DataModule" in code)
    assert "max_epochs=10" in second
    code = second.replace("max_epochs=10", "max_epochs=2")
    assert run(code + "print(method.steps)", photos).strip().endswith("2")


@pytest.mark.slow
def test_the_readme_s_first_level_runs(photos: Path) -> None:
    (first,) = (code for code in blocks("README.md") if "selftaught.train" in code)
    few = 'data="photos/", epochs=2, batch_size=32'
    assert 'data="photos/", epochs=100' in first
    assert "diagnostics" in run(first.replace('data="photos/", epochs=100', few), photos)


def test_commands_of_the_readme_and_the_choice_are_of_systems_that_are_ready() -> None:
    page = (ROOT / "README.md").read_text() + (ROOT / "docs" / "choose.md").read_text()
    rows = re.findall(r"^\| [^|]+ \| `([a-z-]+)` \| `(selftaught [^`]+)` \|$", page, re.MULTILINE)
    assert len(rows) == 6
    for slug, command in rows:
        assert catalog.card(slug).built
        if command.startswith("selftaught train "):
            words = command.split()[2:]
            assert words[0] == slug
            assert parse_train(slug, words[1:])["data"]
        else:
            assert _parser().parse_args(command.split()[1:]).call
    for slug in re.findall(r"\]\(methods/([a-z0-9-]+)\.md\)", page):
        assert catalog.card(slug).built


def test_the_readme_is_short_and_counts_what_the_catalogue_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    from _generate import with_generated

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert with_generated(text) == text, "write it anew: python docs/_generate.py README.md"
    assert len(text.splitlines()) <= 160
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (ROOT / target).exists(), target


def functions(code: str) -> dict[str, str]:
    """Every function by name, its statements without the docstring."""
    found = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.FunctionDef)]
    bodies = {f.name: f.body[1:] if ast.get_docstring(f) else f.body for f in found}
    return {name: "\n".join(map(ast.unparse, body)) for name, body in bodies.items()}


def test_the_guide_shows_the_example_as_it_is() -> None:
    example = functions((ROOT / "docs/example/methods/retouch.py").read_text())
    shown: dict[str, str] = {}
    for code in blocks("docs/add-a-method.md"):
        if "class " not in code:
            shown |= functions(code)
    assert set(shown) == {"recipe", "optimisers", "step"}
    for name, body in shown.items():
        assert body == example[name]
    card = (ROOT / "docs/example/cards/retouch.toml").read_text().replace('"', "")
    (command,) = re.findall(r'^`command = "([^`]+)"`\.$', (ROOT / "docs/add-a-method.md").read_text(), re.MULTILINE)
    assert f"command = {command}" in card


@pytest.mark.slow
def test_the_page_of_several_optimisers_runs(tmp_path: Path) -> None:
    code = blocks("docs/several-optimisers.md")
    assert len(code) == 2
    assert run("\n".join([*code, "print(method.steps, method.stage)"]), tmp_path).strip().endswith("5 critic")


@pytest.mark.slow
def test_the_page_of_own_code_runs(photos: Path) -> None:
    code = blocks("docs/own-code.md")
    assert len(code) == 9
    run("\n".join(code), photos)


def test_the_counts_of_robustness_are_a_table_that_hides_no_failure(tmp_path: Path, monkeypatch) -> None:
    import json

    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    from _generate import ROBUSTNESS, robustness_tables

    rows = [
        {"what": "a|b", "tried": 5, "survived": 4, "date": "2026-01-01", "failures": ["moment 2: other weights"]},
        {"what": "c", "tried": 7, "survived": 7, "date": "2026-01-02"},
    ]
    (tmp_path / "kills.json").write_text(json.dumps({"about": "Kills.", "rows": rows}))
    found = robustness_tables(tmp_path)
    assert "| a\\|b | 5 | 4 | 2026-01-01 |" in found
    assert "| **all** | **12** | **11** | |" in found
    assert "- `moment 2: other weights`" in found
    for stored in ROBUSTNESS.glob("*.json"):
        for row in json.loads(stored.read_text())["rows"]:
            assert row["tried"] - row["survived"] == 0 or row["failures"], (stored.name, row["what"])
