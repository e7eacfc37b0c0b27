"""SiT as wired: who sees what, how the teacher moves, options and early versions, a run that goes on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from selftaught import methods, networks, objectives, views
from selftaught.engine.optim import clip_each
from selftaught.errors import UserError
from tests.methods.resuming import cut_and_whole

TINY = {"encoder": "vit-pico", "image_size": 32, "patch": 8, "projector": "16-16-8"}
VIEWS = [torch.randn(6, 1, 32, 32, generator=torch.Generator().manual_seed(k)) for k in (0, 1)]


def made(**options):
    torch.manual_seed(0)
    return methods.SiT(channels=1, **TINY | options)


def test_the_loss_is_the_formula_of_its_own_outputs() -> None:
    method = made(restore_weight=5.0, drop_path=0.0)
    with torch.no_grad():
        for p in method.momentum.parameters():
            p.add_(0.05 * torch.randn_like(p))
    torch.manual_seed(3)
    seen, masks = zip(*(method.corrupted(view) for view in VIEWS), strict=True)
    whole, patches = method.encoder.tokens(torch.cat(seen))
    q1, q2 = method.projector(whole).chunk(2)
    encoder, head = method.momentum.average
    with torch.no_grad():
        k1, k2 = head(encoder.tokens(torch.cat(VIEWS))[0]).chunk(2)
    restored = method.restoration(patches, (4, 4))
    expected = objectives.sit(q1, q2, k1, k2, restored, torch.cat(VIEWS), torch.cat(masks), weight=5.0)
    torch.manual_seed(3)
    found = method.loss({"views": VIEWS})
    assert found["loss"].item() == pytest.approx(expected.item(), rel=1e-5)
    found["loss"].backward()
    assert all(p.grad is None for p in method.momentum.parameters())
    assert not {n for n, p in method.named_parameters() if p.requires_grad and p.grad is None}


def test_the_networks_are_the_sheets() -> None:
    method = methods.SiT(channels=3)
    head = [type(part).__name__ for part in method.projector]
    assert head == ["Linear", "BatchNorm1d", "ReLU", "Linear", "BatchNorm1d", "GELU", "Linear", "BatchNorm1d"]
    assert not method.projector[-1].affine
    assert [method.projector[i].out_features for i in (0, 3, 6)] == [4096, 4096, 256]
    own = sum(p.numel() for p in method.restoration.parameters())
    assert own == 3 * (384 * 384 + 384) + 384 * 3 * 256 + 3
    depths = [getattr(block.drop_path1, "drop_prob", 0.0) for block in method.encoder.model.blocks]
    assert depths == pytest.approx(np.linspace(0, 0.1, 12))
    teacher = method.momentum.average[0].model.blocks
    assert all(getattr(block.drop_path1, "drop_prob", 0.0) == 0 for block in teacher)
    groups = method.optimisers()["main"].parameters
    assert any(p is method.encoder.model.pos_embed for p in groups[0]["params"]), "positions have a decay"
    assert {p.ndim for p in groups[1]["params"]} == {1}
    classifier = networks.SiTClassifier(method.encoder, 7)
    assert classifier(torch.zeros(1, 3, 224, 224)).shape == (1, 7)


def test_the_teacher_moves_and_stays_in_training_mode() -> None:
    method = made(target_decay=0.9, target_schedule="constant")
    old = [p.clone() for p in method.momentum.parameters()]
    with torch.no_grad():
        for p in method.followed().parameters():
            p.add_(1.0)
    method.after_step()
    new = method.followed().parameters()
    moved = zip(method.momentum.parameters(), old, new, strict=True)
    assert all(torch.allclose(p, 0.9 * a + 0.1 * b, atol=1e-5) for p, a, b in moved)
    method.train()
    assert method.momentum.average.training


@pytest.mark.parametrize(
    ("options", "terms"),
    [
        ({"contrast": False}, {"restore"}),
        ({"restore": False, "corrupt_most": 0.0}, {"contrast"}),
        (
            {"rotation": True, "uncertainty": True, "corrupt": "zeros+noise+shuffle+other"},
            {"contrast", "restore", "rotation"},
        ),
        ({"align": 8, "mix": 0.0, "restore_kind": "l2", "pool": "avg"}, {"contrast", "restore"}),
    ],
)
def test_options_and_early_versions(options: dict, terms: set) -> None:
    method = made(**options)
    found = method.loss({"views": VIEWS})
    assert set(found) == terms | {"loss"}
    found["loss"].backward()
    assert torch.isfinite(found["loss"])
    assert method.predict({"views": VIEWS[:1]}).shape == (6, 32)
    if "rotation" in terms:
        assert method.log_variances.grad is not None
        assert method.encoder.model.reg_token.grad is not None
    assert set(method.eval().pictures(VIEWS[0])) == {"corrupted", "restored", "original"}


def test_every_gradient_is_clipped_by_itself() -> None:
    a, b, c = (torch.zeros(4, requires_grad=True) for _ in range(3))
    a.grad, b.grad = torch.full((4,), 10.0), torch.full((4,), 0.1)
    clip_each([a, b, c], 3.0)
    assert a.grad.norm().item() == pytest.approx(3.0)
    assert torch.equal(b.grad, torch.full((4,), 0.1))
    clip_each([a], 0.0)
    assert a.grad.norm().item() == pytest.approx(3.0)


def test_what_makes_no_sense_is_refused() -> None:
    for options, message in (
        ({"contrast": False, "restore": False}, "can't both be off"),
        ({"encoder": "resnet18"}, "use a ViT"),
        ({"projector": "16-8"}, "three layers"),
        ({"corrupt": "paint"}, "kinds joined"),
    ):
        with pytest.raises(UserError, match=message):
            made(**options)


@pytest.mark.slow
def test_a_resumed_run_ends_in_the_same_weights(tmp_path: Path) -> None:
    options = TINY | {"steps": 10, "batch_size": 32, "preset": "laptop", "knn_every": 0, "workers": 0, "quiet": True}
    whole, cut = cut_and_whole("sit", tmp_path, options)
    assert all(torch.equal(torch.as_tensor(whole[name]), torch.as_tensor(cut[name])) for name in whole)


@pytest.mark.slow
def test_restoring_learns_stripes() -> None:
    """Masked-pixel error well below that of the per-pixel mean, which knows nothing of the image."""
    method = made(contrast=False, mix=0.0)
    optimizer = torch.optim.AdamW([p for p in method.parameters() if p.requires_grad], lr=2e-3)
    losses = []
    for _ in range(60):
        level = torch.randn(16, 1, 1, 1).expand(-1, 1, 32, 32).clone()
        found = method.loss({"views": [level[:8], level[8:]]})["loss"]
        optimizer.zero_grad()
        found.backward()
        optimizer.step()
        losses.append(found.item() / level.abs().mean().item())
    assert np.mean(losses[-5:]) < 0.5


def test_mild_views_are_never_mirrored_and_show_the_whole_image() -> None:
    ramp = np.tile(np.linspace(0, 255, 32).astype(np.uint8), (32, 1))[..., None]
    rng = np.random.default_rng(0)
    for augment, mirrored in (("mild", False), ("grey", True)):
        pipeline = made(augment=augment, crop=0.5).views()[0]
        rows = [views.render(ramp, pipeline, pipeline.sample(rng, 32, 32))[..., 0].astype(int) for _ in range(40)]
        assert any(row[:, 0].sum() > row[:, -1].sum() for row in rows) == mirrored
        assert len({row.tobytes() for row in rows}) > 30
        spans = [np.ptp(row) for row in rows]
        assert (min(spans) > 150) == (not mirrored)


def test_small_crops_of_mild_views_are_small() -> None:
    method = methods.DINO(channels=1, encoder="vit-pico", image_size=32, augment="mild", local_crops=2, local_crop=0.1)
    rng, image = np.random.default_rng(0), np.zeros((32, 32, 1), np.uint8)
    shapes = [views.render(image, view, view.sample(rng, 32, 32)).shape[0] for view in method.views()]
    assert shapes == [32, 32, method.local_side, method.local_side]
    assert method.local_side < 32
