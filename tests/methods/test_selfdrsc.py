"""SelfDRSC as a run: its stages, its baseline, frames at any instants, and what a user gets wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

import selftaught
from selftaught import UserError
from selftaught.data.rolling_shutter import rolled_pair
from selftaught.methods import SelfDRSC
from selftaught.methods._dual_shutter import Corrector
from tests.data.test_rolling_shutter import moving, write

TINY: dict[str, Any] = {
    "patch": 32, "width": 4, "flow_widths": "6-6-4-4", "features": "random", "align_corners": True, "readout": 2,
    "instants": 2, "distill_patch": 64, "margin": 16, "shave": 2, "flow": "small", "perceptual": 0.1,
}  # fmt: skip
RUN: dict[str, Any] = {"steps": 3, "flow_steps": 2, "distill_steps": 2, "batch_size": 2, "workers": 0, "quiet": True}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of films, and pairs of rolling shutters made of one."""
    folder = tmp_path_factory.mktemp("shutter")
    gs = moving(9, 70, 80)
    write(folder / "films" / "one", gs)
    write(folder / "films" / "two", moving(9, 70, 80, -1.5))
    pairs = [rolled_pair(gs[t : t + 3]) for t in (0, 4)]
    for k, name in enumerate(("down", "up")):
        write(folder / "pairs" / name / "x", np.stack([p[k] for p in pairs]), ["first.png", "second.png"])
    return folder


@pytest.fixture(scope="module")
def run(data: Path) -> selftaught.Run:
    return selftaught.train("selfdrsc", str(data / "films"), out=str(data / "run"), **TINY, **RUN)


def test_the_stages_train_evaluate_apply_and_report(run: selftaught.Run, data: Path, tmp_path: Path) -> None:
    assert sorted(p.name for p in (run.path / "stages").iterdir()) == ["distill", "flow", "self"]
    found = run.evaluate()["restoration"]
    assert found["this"]["psnr"].mean > 10
    assert set(found) == {"this", "raw"}
    spec = f"pairs:{data / 'pairs'}?t2b=down&b2t=up"
    done = run.apply(spec, tmp_path / "frames", instants="3")
    assert int(done) == 1
    names = sorted(p.name for p in (tmp_path / "frames" / "x").iterdir())
    assert names == ["clip.json", *(f"first_{k}.png" for k in range(3)), *(f"second_{k}.png" for k in range(3))]
    picture = cv2.imread(str(tmp_path / "frames" / "x" / "second_1.png"))
    assert picture is not None
    assert picture.shape == (70, 80, 3)
    run.apply(spec, tmp_path / "film", instants="0,0.25,0.5,0.9", into="video")
    made = selftaught.data.open_source(str(tmp_path / "film"), modality="clip", split="all")
    assert made.frames(0) == 8
    assert json.loads((tmp_path / "frames" / "x" / "clip.json").read_text())["frames"] == 6
    for wrong in ("many", "1,0", "0,1.5"):
        with pytest.raises(UserError, match="instants"):
            run.apply(spec, tmp_path / "wrong", instants=wrong)
    with pytest.raises(UserError, match="takes clean frames as a field"):
        run.evaluate(data=spec, clean=str(data / "films"))
    with pytest.raises(UserError, match="opposite directions"):
        run.apply(str(data / "films"), tmp_path / "wrong")
    assert "Before and after" in run.report().read_text()


def test_pairs_without_clean_frames_train_and_report(data: Path, tmp_path: Path) -> None:
    spec = f"pairs:{data / 'pairs'}?t2b=down&b2t=up"
    short = TINY | {"flow_steps": 1, "distill_steps": 0} | RUN | {"steps": 1, "knn_every": 0.0}
    run = selftaught.train("selfdrsc", spec, out=str(tmp_path / "run"), **short)
    assert "Before and after" in run.report().read_text()
    pairs = run.method.to_judge(selftaught.data.open_source(spec, modality="clip", split="all"))
    with pytest.raises(UserError, match="the pictures down, up; its pairs are t2b and b2t"):
        run.apply(f"pairs:{data / 'pairs'}?down=down&up=up", tmp_path / "none")
    with pytest.raises(UserError, match="PSNR needs clean frames"):
        run.method.check_judged(pairs)
    _, corrected, clean = run.method.judged_clip(pairs, 0)
    assert corrected.shape == (3, 70, 80, 3)
    assert not clean.size
    assert run.summary()[1].endswith("--data 'pairs:?t2b=DOWNWARDS/&b2t=UPWARDS/&gs=CLEAN/'")


def test_a_pair_of_folders_of_frames_goes_by_the_first(run: selftaught.Run, data: Path, tmp_path: Path) -> None:
    one = next(folder.name for folder in sorted((data / "pairs" / "down").iterdir()))
    spec = f"pairs:{data / 'pairs'}?t2b=down/{one}&b2t=up/{one}"
    assert int(run.apply(spec, tmp_path / "out", instants="0.5")) == 1
    assert [p.name for p in (tmp_path / "out").iterdir() if p.is_dir() and not p.name.startswith(".")] == [one]


