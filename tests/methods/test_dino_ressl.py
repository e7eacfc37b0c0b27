"""DINO and ReSSL as wired: teacher, centre, queue and views; their loss is the papers' of their own outputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import selftaught
from selftaught import methods
from selftaught.errors import UserError
from selftaught.views import GaussianBlur, HorizontalFlip, RandomResizedCrop, Solarize
from tests.conftest import TINY
from tests.methods.learning import assert_learns_photographs
from tests.methods.resuming import cut_and_whole

SMALL = {"encoder": "resnet10-narrow", "image_size": 32, "projector": "24-12", "augment": "small"}
DINO = SMALL | {"local_crops": 2, "prototypes": 9}


def batch_for(method, n: int = 10, channels: int = 3, seed: int = 0) -> dict:
    g = torch.Generator().manual_seed(seed)
    sizes = [pipeline.size for pipeline in method.views()]
    crops = [torch.randint(0, 256, (n, channels, *size), generator=g, dtype=torch.uint8) for size in sizes]
    return method.on_after_batch_transfer({"views": crops, "index": torch.arange(n)})


def stir(method) -> None:
    """Move the momentum copy away from the student, so that a test can tell them apart."""
    with torch.no_grad():
        for p in method.momentum.parameters():
            p.add_(0.05 * torch.randn_like(p))


def softmax(x: np.ndarray) -> np.ndarray:
    powers = np.exp(x - x.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def literal_dino(student: np.ndarray, teacher: np.ndarray, center: np.ndarray, tau_t: float) -> float:
    found = [
        -(softmax((t - center) / tau_t) * np.log(softmax(s / 0.1))).sum(1).mean()
        for u, t in enumerate(teacher)
        for v, s in enumerate(student)
        if u != v
    ]
    return float(np.mean(found))


def outputs(method, batch) -> tuple[np.ndarray, np.ndarray]:
    """Logits of student (all crops) and teacher (large crops), the head over all crops of each at once."""
    encoder, head = method.momentum.average
    large, small = batch["views"][:2], batch["views"][2:]
    with torch.no_grad():
        s = method.projector(torch.cat([method.encoder(torch.cat(group)) for group in (large, small) if group]))
        t = head(encoder(torch.cat(large)))
    count = len(batch["views"])
    return s.double().view(count, -1, 9).numpy(), t.double().view(2, -1, 9).numpy()


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("norm", ["none", "bn"])
def test_dinos_loss_is_the_papers_and_the_centre_moves_after_it(channels: int, norm: str) -> None:
    method = methods.DINO(channels=channels, head_norm=norm, teacher_temperature=0.06, **DINO)
    stir(method)
    method.center.normal_(std=0.05)
    before = method.center.double().numpy().copy()
    batch = batch_for(method, channels=channels)
    student, teacher = outputs(method, batch)
    terms = method.loss(batch)
    assert terms["loss"].item() == pytest.approx(literal_dino(student, teacher, before, 0.06), rel=1e-4)
    moved = 0.9 * before + 0.1 * teacher.mean((0, 1))
    np.testing.assert_allclose(method.center.double().numpy(), moved, atol=1e-6)
    terms["loss"].backward()
    assert all(p.grad is None for p in method.momentum.parameters())
    trained = {name: p for name, p in method.named_parameters() if p.requires_grad}
    assert all(p.grad is not None for p in trained.values())
    assert method.encoder.model.conv1.weight.grad.abs().sum() > 0
    assert not method.projector.prototypes.parametrizations.weight.original0.requires_grad
    torch.testing.assert_close(method.projector.prototypes.weight.norm(dim=1), torch.ones(9))


def test_without_centring_the_centre_is_left_out() -> None:
    method = methods.DINO(centering=False, **DINO)
    stir(method)
    method.center.fill_(3.0)
    method.center[0] = -3.0
    batch = batch_for(method)
    student, teacher = outputs(method, batch)
    assert method.loss(batch)["loss"].item() == pytest.approx(
        literal_dino(student, teacher, np.zeros(9), 0.04), rel=1e-4
    )


def test_dinos_teacher_follows_the_student() -> None:
    method = methods.DINO(target_schedule="constant", target_decay=0.9, **DINO)
    before = [p.clone() for p in method.momentum.parameters()]
    with torch.no_grad():
        for p in method.encoder.parameters():
            p.add_(1.0)
    method.after_step()
    encoder = list(method.encoder.parameters())
    for old, new, p in zip(before, method.momentum.parameters(), encoder, strict=False):
        torch.testing.assert_close(new, 0.9 * old + 0.1 * p)


def test_dino_delivers_its_teacher_or_its_student() -> None:
    for keep in ("teacher", "student"):
        method = methods.DINO(keep=keep, **DINO).eval()
        stir(method)
        batch = batch_for(method)
        chosen = method.momentum.average[0] if keep == "teacher" else method.encoder
        other = method.encoder if keep == "teacher" else method.momentum.average[0]
        assert method.deliverable() is chosen
        assert torch.equal(method.predict(batch), chosen(batch["views"][0]))
        assert not torch.allclose(method.predict(batch), other(batch["views"][0]))


def test_dinos_paper_views() -> None:
    method = methods.DINO(
        encoder="resnet10-narrow", image_size=224, projector="24-12", prototypes=9, local_crops=3, augment="paper"
    )
    first, second, *small = method.views()
    assert [op.p for op in first.ops if isinstance(op, GaussianBlur)] == [1.0]
    assert [op.p for op in second.ops if isinstance(op, GaussianBlur | Solarize)] == [0.1, 0.2]
    assert [p.size for p in small] == [(96, 96)] * 3
    for view in small:
        assert [op.p for op in view.ops if isinstance(op, GaussianBlur | Solarize)] == [0.5]
        assert view.ops[0].scale == (0.05, 0.4)
    assert first.ops[0].scale == (0.4, 1.0)


def test_a_transformer_takes_both_sizes() -> None:
    method = methods.DINO(**DINO | {"encoder": "vit_tiny_patch16_224", "projector": "24-24-12"})
    batch = batch_for(method, n=3)
    assert {view.shape[-1] for view in batch["views"]} == {32, 24}
    method.loss(batch)["loss"].backward()
    assert method.encoder.model.patch_embed.proj.weight.grad.abs().sum() > 0
    assert method.predict(batch).shape == (3, 192)
    space: dict = {}
    exec(method.deliverable_spec()["timm_code"], space)
    again = space["model"].eval()
    again.load_state_dict(method.deliverable().model.state_dict())
    method.eval()
    torch.testing.assert_close(again(batch["views"][0]), method.predict(batch))


def test_the_teachers_temperature_warms_up_over_its_epochs() -> None:
    method = methods.DINO(teacher_temperature_start=0.04, teacher_temperature=0.07, teacher_warmup_epochs=10.0, **DINO)
    assert method.teacher_temperature == pytest.approx(0.04)
    assert methods.DINO(**DINO).teacher_temperature == pytest.approx(0.04)
    assert methods.DINO(teacher_temperature=0.07, **DINO).teacher_temperature == pytest.approx(0.07)


def test_dinos_prototypes_wait_and_the_weight_decay_rises(tmp_path: Path) -> None:
    options = TINY | {"augment": "grey", "projector": "32-16", "prototypes": 12, "local_crops": 1, "steps": 6}
    options |= {"weight_decay": 0.1, "final_weight_decay": 0.5, "checkpoint_steps": 1}
    frozen = selftaught.train("dino", "digits", out=str(tmp_path / "a"), freeze_epochs=100.0, **options)
    free = selftaught.train("dino", "digits", out=str(tmp_path / "b"), freeze_epochs=0.0, **options)
    states = [torch.load(run.path / "checkpoints/train.ckpt", weights_only=True) for run in (frozen, free)]
    name = "projector.prototypes.parametrizations.weight.original1"
    copy = "momentum.average.1.prototypes.parametrizations.weight.original1"
    first, second = (state["state_dict"] for state in states)
    torch.testing.assert_close(first[name], first[copy])  # never moved: the copy has nothing to follow
    assert (second[name] - second[copy]).abs().max() > 1e-6
    for state in states:
        decays = [group["weight_decay"] for group in state["optimizer_states"][0]["param_groups"]]
        expected = 0.5 - 0.4 * (1 + np.cos(np.pi * 5 / 6)) / 2  # of the sixth step, the last
        assert decays == pytest.approx([expected, 0.0])


def test_dinos_head_wants_equal_hidden_widths() -> None:
    with pytest.raises(UserError, match="one width"):
        methods.DINO(**DINO | {"projector": "24-16-12"})
    deep = methods.DINO(**DINO | {"projector": "24-24-12"})
    assert [m.out_features for m in deep.projector.body if isinstance(m, nn.Linear)] == [24, 24, 12]


@pytest.mark.parametrize("channels", [3, 4])
def test_ressls_loss_is_the_papers_and_the_queue_takes_the_teachers_keys_after_it(channels: int) -> None:
    method = methods.ReSSL(channels=channels, queue=32, **SMALL)
    stir(method)
    batch, queue = batch_for(method, channels=channels), method.queue.items.double().numpy().copy()
    strong, weak = batch["views"]
    with torch.no_grad():
        q, k = method.project(strong).double().numpy(), method.momentum(weak).double().numpy()
    q, k = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (q, k))
    expected = -(softmax(k @ queue.T / 0.04) * np.log(softmax(q @ queue.T / 0.1))).sum(1).mean()
    terms = method.loss(batch)
    assert terms["loss"].item() == pytest.approx(expected, rel=1e-4)
    np.testing.assert_allclose(method.queue.items[:10].double().numpy(), k, atol=1e-5)
    np.testing.assert_allclose(method.queue.items[10:].double().numpy(), queue[10:], atol=1e-7)
    terms["loss"].backward()
    assert all(p.grad is None for p in method.momentum.parameters())
    assert all(p.grad is not None for p in (*method.encoder.parameters(), *method.projector.parameters()))


def test_ressls_teacher_sees_crop_and_flip_alone_unless_the_ablation_asks() -> None:
    options = SMALL | {"augment": "paper", "image_size": 96}
    strong, weak = methods.ReSSL(queue=8, **options).views()
    assert [type(op) for op in weak.ops] == [RandomResizedCrop, HorizontalFlip]
    assert len(strong.ops) == 5
    assert weak.ops[:2] == strong.ops[:2]
    both = methods.ReSSL(queue=8, teacher_view="strong", **options).views()
    assert both[0].ops == both[1].ops == strong.ops


def test_ressls_queue_holds_at_most_half_the_data() -> None:
    assert len(methods.ReSSL(queue=64, samples=50, **SMALL).queue) == 25
    assert len(methods.ReSSL(queue=64, samples=500, **SMALL).queue) == 64
    assert len(methods.ReSSL(queue=64, **SMALL).queue) == 64


@pytest.mark.slow
@pytest.mark.parametrize(
    ("slug", "more", "names"),
    [
        (
            "dino",
            {"prototypes": 12, "local_crops": 1, "head_norm": "bn"},
            {"center", "momentum.average.1.body.0.weight"},
        ),
        ("ressl", {"queue": 96}, {"queue.items", "queue.pointer", "momentum.average.1.0.weight"}),
    ],
)
def test_a_killed_run_resumes_bit_identically(slug: str, more: dict, names: set[str], tmp_path: Path) -> None:
    whole, cut = cut_and_whole(slug, tmp_path, TINY | more)
    assert names <= whole.keys()
    tensors = {name: value for name, value in whole.items() if isinstance(value, torch.Tensor)}
    assert all(torch.equal(value, cut[name]) for name, value in tensors.items())


@pytest.mark.slow
@pytest.mark.parametrize("slug", ["dino", "ressl"])
def test_it_learns_photographs(slug: str, tmp_path: Path) -> None:
    assert_learns_photographs(
        slug, tmp_path / "run", margin=0.02, **({"local_crops": 0} if slug == "dino" else {"steps": 40})
    )
