"""SimMIM, BEiT, MaskFeat, iBOT and MSN as wired: their loss is the papers' of their own outputs, and it teaches."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

import selftaught
from selftaught import methods, objectives
from selftaught.errors import UserError
from selftaught.networks.tokens import patchify

SMALL = {"encoder": "vit-nano", "image_size": 28}
HEAD = {"projector": "32-16", "prototypes": 12}
MADE = {
    "simmim": {}, "maskfeat": {}, "beit": {"words": 8}, "ibot": HEAD | {"local_crops": 2, "local_size": 24},
    "msn": HEAD | {"local_crops": 2, "local_size": 24},
}  # fmt: skip
ONE_STREAM = ("simmim", "maskfeat", "beit")


class Quarters(nn.Module):
    """A tokeniser of one's own: how bright is a patch, in four steps?"""

    words = 4

    def forward(self, x):
        return (patchify(x, (2, 2)).mean(2) * 4).long().clamp(0, 3)


def made(slug: str, **options):
    torch.manual_seed(0)
    return methods.get(slug)(**SMALL | MADE[slug] | options)


def batch_for(method, n: int = 4) -> dict:
    g = torch.Generator().manual_seed(0)
    sizes = [view.size for view in method.views()]
    views = [torch.randint(0, 256, (n, method.channels, *s), generator=g, dtype=torch.uint8) for s in sizes]
    return method.on_after_batch_transfer({"views": views, "index": torch.arange(n)})


@pytest.mark.parametrize("slug", MADE)
def test_gradient_reaches_all_that_learns_and_no_teacher(slug: str) -> None:
    method = made(slug, channels=4)
    batch = batch_for(method)
    if slug == "beit":
        method.step(batch)
        method.enter_stage("train")
    if slug == "ibot":
        method.config.mask_probability = 1.0
    terms = method.loss(batch)
    assert torch.isfinite(terms["loss"])
    terms["loss"].backward()
    for name, parameter in method.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
    if slug != "msn":
        assert method.mask_token.grad.abs().sum() > 0
    assert method.predict(batch).shape == (4, 96)


@pytest.mark.parametrize("slug", ONE_STREAM)
@pytest.mark.parametrize("mask", ["units", "block", "random", "grid", "attention"])
def test_what_is_hidden_has_no_influence_on_the_answers(slug: str, mask: str) -> None:
    method = made(slug, mask=mask).eval()
    x = batch_for(method)["views"][0]
    hidden = method.hide(x)
    assert hidden.shape == (4, 49)
    assert 0.2 < hidden.float().mean() < 0.8
    other = torch.where(method.whole(hidden[:, :, None].expand(-1, -1, 48).float()).bool(), torch.full_like(x, 3.0), x)
    torch.testing.assert_close(method.answers(x, hidden), method.answers(other, hidden), rtol=1e-4, atol=1e-4)


def test_simmims_loss_is_the_sheets() -> None:
    for norm in (False, True):
        method = made("simmim", norm_pix=norm, mask_unit=1).eval()
        batch = batch_for(method)
        x = batch["views"][0]
        torch.manual_seed(1)
        found = method.loss(batch)["loss"]
        torch.manual_seed(1)
        mask = method.hide(x)
        assert torch.equal(mask.sum(1), torch.full((4,), 30))  # ceil(0.6 49)
        patches = method.cut(x)
        if norm:
            patches = (patches - patches.mean(2, keepdim=True)) / (patches.std(2, keepdim=True) + 1e-6)
        error = (method.answers(x, mask) - patches).abs().sum(2)[mask].sum()
        assert found.item() == pytest.approx((error / (mask.sum() * 16 + 1e-5) / 3).item(), rel=1e-4)


def test_maskfeats_targets_are_the_histograms_of_the_views_pixels() -> None:
    method = made("maskfeat").eval()
    batch = batch_for(method)
    x = batch["views"][0]
    unit = x * method.pixel_std[:, None, None] + method.pixel_mean[:, None, None]
    targets = objectives.hog_targets(unit, 4, cell=2, window=4)
    assert method.answer.out_features == targets.shape[2] == 3 * 9 * 4
    torch.testing.assert_close(method.targets(x), targets, atol=1e-4, rtol=0)
    with pytest.raises(UserError, match="cell=3"):
        made("maskfeat", cell=3)