def made(**options: Any) -> tuple[SelfDRSC, dict[str, Any]]:
    torch.manual_seed(0)
    method = SelfDRSC(TINY | options, channels=3)
    clip = torch.rand(2, 3, 2, 32, 32)
    rows = selftaught.networks.frame_rows(40, 32)[:, :, 4:36].repeat(2, 1, 1, 1)
    return method, {"clip": clip, "rows": rows, "gs": torch.rand(2, 3, 5, 32, 32), "index": torch.arange(2)}


def test_stages_and_what_learns_in_them() -> None:
    method, batch = made()
    assert method.stages == ("flow", "self", "distill")
    method.enter_stage("self")
    method.loss(batch)["loss"].backward()
    assert all(p.grad is not None for p in method.network.parameters())
    assert method.flow_net is not None
    assert all(p.grad is None for p in method.flow_net.parameters())
    assert all(p.grad is None for p in method.teacher.parameters())
    method.enter_stage("flow")
    method.loss(batch)["loss"].backward()
    assert any(p.grad is not None for p in method.flow_net.parameters())
    assert made(flow_steps=0, distill_steps=0)[0].stages == ("self",)
    ifed, batch = made(supervision="gs", distill_steps=0)
    assert ifed.stages == ("self",)
    terms = ifed.loss(batch)
    assert torch.isfinite(terms["loss"])
    fewer, batch = made(mid=False)
    fewer.enter_stage("self")
    method.enter_stage("self")
    assert fewer.loss(batch)["reconstruction"].item() < 0.75 * method.loss(batch)["reconstruction"].item()


def test_the_teacher_sees_the_whole_patch_and_the_student_its_middle() -> None:
    method, _ = made()
    method.enter_stage("distill")
    pair, rows = torch.rand(1, 3, 2, 64, 64), selftaught.networks.frame_rows(64, 64)
    batch = {"clip": pair, "rows": rows, "index": torch.zeros(1, dtype=torch.long)}
    terms = method.loss(batch)
    codes = selftaught.networks.time_codes(rows, torch.tensor([[0, 0.5, 1]]))
    taught = method.network(pair[:, :, 0], pair[:, :, 1], codes).frames[..., 16:48, 16:48]
    inner = pair[..., 16:48, 16:48]
    learnt = method.network(inner[:, :, 0], inner[:, :, 1], codes[..., 16:48, 16:48]).frames
    wanted = selftaught.objectives.selfdrsc_distillation(learnt, taught, method.phi_of)
    torch.testing.assert_close(terms["distillation"], wanted)


def test_frames_of_a_pair_of_any_size_at_any_instants() -> None:
    method, _ = made()
    corrector = Corrector(method.network, 4, "replicate").eval()
    pair = torch.rand(1, 3, 2, 45, 50)
    with torch.no_grad():
        whole = corrector(pair)
        assert whole.shape == (1, 3, 5, 45, 50)
        torch.testing.assert_close(corrector(pair, [0.25, 1.0])[:, :, 0], whole[:, :, 1])
        assert corrector(pair, [0.0, 1.0]).shape[2] == 2
        circular = Corrector(method.network, 4, "circular").eval()(pair)
        assert not torch.equal(circular, whole)
        small = Corrector(method.network, 4, "replicate").eval()
        torch.testing.assert_close(small(pair, [0.0])[:, :, 0], small(pair, [0.0, 0.5])[:, :, 0])


def test_wrong_options_are_refused() -> None:
    options: dict[str, Any]
    for options, words in (
        ({"patch": 40}, "patch=40"),
        ({"margin": 20}, "margin=20"),
        ({"instants": 1}, "instants=1"),
    ):
        with pytest.raises(UserError, match=words):
            SelfDRSC(TINY | options, channels=3)
    for options, words in (
        ({"flow": "pwc"}, "flow_weights=FILE"),
        ({"flow": "pwc", "flow_weights": "nowhere.pth"}, "no such file"),
    ):
        trained = SelfDRSC(TINY | options, channels=3)  # to apply it needs no flow network
        with pytest.raises(UserError, match=words):
            trained.setup("fit")
    assert SelfDRSC(TINY, channels=4).network.channels == 4


@pytest.mark.slow
def test_it_learns_to_make_the_pictures_again() -> None:
    method, _ = made(flow_steps=0, distill_steps=0)
    pair = torch.from_numpy(rolled_pair(moving(3, 64, 64))).permute(3, 0, 1, 2)[None].float() / 255
    batch = {"clip": pair, "rows": selftaught.networks.frame_rows(64, 64), "index": torch.zeros(1, dtype=torch.long)}
    optimiser = torch.optim.AdamW(method.network.parameters(), lr=2e-3)
    first = None
    for _ in range(25):
        optimiser.zero_grad()
        loss = method.loss(batch)["loss"]
        loss.backward()
        optimiser.step()
        first = float(loss.detach()) if first is None else first
    assert first is not None
    assert float(loss.detach()) < 0.7 * first
