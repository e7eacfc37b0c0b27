"""Uni4Eye as wired: its terms, turns of the ranks, what each option trains, runs on images, volumes and both."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

import selftaught
from selftaught import methods, objectives
from selftaught.data import open_source
from selftaught.engine.loader import DataModule
from selftaught.errors import UserError
from selftaught.methods.uni4eye import augment_volumes, rank_of_turn
from selftaught.networks import build
from selftaught.networks.tokens import patchify
from tests.methods.resuming import cut_and_whole

TINY = {
    "encoder": "vit-pico-ranks", "image_size": 12, "patch": 4, "volume_size": "4-8-8", "volume_patch": "2-4-4",
    "decoder": "16-1-2",
}  # fmt: skip
RUN = TINY | {"mix": "batch", "volume_batch": 6, "lr": 2e-3, "lr_scaling": "none", "warmup_epochs": 0.0}
needs_brain = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("nilearn", "nibabel")),
    reason="nilearn or nibabel is missing",
)


def made(**options):
    torch.manual_seed(0)
    return methods.get("uni4eye")(**TINY | options, channels=options.pop("channels", 1))


IMAGES, VOLUMES = torch.randn(3, 1, 12, 12), torch.randn(3, 1, 4, 8, 8)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Images, and float volumes of two sizes, in class folders."""
    nibabel = pytest.importorskip("nibabel")
    root, rng = tmp_path_factory.mktemp("mixed"), np.random.default_rng(0)
    for k, name in enumerate(("flat", "steep")):
        for kind in ("images", "volumes"):
            (root / kind / name).mkdir(parents=True)
        for i in range(12):
            slope = np.arange(10)[:, None] * (8 * k) + rng.integers(0, 90, (10, 10))
            np.save(root / "images" / name / f"{i}.npy", slope.astype(np.uint8))
            side = 10 + 3 * (i % 2)
            block = np.arange(side)[:, None] * (0.8 * k) + rng.uniform(0, 2, (5, side, side)) - 3
            scan = nibabel.Nifti1Image(block.astype(np.float32), np.diag([2.0, 1.0, 1.0, 1.0]))
            nibabel.save(scan, root / "volumes" / name / f"{i}.nii.gz")
    return root / "images", root / "volumes"