def test_beits_words_come_from_a_copy_of_half_the_size_and_stay() -> None:
    method = made("beit")
    assert method.stages == ("words", "train")
    assert method.optimisers() == {}
    batch = batch_for(method)
    x = batch["views"][0]
    before = method.codebook.weight.clone()
    method.step(batch)
    assert not torch.equal(method.codebook.weight, before)
    assert method.copy(x).shape == (4, 3, 14, 14)
    rows = patchify(method.copy(x), (2, 2))
    assert torch.equal(method.words(x), torch.cdist(rows, method.codebook.weight.expand(4, -1, -1)).argmin(2))
    method.enter_stage("train")
    torch.manual_seed(1)
    found = method.eval().loss(batch)
    torch.manual_seed(1)
    mask = method.hide(x)
    assert mask.sum(1).max() <= 18  # 0.383 of 49
    assert found["loss"].item() == pytest.approx(objectives.beit(method.answers(x, mask), method.words(x), mask).item())


def test_a_tokeniser_of_ones_own_takes_the_first_stages_place() -> None:
    method = made("beit", tokeniser=f"{__name__}:Quarters")
    assert method.stages == ("train",)
    assert method.answer.out_features == 4
    assert "own" not in " ".join(method.state_dict())
    assert method.words(batch_for(method)["views"][0]).max() <= 3
    method.loss(batch_for(method))["loss"].backward()
    for wrong in ("mine", "no.such:thing", "torch:relu"):
        with pytest.raises((UserError, TypeError)):
            made("beit", tokeniser=wrong)


def test_ibots_loss_is_the_sheets_and_both_centres_move_after_it() -> None:
    method = made("ibot", patch_temperature_start=0.05, lambda2=0.5)
    with torch.no_grad():
        for parameter in method.momentum.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    method.center.normal_(std=0.05)
    method.patch_center.normal_(std=0.05)
    c1, c2 = method.center.clone(), method.patch_center.clone()
    batch = batch_for(method)
    crops = batch["views"]
    torch.manual_seed(1)
    terms = method.eval().loss(batch)
    torch.manual_seed(1)
    mask = method.hide(torch.cat(crops[:2])).view(2, 4, 49)
    encoder, head = method.momentum.average
    s_cls, s_patch, t_cls, t_patch = [], [], [], []
    for crop, hidden in zip(crops[:2], mask, strict=True):
        whole, parts = method.encoder.tokens(crop, mask=hidden, mask_token=method.mask_token)
        s_cls.append(method.projector(whole))
        s_patch.append(method.projector(parts.flatten(0, 1)).view(4, 49, -1))
        whole, parts = encoder.tokens(crop)
        t_cls.append(head(whole))
        t_patch.append(head(parts.flatten(0, 1)).view(4, 49, -1))
    s_cls += [method.projector(method.encoder(crop)) for crop in crops[2:]]
    expected = objectives.ibot(
        s_cls, t_cls, torch.stack(s_patch), torch.stack(t_patch), mask, center=c1, patch_center=c2,
        patch_temperature=0.05, lambda2=0.5,
    )  # fmt: skip
    assert terms["loss"].item() == pytest.approx(expected.item(), rel=1e-4)
    torch.testing.assert_close(method.center, 0.9 * c1 + 0.1 * torch.stack(t_cls).mean((0, 1)), atol=1e-4, rtol=1e-3)
    moved = 0.9 * c2 + 0.1 * torch.stack(t_patch).mean((0, 1, 2))
    torch.testing.assert_close(method.patch_center, moved, atol=1e-4, rtol=1e-3)
    attended = made("ibot", mask="attention")
    assert torch.equal(attended.hide(crops[0]).sum(1), torch.full((4,), 14))


