"""A system with two optimisers and paired fields is added by new files only: the example of the documentation."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from skimage import data, io

from tests.forked import run

ROOT = Path(__file__).parents[1]

SCRIPT = """
import json, sys
import numpy as np, torch
from pathlib import Path
from skimage import io
import selftaught
from selftaught import catalog, cli, methods, objectives
from selftaught.claims import claim_of

assert Path(selftaught.__file__).is_relative_to(Path.cwd()), selftaught.__file__
assert catalog.card("retouch").state == "ready" and "retouch" in methods.built() and claim_of("retouch").arms
logits = torch.zeros(4)
assert abs(float(objectives.retouch_critic(logits, logits)) - 2 * np.log(2)) < 1e-6
spec = "pairs:pictures?before=raw&after=done"
options = ["--data", spec, "--steps", "200", "--batch-size", "2", "--workers", "0", "--quiet", "--loggers", "none"]
assert cli.main(["train", "retouch", *options, "--width", "8", "--out", "run", "--no-report"]) == 0
run = selftaught.load("run")
assert run.apply("pictures/raw", "out") == 2
gains = []
for name in ("a", "b"):
    raw, done, made = (io.imread(f"{f}/{name}.png").astype(float) for f in ("pictures/raw", "pictures/done", "out"))
    assert made.shape == raw.shape
    gains.append(np.abs(raw - done).mean() / np.abs(made - done).mean())
assert min(gains) > 1.5, gains
print("gains", gains)
"""


@pytest.mark.slow
def test_four_new_files_make_a_system(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "src/selftaught", tmp_path / "selftaught", ignore=shutil.ignore_patterns("__pycache__"))
    files = [f for f in (ROOT / "docs/example").rglob("*") if f.suffix in (".py", ".toml")]
    assert sorted(f.parent.name for f in files) == ["cards", "claims", "methods", "objectives"]
    for file in files:
        target = tmp_path / "selftaught" / file.relative_to(ROOT / "docs/example")
        assert not target.exists(), "only new files"
        shutil.copy(file, target)
    for name, picture in (("a", data.astronaut()), ("b", data.chelsea())):
        small = picture[:256:2, :256:2]
        for folder, pixels in (("raw", small), ("done", 255 * (small / 255.0) ** 0.6)):
            (tmp_path / "pictures" / folder).mkdir(parents=True, exist_ok=True)
            io.imsave(tmp_path / "pictures" / folder / f"{name}.png", np.rint(pixels).astype(np.uint8))
    run(SCRIPT, tmp_path, PYTHONPATH=str(tmp_path))