@pytest.mark.parametrize("x", [IMAGES, VOLUMES], ids=["images", "volumes"])
@pytest.mark.parametrize(
    "options", [{}, {"norm_pix": True, "beta": 0.3, "shared_blocks": 1, "decoder": "16-2-2"}, {"gradient": "l1_avg"}]
)
def test_the_loss_is_the_formula_of_values_from_zero_to_one(x: torch.Tensor, options: dict) -> None:
    method = made(**options).eval()
    batch = {"views": [x]} if x.dim() == 4 else {"volume": x}
    torch.manual_seed(7)
    found = method.loss(batch)
    torch.manual_seed(7)
    restored, hidden = method.restore(x, method.visible(x))
    assert hidden.sum(1).tolist() == [-(-hidden.shape[1] // 2)] * 3  # int(L / 2) stay
    unit = x * 0.25 + 0.5
    patch = (4, 4) if x.dim() == 4 else (2, 4, 4)
    operator = options.get("gradient", "sobel") if x.dim() == 4 else "sobel"
    errors = []
    for name, target in (("intensity", unit), ("gradient", objectives.gradient_map(unit, operator=operator))):
        t = patchify(target, patch, channels_last=True).double()
        if options.get("norm_pix"):
            t = (t - t.mean(2, keepdim=True)) / (t.var(2, keepdim=True) + 1e-6).sqrt()
        errors.append(((restored[name].double() - t) ** 2).mean(2)[hidden].mean())
    expected = errors[0] + options.get("beta", 1.0) * errors[1]
    assert found["loss"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert found["gradient"].item() == pytest.approx(errors[1].item(), rel=1e-5)


@pytest.mark.parametrize(
    "options",
    [{}, {"branches": "intensity"}, {"branches": "gradient"}, {"head": "dynamic", "sources": 3, "pool": "avg"}],
)
def test_both_ranks_together_train_all_weights(options: dict) -> None:
    method = made(**options)
    label = torch.tensor([0, 2, 1])
    for batch in ({"views": [IMAGES], "label": label}, {"volume": VOLUMES}):
        terms = method.loss(batch)
        assert set(terms) == ({"loss"} if "branches" in options else {"loss", "intensity", "gradient"})
        terms["loss"].backward()
    assert not {name for name, p in method.named_parameters() if p.grad is None}
    again = build(method.deliverable_spec())
    again.load_state_dict(method.deliverable().state_dict())
    for x, batch in ((IMAGES, {"views": [IMAGES]}), (VOLUMES, {"volume": VOLUMES})):
        assert torch.equal(again.eval()(x), method.eval().predict(batch))
    shown = method.pictures(IMAGES)
    assert {value.shape for value in shown.values()} == {IMAGES.shape}
    torch.testing.assert_close(shown["original"], IMAGES)
    hides = (shown["visible"] - IMAGES).abs() > 1e-5
    assert 0.2 < hides.float().mean() < 0.8
    assert not shown["visible"][hides].any(), "hidden parts have the mean colour"
    if options.get("head"):
        with pytest.raises(UserError, match="sources are numbered 0 to 2"):
            method.loss({"views": [IMAGES], "label": label + 1})


def test_volumes_are_mirrored_and_noisy_as_often_as_said() -> None:
    x = torch.rand(400, 1, 2, 3, 4)
    drawn = augment_volumes(x, noise=0.0, generator=torch.Generator().manual_seed(0))
    kept = (drawn == x).flatten(1).all(1).float().mean().item()
    assert 0.06 < kept < 0.2  # one in eight
    torch.testing.assert_close(drawn.flatten(1).sort(1).values, x.flatten(1).sort(1).values)
    noisy = augment_volumes(x, flip=0.0, noise=0.1, generator=torch.Generator().manual_seed(0)) - x
    touched = noisy.flatten(1).abs().sum(1) > 0
    assert 0.13 < touched.float().mean().item() < 0.27
    assert noisy[touched].std().item() == pytest.approx(0.1, rel=0.1)
    with pytest.raises(UserError, match="volumes are"):
        augment_volumes(x[0])


def test_the_ranks_take_turns(folders: tuple[Path, Path]) -> None:
    assert [rank_of_turn(k) for k in range(4)] == [3, 2, 3, 2]
    for mix, expected in (("batch", [3, 2, 3, 2, 3, 2]), ("epoch", [3, 3, 2, 2, 3, 3])):
        method = made(mix=mix)
        method.plan(6, 2)
        seen = []
        method.minimise = lambda terms, seen=seen: seen.append(terms)  # type: ignore[method-assign]
        method.loss = lambda batch: batch  # type: ignore[method-assign]
        for step in range(6):
            method.steps = step
            method.step({"data": 2, "volumes": 3})
        assert seen == expected
    method = made(volume_batch=0)
    sources = {"data": open_source(folders[0]), "volumes": open_source(folders[1], modality="volume")}
    batch = next(iter(DataModule(sources, method, batch_size=16, workers=0).train_dataloader()))
    batch = method.on_after_batch_transfer(batch)
    assert batch["data"]["views"][0].shape == (16, 1, 12, 12)
    assert batch["volumes"]["volume"].shape == (2, 1, 4, 8, 8)
    assert batch["volumes"]["volume"].abs().max() <= 2.0 + 1e-6  # floats were scaled, too


def test_a_grey_volume_stands_beside_colour_images() -> None:
    method = methods.get("uni4eye")(**TINY, channels=3)
    method.pixel_mean.copy_(torch.tensor([0.1, 0.2, 0.3]))
    found = method.normalise(torch.full((2, 1, 4, 8, 8), 51, dtype=torch.uint8))
    torch.testing.assert_close(found[0, :, 0, 0, 0], (0.2 - method.pixel_mean) / 0.25)
    method.modality = "volume"
    assert method.also_channels == (1,)


def test_what_cannot_be_is_refused_in_one_line(folders: tuple[Path, Path]) -> None:
    for options, words in (
        ({"patch": 5}, "image_size and patch"), ({"volume_patch": "3-4-4"}, "volume_size and volume_patch"),
        ({"volume_size": "4-8"}, "depth, height and width"),
        ({"head": "dynamic", "branches": "gradient"}, "head=dynamic"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=words):
            made(**options)
    images, volumes = map(str, folders)
    start = RUN | {"steps": 1, "batch_size": 4, "quiet": True}
    for data, options, words in (
        (images, {"volumes": images}, "no volume can be read"),
        (volumes, {"volumes": volumes}, "holds volumes already"),
        (volumes, {"ranks": "images"}, "ranks=images"), (images, {"ranks": "volumes"}, "as data"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=words):
            selftaught.train("uni4eye", data, out="/nowhere/at-all", **start | options)
    with pytest.raises(UserError, match=r"don't go together: .*; what uni4eye reads beside data goes by volumes"):
        selftaught.train("uni4eye", [images, volumes], out="/nowhere/at-all", **start)


@pytest.mark.slow
def test_a_run_of_both_learns_and_is_used_on_either(folders: tuple[Path, Path], tmp_path: Path) -> None:
    images, volumes = folders
    run = selftaught.train(
        "uni4eye", images, volumes=str(volumes), out=str(tmp_path / "run"), steps=20, batch_size=12, quiet=True, **RUN
    )
    assert run.summary()[0].startswith("uni4eye on images/ (20 samples) and volumes/ (20 samples): 20 steps")
    for source, count in ((images, 24), (volumes, 24)):
        found = run.evaluate(source, protocols=["knn"], baselines=False)
        assert 0 <= found["knn"]["this"].numbers["accuracy"].mean <= 1
        assert run.apply(source, tmp_path / f"{source.name}.parquet") == count
    assert "restored gradient" in run.report().read_text()
    alone = selftaught.train(
        "uni4eye", volumes, out=str(tmp_path / "alone"), steps=3, batch_size=6, quiet=True, **RUN
    )  # fmt: skip
    assert alone.method.modality == "volume"
    assert alone.evaluate(protocols=["finetune"], baselines=False)["finetune"]["this"].numbers
    assert alone.export("onnx").exists()
    assert alone.report().exists()


@pytest.mark.slow
def test_a_run_that_is_cut_goes_on_to_the_same_weights(folders: tuple[Path, Path], tmp_path: Path) -> None:
    options = RUN | {"volumes": str(folders[1]), "steps": 12, "batch_size": 8, "augment": "paper"}
    whole, cut = cut_and_whole("uni4eye", tmp_path, options, str(folders[0]))
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


@needs_brain
@pytest.mark.slow
def test_masked_patches_of_both_ranks_get_nearer_than_their_mean() -> None:
    torch.manual_seed(0)
    method = methods.get("uni4eye")(**RUN | {"image_size": 24, "patch": 6, "volume_size": "12-24-24",
                                             "volume_patch": "6-6-6", "decoder": "32-1-2"}, channels=1)  # fmt: skip
    batches = {}
    for name, kind in (("brain-slices", "image"), ("brain", "volume")):
        source = open_source(name, split="train")
        part = np.stack([source.read(i) for i in np.linspace(0, len(source) - 1, 16).astype(int)])
        batches[kind] = method.normalise(torch.from_numpy(part).movedim(-1, 1).contiguous())
    optimiser = torch.optim.AdamW(method.parameters(), lr=5e-3)
    views = {"image": {"views": [batches["image"]]}, "volume": {"volume": batches["volume"]}}
    for step in range(200):
        loss = method.loss(views["volume" if rank_of_turn(step) == 3 else "image"])["loss"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    method.eval()
    for kind, x in batches.items():
        target = method.targets(x)[0]
        mean = (target - target.mean(0)).square().mean()
        assert method.loss(views[kind])["intensity"] < 0.9 * mean, kind


@needs_brain
def test_the_brain_is_cut_without_leaks() -> None:
    for name, shape in (("brain", (12, 24, 24, 1)), ("brain-slices", (24, 24, 1))):
        train, test = (open_source(name, split=split) for split in ("train", "test"))
        assert train.read(0).shape == shape
        assert not set(train.groups.tolist()) & set(test.groups.tolist())
        assert np.bincount(test.labels).min() >= 10
    blocks = open_source("brain", split="all")
    white = np.mean([blocks.read(i).mean() for i in np.flatnonzero(blocks.labels == 1)])
    assert white > np.mean([blocks.read(i).mean() for i in np.flatnonzero(blocks.labels == 0)])
    with pytest.raises(UserError, match="brain: side=3 must be from 8"):
        open_source("brain?side=3")