def test_ibot_clips_every_gradient_by_itself() -> None:
    method = made("ibot", clip_each=0.5, freeze_epochs=0.0)
    optimizer = torch.optim.AdamW(method.parameters())
    for place, parameter in enumerate(method.parameters()):
        if parameter.requires_grad:
            parameter.grad = torch.full_like(parameter, 10.0 if place % 2 else 1e-6)
    small = [p for place, p in enumerate(method.parameters()) if p.grad is not None and not place % 2]
    method.edit_gradients(optimizer)
    norms = [p.grad.norm().item() for p in method.parameters() if p.grad is not None]
    assert max(norms) == pytest.approx(0.5, rel=1e-3)
    assert all(p.grad.max() == 1e-6 for p in small)


def test_msns_anchors_leave_patches_out_and_its_target_none() -> None:
    method = made("msn", mask_ratio=0.5, anchors=2).eval()
    assert len(method.views()) == 5
    batch = batch_for(method)
    crops = batch["views"]
    torch.manual_seed(1)
    found = method.loss(batch)["loss"]
    torch.manual_seed(1)
    anchors = [*method.masked(torch.cat(crops[1:3])).chunk(2), *(method.project(crop) for crop in crops[3:])]
    expected = objectives.msn(torch.stack(anchors), method.target(crops[0]), method.prototypes.weight)
    assert found.item() == pytest.approx(expected.item(), rel=1e-4)
    whole = made("msn", mask_ratio=0.0).eval()
    torch.testing.assert_close(whole.masked(crops[0]), whole.project(crops[0]), rtol=1e-4, atol=1e-4)
    assert method.deliverable() is method.momentum.average[0]
    assert made("msn", keep="student").deliverable() is not None


@pytest.mark.parametrize("slug", MADE)
def test_a_network_without_patches_is_refused(slug: str) -> None:
    with pytest.raises(UserError, match="use a ViT"):
        made(slug, encoder="resnet10-narrow")


@pytest.mark.slow
@pytest.mark.parametrize(("slug", "steps", "falls"), [("simmim", 15, 0.85), ("maskfeat", 15, 0.8), ("beit", 15, 0.95)])
def test_what_is_hidden_is_learnt(slug: str, steps: int, falls: float) -> None:
    """The error of hidden patches of digits that it has not seen falls well below where it began."""
    method = made(slug, channels=1)
    digits = torch.from_numpy(load_digits().images).float()[:, None] / 4 - 2
    x = torch.nn.functional.interpolate(digits, (28, 28), mode="bilinear")
    if slug == "beit":
        method.step({"views": [x[:64]]})
        method.enter_stage("train")
    held = {"views": [x[-200:]]}
    with torch.no_grad():
        before = method.loss(held)["loss"].item()
    optimiser = torch.optim.AdamW([p for p in method.parameters() if p.requires_grad], 2e-3)
    for _ in range(steps):
        optimiser.zero_grad()
        method.loss({"views": [x[torch.randint(1500, (32,))]]})["loss"].backward()
        optimiser.step()
    with torch.no_grad():
        assert method.loss(held)["loss"].item() < falls * before


@pytest.mark.slow
def test_beit_resumes_after_its_words_to_the_bit(tmp_path: Path) -> None:
    options = {
        "preset": "laptop", "image_size": 28, "steps": 4, "batch_size": 16, "workers": 0, "quiet": True,
        "knn_every": 0, "words": 8, "tokeniser_steps": 3, "loggers": ["none"],
    }  # fmt: skip
    whole = selftaught.train("beit", "digits", out=str(tmp_path / "whole"), **options)
    kind = methods.get("beit")
    step = kind.step

    def power_cut(self, batch):
        if self.stage == "train" and self.steps == 1:
            raise RuntimeError("power cut")
        return step(self, batch)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(kind, "step", power_cut)
        with pytest.raises(RuntimeError, match="power cut"):
            selftaught.train("beit", "digits", out=str(tmp_path / "cut"), **options)
    cut = selftaught.train("beit", resume=tmp_path / "cut", quiet=True)
    for name, weights in whole.method.deliverable().state_dict().items():
        assert torch.equal(cut.method.deliverable().state_dict()[name], weights), name
