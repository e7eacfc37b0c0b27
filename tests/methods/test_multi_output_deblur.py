"""Deblurring with several heads as wired: pairs, stages, the choice, what is written and judged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import selftaught
from selftaught import evaluation, methods, objectives
from selftaught.data import open_source
from selftaught.engine.loader import DataModule
from selftaught.errors import UserError

TINY: dict[str, Any] = {
    "width": 4, "encoder": "1", "decoder": "1", "patch": 16, "kernel": 5, "shortest": 2.0, "heads": 2, "depth": 2,
    "step": 2, "extra": 2, "cabs": 1, "blocks": "1-1-1-1", "refinement": 1, "choose_steps": 2,
}  # fmt: skip
RUN: dict[str, Any] = {"batch_size": 4, "workers": 0, "quiet": True, "loggers": ["none"], "device": "cpu"}


def batch() -> dict[str, Any]:
    x = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    return {"sharp": x, "blurred": torch.nn.functional.avg_pool2d(x, 3, 1, 1)}


@pytest.mark.parametrize(
    ("backbone", "loss", "weight"),
    [("nafnet", "psnr", 1.0), ("hinet", "psnr", 0.5), ("mprnet", "charbonnier_edge", 1.0), ("restormer", "l1", 1.0)],
)
def test_every_backbone_with_its_loss(backbone: Any, loss: Any, weight: float) -> None:
    sizes = TINY | ({"width": 8} if backbone == "restormer" else {})
    method = methods.MultiOutputDeblur(**sizes, backbone=backbone, loss=loss, stage_weight=weight)
    made = batch()
    terms = method.loss(made)
    stages = method.network.stages(made["blurred"])
    expected = weight * sum(objectives.multi_output_deblur(one, made["sharp"], loss=loss) for one in stages)
    assert terms["loss"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert sum(terms[f"wins {h}"].item() for h in range(3)) == pytest.approx(1)
    assert method.predict(made).shape == made["sharp"].shape


def test_sharp_pictures_are_blurred_and_pairs_move_together(tmp_path: Path) -> None:
    method = methods.MultiOutputDeblur(**TINY)
    made = next(iter(DataModule("photos:whole", method, batch_size=4, workers=0).train_dataloader()))
    made = made.get("data", made)
    kernels = made["blurred.kernel"]
    torch.testing.assert_close(kernels.sum((1, 2)), torch.ones(4), atol=1e-5, rtol=0)
    expected = (made["sharp"][0, :, 4:9, 4:9].double() * kernels[0].flip(0, 1).double()).sum((1, 2))
    torch.testing.assert_close(made["blurred"][0, :, 6, 6].double(), expected, atol=1e-5, rtol=0)
    rng = np.random.default_rng(0)
    sharp = rng.integers(0, 256, (3, 20, 24, 3), dtype=np.uint8)
    for name, images in (("sharp", sharp), ("blurred", 255 - sharp)):
        (tmp_path / name).mkdir()
        for i, image in enumerate(images):
            np.save(tmp_path / name / f"{i}.npy", image)
    source = open_source({name: str(tmp_path / name) for name in ("blurred", "sharp")}, split="all")
    made = next(iter(DataModule(source, methods.MultiOutputDeblur(**TINY), batch_size=2, workers=0).train_dataloader()))
    made = made.get("data", made)
    torch.testing.assert_close(made["blurred"], 1 - made["sharp"], atol=1e-6, rtol=0)


def test_growing_patches_share_one_schedule() -> None:
    method = methods.MultiOutputDeblur(**TINY, progressive="16x4x10,24x2x30", hold=0.25, lr=1.0, final_lr=0.0)
    assert method.stages == ("patch-16", "patch-24", "choose")
    assert method.patch() == 16
    first = method.optimisers()["main"]
    assert [first.factor(s, 10) for s in (0, 9)] == [1, 1]
    method.enter_stage("patch-24")
    assert method.patch() == 24
    assert method.stage_plan("patch-24").settings == {"steps": 30, "batch_size": 2}
    second = method.optimisers()["main"]
    assert second.factor(0, 30) == pytest.approx(1)
    assert second.factor(15, 30) == pytest.approx(0.5)
    plain = methods.MultiOutputDeblur(**TINY | {"heads": 1})
    assert plain.stages == ("train",)
    assert plain.optimisers()["main"].clip == 0.01
    assert plain.optimisers()["main"].betas == (0.9, 0.9)


def test_a_run_chooses_its_head_and_gives_all(tmp_path: Path) -> None:
    run = selftaught.train(
        "multi-output-deblur", "photos:whole", out=tmp_path / "run", steps=2, head="all", **RUN, **TINY
    )
    method = run.method
    assert method.chosen is not None
    state = torch.load(tmp_path / "run/stages/choose/checkpoints/choose.ckpt", weights_only=True)["state_dict"]
    assert int(state["decibels"].argmax()) == method.chosen
    (tmp_path / "in").mkdir()
    picture = np.random.default_rng(0).integers(0, 256, (21, 26, 3), dtype=np.uint8)
    np.save(tmp_path / "in" / "a.npy", picture)
    assert run.apply(tmp_path / "in", tmp_path / "out") == 1
    every = [np.load(tmp_path / "out" / f"a.head{h}.npy") for h in range(3)]
    assert np.array_equal(every[method.chosen], np.load(tmp_path / "out" / "a.npy"))
    with torch.no_grad():
        x = torch.from_numpy(picture / np.float32(255)).permute(2, 0, 1)[None]
        wanted = method.candidates(x)[0].permute(0, 2, 3, 1).numpy() * 255
        mean = method.network(x)[0].mean(0).clamp(0, 1).permute(1, 2, 0).numpy() * 255
    assert all(np.abs(one - two).max() <= 0.51 for one, two in zip(every, wanted, strict=True))
    for head, one in (("1", every[1]), ("mean", mean), ("best", every[method.chosen])):
        assert run.apply(tmp_path / "in", tmp_path / head, head=head) == 1
        assert [file.name for file in (tmp_path / head).glob("*.npy")] == ["a.npy"]
        assert np.abs(np.load(tmp_path / head / "a.npy") - one).max() <= 0.51
    for head in ("3", "worst"):
        with pytest.raises(UserError, match=f'head="?{head}'):
            run.apply(tmp_path / "in", tmp_path / "none", head=head)
    assert method.gives_all
    (tmp_path / "sharp").mkdir()
    np.save(tmp_path / "sharp" / "a.npy", picture)
    for name in ("several/blurry", "several/sharp"):
        (tmp_path / name).mkdir(parents=True)
        for i in range(5):
            np.save(tmp_path / name / f"{i}.npy", picture)
    with pytest.raises(UserError, match="its pairs are blurred and sharp"):
        run.evaluate(f"pairs:{tmp_path}/several?blurry=blurry&sharp=sharp")
    with pytest.raises(UserError, match="the one to restore is blurred, named first"):
        run.apply(f"pairs:{tmp_path}?sharp=sharp&blurred=in", tmp_path / "none")
    assert run.apply(f"pairs:{tmp_path}?blurred=in&sharp=sharp", tmp_path / "paired", head="best") == 1
    assert np.array_equal(np.load(tmp_path / "paired" / "a.npy"), every[method.chosen])
    found = run.evaluate(limit=1)["heads"]["this"]
    assert found["best_overall"].mean >= found["best_single"].mean >= found["worst"].mean
    assert found["best_single"].mean == pytest.approx(found[f"psnr_{method.chosen}"].mean)


def test_wrong_options_are_said() -> None:
    with pytest.raises(UserError, match="heads 0 to 2"):
        methods.MultiOutputDeblur(**TINY, head="3")
    with pytest.raises(UserError, match="odd side"):
        methods.MultiOutputDeblur(**TINY | {"kernel": 6}).recipe()
    with pytest.raises(UserError, match="luma of RGB"):
        methods.MultiOutputDeblur(channels=4, **TINY, to_y=True)
    with pytest.raises(UserError, match="choose=SOURCE"):
        selftaught.train("multi-output-deblur", np.zeros((1, 40, 40, 3), np.uint8), steps=1, **RUN, **TINY)


def test_figures_by_hand() -> None:
    target = np.full((12, 12, 1), 100 / 255)
    offsets = np.array([[10, 0, 20], [5, 20, 10]])
    heads = [target[None] + offset[:, None, None, None] / 255 for offset in offsets]
    found = evaluation.multi_output(heads, [target, target], single=2)
    decibel = 20 * np.log10(255 / np.maximum(offsets, 1e-9))
    decibel[0, 1] = 100
    assert found["best_overall"].mean == pytest.approx(decibel.max(1).mean())
    assert found["worst"].mean == pytest.approx(decibel.min(1).mean())
    assert found["best_single"].mean == pytest.approx(decibel[:, 2].mean())
    assert [found[f"win_rate_{h}"].mean for h in range(3)] == [0.5, 0.5, 0]
    assert found.note.endswith("1 of 3 heads were the best on none of 2 images")
    with pytest.raises(UserError, match="single=3"):
        evaluation.multi_output(heads, [target, target], single=3)
