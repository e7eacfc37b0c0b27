"""``selftaught curate``: what it keeps, the reasons it gives, the files and the page, and its errors."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import selftaught
from selftaught import cli
from selftaught.engine.method import Method
from selftaught.errors import UserError
from selftaught.run.reasons import CHOSEN, CROWDED, OTHERS, RARE, REPEATED, UNREAD


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 pictures of stripes, a copy of each with a little noise, five of a checkerboard, and a broken file."""
    root = tmp_path_factory.mktemp("archive")
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:32, :32]
    for i in range(60):
        stripes = 120 + 100 * np.sin(rows * rng.uniform(0.2, 1.5) + rng.uniform(0, 6))
        for name, noise in (("a", 0), ("b", 2)):
            picture = np.clip(stripes + noise * rng.normal(size=(32, 32)), 0, 255).astype(np.uint8)
            Image.fromarray(picture).save(root / f"stripes-{i:02d}{name}.png")
    for i in range(5):
        board = 255.0 * ((rows // 8 + columns // 8) % 2) + rng.normal(0, 4, (32, 32))
        Image.fromarray(np.clip(board, 0, 255).astype(np.uint8)).save(root / f"rare-{i}.png")
    (root / "zz-broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    return root


def table(path: Path) -> dict[str, dict[str, str]]:
    return {row["name"]: row for row in csv.DictReader((path / "selection.csv").open())}


def test_copies_go_rare_ones_stay_and_the_list_is_a_source(folder: Path, tmp_path: Path) -> None:
    found = selftaught.curate(folder, 0.4, levels="8", out=tmp_path / "kept", seed=1)
    assert len(found.kept) == len(set(found.kept)) == 50
    assert {f"rare-{i}.png" for i in range(5)} <= set(found.kept)
    rows = table(tmp_path / "kept")
    assert len(rows) == 126
    assert {name for name, row in rows.items() if row["kept"] == "1"} == set(found.kept)
    assert all(rows[f"rare-{i}.png"]["reason"] == RARE for i in range(5))
    assert rows["zz-broken.png"]["reason"] == UNREAD
    reasons = {row["reason"] for row in rows.values()}
    assert reasons <= {CHOSEN, RARE, REPEATED, CROWDED, UNREAD}
    repeated = [row for row in rows.values() if row["reason"] == REPEATED]
    assert repeated
    for row in repeated:
        assert float(row["cosine"]) > 0.95
        assert rows[row["nearest_kept"]]["kept"] == "1"
        assert rows[row["nearest_kept"]]["cluster"] == row["cluster"]
    told = json.loads((tmp_path / "kept/selection.json").read_text())
    assert told["kept"] == 50
    assert told["clusters"] == [8]
    assert sum(told["reasons"].values()) == 126
    again = selftaught.data.open_source(folder, split="all", only=str(tmp_path / "kept/kept.txt"))
    assert list(again.names) == found.kept == list(found.source.names)
    page = (tmp_path / "kept/report.html").read_text()
    assert page.count("data:image") > 20
    for words in ("Near-duplicates", "Crowded clusters", "Rare ones", "50 of 126 samples are kept"):
        assert words in page


def test_semdedup_drops_one_of_each_pair(folder: Path, tmp_path: Path) -> None:
    found = selftaught.curate(folder, eps=0.003, selection="semdedup", levels="2", out=tmp_path / "kept")
    kept = set(found.kept)
    pairs = [(f"stripes-{i:02d}a.png", f"stripes-{i:02d}b.png") for i in range(60)]
    both = sum(a in kept and b in kept for a, b in pairs)
    neither = sum(a not in kept and b not in kept for a, b in pairs)
    assert both <= 3  # two copies may lie in different clusters
    assert neither < 25  # a stripe that resembles another one
    assert found.why.count(REPEATED) + found.why.count(OTHERS["semdedup"]) == 125 - len(kept)


class Brightness(Method):
    """Features that a test knows: mean and deviation."""

    slug = "brightness"

    def build(self) -> None:
        """No network."""

    def evaluation_view(self) -> Any:
        return next(iter(selftaught.views.plain(16)))

    def features(self, batch: dict[str, Any]) -> torch.Tensor:
        x = self.inputs(batch).flatten(1)
        return torch.stack([x.mean(1), x.std(1), torch.ones(len(x))], 1)


def test_any_method_sees_the_samples(folder: Path, tmp_path: Path) -> None:
    found = selftaught.curate(folder, 20, encoder=Brightness(channels=1), selection="prototypes", out=tmp_path / "kept")
    assert len(found.kept) == 20
    assert found.selection.tree is not None


def test_the_command(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = str(tmp_path / "kept")
    told = ["curate", str(folder), "--keep", "0.5", "--selection", "random", "--out", out, "--quiet"]
    assert cli.main(told) == 0
    assert "kept 63 of 126" in capsys.readouterr().out
    assert "data:image" not in (tmp_path / "kept/report.html").read_text()  # a random choice has no clusters to show
    for wrong, said in (
        ([], "how much to keep"),
        (["--keep", "0.5", "--eps", "0.1", "--selection", "semdedup"], "how much to keep"),
        (["--keep", "500"], "from 2 to 126"),
        (["--keep", "0"], "--keep 0; it may be"),
        (["--eps", "0.1"], "is for --selection semdedup"),
        (["--keep", "0.5", "--levels", "a"], "--levels a; it may be"),
        (["--keep", "0.5", "--encoder", "nowhere"], "nowhere: no such run folder"),
        (["--keep", "0.5", "--encoder", "resnet18"], "did you mean --encoder timm:resnet18?"),
        (["--keep", "0.5", "--encoder", "timm:nothing"], "no such encoder"),
    ):
        assert cli.main(["curate", str(folder), "--out", str(tmp_path / "other"), "--quiet", *wrong]) == 2
        assert said in capsys.readouterr().err
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    told = ["--out", str(tmp_path / "o"), "--keep", "0.5", "--encoder", "timm:resnet10t"]
    assert cli.main(["curate", str(folder), *told]) == 2
    said = capsys.readouterr().err
    assert "--encoder timm:resnet10t: its pretrained weights can't be had" in said
    assert "go online once, or name the folder of a run, or pixels" in said
    with pytest.raises(UserError, match="has no option 'level'"):
        selftaught.curate(folder, 0.5, level="3")
    with pytest.raises(UserError, match="give what sees them"):
        selftaught.curate("watch", 0.5)


@pytest.mark.slow
def test_a_run_sees_the_samples_it_learnt_from(folder: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"encoder": "cnn-small", "image_size": 16, "steps": 2, "batch_size": 16, "quiet": True}
    run = selftaught.train("simclr", folder, out=str(tmp_path / "run"), loggers=["none"], preset="laptop", **options)
    found = selftaught.curate(folder, 0.3, encoder=run.path, out=tmp_path / "kept")
    assert len(found.kept) == 38
    assert "simclr" not in found.summary()
    assert "list, reasons and report" in found.summary()
