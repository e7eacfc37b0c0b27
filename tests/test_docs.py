"""Code in the README and the pages runs as it stands: blocks of Python, one page's in one process."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from skimage import data, io

from selftaught import catalog, cli

ROOT = Path(__file__).parents[1]


def blocks(page: str, language: str = "python") -> list[str]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def run(code: str, folder: Path) -> str:
    env = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


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
            assert cli._parse_train(slug, words[1:])["data"]
        else:
            cli._parser().parse_args(command.split()[1:])
    for slug in re.findall(r"\]\(methods/([a-z0-9-]+)\.md\)", page):
        assert catalog.card(slug).built
