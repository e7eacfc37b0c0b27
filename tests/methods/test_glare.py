"""GLARE on a run: the base never moves, its terms are the formulas' of its own outputs, it goes on after a cut."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import selftaught
from selftaught import methods, networks, objectives
from selftaught.errors import UserError
from selftaught.networks import weights_hash
from selftaught.views.patch_augmentation import augment_patches, blur_batch, patch_pixels

TINY: dict[str, Any] = {
    "encoder": "vit-nano", "image_size": 14, "projector": "24-12", "prototypes": 9, "augment": "grey", "rank": 4,
}  # fmt: skip
QUIET: dict[str, Any] = {"quiet": True, "loggers": ["none"], "workers": 0, "knn_every": 0, "preset": "laptop"}


def batch_for(n: int = 4, seed: int = 0) -> dict[str, Any]:
    g = torch.Generator().manual_seed(seed)
    return {"views": [torch.randn(n, 1, 14, 14, generator=g) for _ in range(2)], "index": torch.arange(n)}


def made(**options: Any) -> Any:
    torch.manual_seed(0)
    method = methods.get("glare")(channels=1, **TINY | options)
    with torch.no_grad():
        for parameter in method.momentum.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return method


def test_the_terms_are_the_formulas_of_its_own_outputs(monkeypatch: pytest.MonkeyPatch) -> None:
    method = made(patch_augment="mask", windows="3-1", region_weight=True)
    method.centers.normal_(std=0.05)
    centers = method.centers.clone()
    mask = torch.rand(8, 49) < 0.4
    monkeypatch.setattr(method, "perturbed", lambda samples, device: mask)
    anchors = torch.stack([torch.randperm(49)[:4] for _ in range(8)])
    monkeypatch.setattr(objectives, "sample_anchors", lambda *a, **k: anchors)
    batch = batch_for()
    x = torch.cat(batch["views"])
    with torch.no_grad():
        cls_t, t = method.teacher.tokens(x)
        cls_s, s = method.adapted.tokens(x, mask=mask, mask_token=method.extra["mask_token"])
        windows = torch.cat([objectives.region_windows(anchors, (7, 7), side) for side in (3, 1)], 1)
        query, said = windows @ t, windows @ s
        wanted, sure = objectives.counterparts(query, torch.cat([t[4:], t[:4]]), temperature=0.1)
        head, momentum = method.heads[0], method.momentum.average[1][0]
        pair = (2, 4)
        expected = objectives.glare_terms(
            head(cls_s).view(2, 4, 9), momentum(cls_t).view(2, 4, 9), head(s.flatten(0, 1)).view(2, 4, 49, 9),
            momentum(t.flatten(0, 1)).view(2, 4, 49, 9), mask.view(2, 4, 49), head(said.flatten(0, 1)).view(2, 4, 8, 9),
            momentum(wanted.flatten(0, 1)).view(2, 4, 8, 9), centers=list(centers),
            teacher_temperature=method.teacher_temperature, weight=sure.unflatten(0, pair),
        )  # fmt: skip
    found = method.loss(batch)
    for name, value in expected.items():
        torch.testing.assert_close(found[name].detach(), value, rtol=1e-4, atol=1e-5)
    moved = 0.9 * centers[0] + 0.1 * momentum(cls_t).detach().mean(0)
    torch.testing.assert_close(method.centers[0], moved, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("adapter", ["uni", "lora", "bitfit", "vpt", "full"])
@pytest.mark.parametrize("extra", [{}, {"region_attention": "learned", "heads": "separate", "patch_augment": "noise"}])
def test_gradients_reach_adapters_and_heads_alone(adapter: str, extra: dict[str, Any]) -> None:
    method = made(adapter=adapter, **extra)
    base = weights_hash(method.encoder)
    method.loss(batch_for())["loss"].backward()
    own = {id(p) for p in method.trained_modules().parameters()}
    reached = {id(p) for p in method.parameters() if p.grad is not None}
    assert reached <= own
    assert any(bool(p.grad.any()) for p in method.adapted.parts.parameters() if p.grad is not None)
    assert any(bool(p.grad.any()) for p in method.heads.parameters() if p.grad is not None)
    assert weights_hash(method.encoder) == base
    assert method.teacher.base is method.adapted.base is method.encoder


def test_levels_leave_terms_out_and_options_are_refused() -> None:
    torch.manual_seed(1)
    found = made(levels="global").loss(batch_for())
    torch.testing.assert_close(found["loss"], found["global"])
    assert "local" in found
    still = made(patch_augment="none").loss(batch_for())
    assert float(still["local"].detach()) == 0
    for wrong, said in (
        ({"levels": "local,all"}, "levels"), ({"regions": 50}, "at most 49"), ({"windows": "2"}, "odd"),
        ({"encoder": "cnn-small"}, "adapts vision transformers"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=said):
            made(**wrong)


def test_patches_are_blurred_whole_images_seen_through_the_mask() -> None:
    x = torch.randn(3, 2, 16, 24, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(3, 6, dtype=torch.bool)
    mask[0, 4] = mask[2, 0] = True
    inside = patch_pixels(mask, (2, 3), (16, 24))
    assert inside.sum((1, 2, 3)).tolist() == [64, 0, 64]
    assert bool(inside[0, 0, 8:, 8:16].all())
    found = augment_patches(x, mask, (2, 3), sigma=(20.0, 20.0))
    side = 20.0 * 16 / 224
    torch.testing.assert_close(found, torch.where(inside, blur_batch(x, torch.full((3,), side)), x))
    assert torch.equal(augment_patches(x, mask, (2, 3), how="none"), x)
    flat = blur_batch(torch.ones(2, 1, 9, 9), torch.tensor([0.5, 2.0]))
    torch.testing.assert_close(flat, torch.ones_like(flat))
    point = torch.zeros(2, 1, 21, 21)
    point[:, :, 10, 10] = 1
    spread = blur_batch(point, torch.tensor([0.5, 2.0]))
    offsets = np.arange(-6, 7)
    for k, sigma in enumerate((0.5, 2.0)):
        g = np.exp(-0.5 * (offsets / sigma) ** 2)
        np.testing.assert_allclose(spread[k, 0, 10, 4:17], g * g[6] / g.sum() ** 2, atol=1e-6)
    for how in ("noise", "colour"):
        changed = augment_patches(x, mask, (2, 3), how=how)
        assert torch.equal(changed[1], x[1])
        assert not torch.equal(changed[0], x[0])
    with pytest.raises(UserError, match="don't divide"):
        augment_patches(x, mask, (3, 2))


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> selftaught.Run:
    out = str(tmp_path_factory.mktemp("glare") / "dino")
    options = {"encoder": "vit-nano", "image_size": 14, "projector": "24-12", "prototypes": 9, "local_crops": 0}
    return selftaught.train("dino", "digits?n=200", out=out, augment="grey", steps=4, batch_size=32, **QUIET | options)


@pytest.mark.slow
@pytest.mark.parametrize(("adapter", "form"), [("uni", "safetensors"), ("lora", "timm")])
def test_a_run_goes_in_and_an_adapted_one_comes_out(
    original: selftaught.Run, adapter: str, form: str, tmp_path: Path
) -> None:
    options = {name: value for name, value in TINY.items() if name not in ("encoder", "image_size")}
    run = selftaught.train(
        "glare", "digits?n=300", init=str(original.path), out=str(tmp_path / "run"), adapter=adapter, steps=4,
        batch_size=16, head_warmup=1, **QUIET | options,
    )  # fmt: skip
    assert run.method.config.image_size == 14
    assert torch.equal(run.method.pixel_mean, original.method.pixel_mean)
    assert weights_hash(run.method.encoder) == weights_hash(original.method.deliverable())
    x = torch.randn(3, 1, 14, 14)
    with torch.no_grad():
        assert not torch.allclose(run.encoder(x), original.encoder(x), atol=1e-5)
    assert run.apply("digits?n=40", tmp_path / "found.npy") == 40
    judged, alone = (
        run.evaluate("digits?n=200", protocols=["knn", "diagnostics"]),
        original.evaluate("digits?n=200", protocols=["knn"]),
    )
    assert list(judged["knn"]) == ["this", "original", "random", "raw"]
    assert judged["knn"]["original"]["accuracy"].mean == alone["knn"]["this"]["accuracy"].mean
    page = run.report().read_text()
    assert page.count(">original model<") > 2, "in the table and in the spectrum"
    assert run.method.deliverable() is not run.method.encoder
    exported = run.export(form, tmp_path / "model")
    weights = load_file(exported / "model.safetensors" if form == "timm" else exported)
    assert any(".qkv." in name for name in weights)
    if form == "timm":
        folder = run.export("peft")
        assert {file.name for file in folder.iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
        assert all(".lora_" in name for name in load_file(folder / "adapter_model.safetensors"))
    else:
        with pytest.raises(UserError, match="peft's format is for lora"):
            run.export("peft")
        with pytest.raises(UserError, match="has no LoRA"):
            original.export("peft")
    if form == "timm":  # merged: a plain network under timm's names
        plain = networks.build(dict(run.method.exported()[1]))
        plain.model.load_state_dict(weights)
        torch.testing.assert_close(plain.eval()(x), run.encoder.cpu()(x), atol=1e-4, rtol=1e-3)
    again = selftaught.load(tmp_path / "run")
    torch.testing.assert_close(again.encoder(x), run.encoder(x))


@pytest.mark.slow
def test_a_cut_run_ends_in_the_same_weights(original: selftaught.Run, tmp_path: Path) -> None:
    options: dict[str, Any] = {n: v for n, v in TINY.items() if n not in ("encoder", "image_size")} | QUIET
    options |= {"init": str(original.path), "steps": 10, "batch_size": 8, "checkpoint_steps": 5, "head_warmup": 2}
    kind = methods.get("glare")
    selftaught.train("glare", "digits?n=200", out=str(tmp_path / "whole"), **options)
    after = kind.after_step

    def power_cut(self: Any) -> None:
        after(self)
        if self.steps == 8:
            raise RuntimeError("power cut")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(kind, "after_step", power_cut)
        with pytest.raises(RuntimeError, match="power cut"):
            selftaught.train("glare", "digits?n=200", out=str(tmp_path / "cut"), **options)
    selftaught.train("glare", resume=tmp_path / "cut", quiet=True)
    whole, cut = (load_file(tmp_path / name / "encoder.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


@pytest.mark.slow
def test_it_learns_the_local_and_regional_terms_fall_and_nothing_collapses(original: selftaught.Run) -> None:
    from selftaught.data import open_source
    from selftaught.engine.loader import DataModule

    torch.manual_seed(0)
    method = methods.get("glare")(channels=1, **TINY | {"prototypes": 32, "head_norm": "bn", "patch_augment": "blur"})
    method.encoder.load_state_dict(original.encoder.state_dict())
    data = DataModule(open_source("digits?n=600", split="all"), method, batch_size=16, workers=0, total_batches=40)
    optimiser = torch.optim.AdamW(method.trained_modules().parameters(), lr=5e-3)
    seen = []
    for batch in data.train_dataloader():
        found = method.loss(method.on_after_batch_transfer(batch))
        optimiser.zero_grad()
        found["loss"].backward()
        optimiser.step()
        method.momentum.base = 0.98
        method.momentum.update(method.followed())
        seen.append([float(found[name].detach()) for name in ("local", "regional", "teacher_entropy")])
    first, last = np.mean(seen[:5], 0), np.mean(seen[-6:], 0)
    assert last[0] < 0.97 * first[0]
    assert last[1] < 0.97 * first[1]
    assert 0.05 * np.log(32) < last[2] < 0.995 * np.log(32)
