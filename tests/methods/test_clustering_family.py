"""SwAV and SEER as wired: crops, codes, queue, prototypes, prior; their loss is the sheet's of their own embeddings."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import selftaught
from selftaught import methods, networks, views
from selftaught.engine.checkpointing import blocks
from selftaught.errors import UserError
from tests.conftest import TINY
from tests.methods.learning import assert_learns_photographs, by_one_and_two
from tests.methods.resuming import cut_and_whole

SMALL = {"encoder": "resnet10-narrow", "image_size": 32, "projector": "24-12", "augment": "small", "local_crops": 2}


def batch_for(method, n: int = 10, channels: int = 3, seed: int = 0) -> dict:
    g = torch.Generator().manual_seed(seed)
    sizes = [pipeline.size for pipeline in method.views()]
    crops = [torch.randint(0, 256, (n, channels, *size), generator=g, dtype=torch.uint8) for size in sizes]
    batch = method.on_after_batch_transfer({"views": crops, "index": torch.arange(n)})
    batch["views"] = [view.to(next(method.parameters()).dtype) for view in batch["views"]]
    return batch


def embeddings(method, batch) -> list[np.ndarray]:
    """Unit embeddings of every crop: sizes through the encoder one by one, the head once over all."""
    with torch.no_grad():
        large, small = batch["views"][:2], batch["views"][2:]
        features = [method.encoder(torch.cat(large))] + ([method.encoder(torch.cat(small))] if small else [])
        z = method.projector(torch.cat(features))
    return [each.numpy() / np.linalg.norm(each.numpy(), axis=1, keepdims=True) for each in z.chunk(2 + len(small))]


def literal_codes(scores: np.ndarray, eps: float, iters: int, exponent: float = 0.0) -> np.ndarray:
    q = np.exp((scores - scores.max()).T / eps)
    prior = np.arange(1, len(q) + 1.0) ** -exponent
    prior /= prior.sum()
    q /= q.sum()
    for _ in range(iters):
        q *= (prior / q.sum(1))[:, None]
        q /= q.sum(0, keepdims=True) * q.shape[1]
    return (q / q.sum(0, keepdims=True)).T


def literal_loss(z, prototypes, eps, iters, *, exponent=0.0, queue=None, hard=False, tau=0.1) -> float:
    scores = [e @ prototypes.T for e in z]
    total = 0.0
    for i in (0, 1):
        rows = scores[i] if queue is None else np.concatenate([queue[i] @ prototypes.T, scores[i]])
        q = literal_codes(rows, eps, iters, exponent)[-len(z[0]) :]
        q = np.eye(q.shape[1])[q.argmax(1)] if hard else q
        for v in range(len(z)):
            if v != i:
                logits = scores[v] / tau
                log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
                total -= (q * log_p).sum(1).mean() / (len(z) - 1) / 2
    return total


@pytest.mark.parametrize("slug", ["swav", "seer"])
@pytest.mark.parametrize("channels", [3, 4])
def test_the_loss_is_the_sheets_of_its_own_embeddings(slug: str, channels: int) -> None:
    prior = {"power_law": 0.6} if slug == "seer" else {}
    method = methods.get(slug)(prototypes="5-7", channels=channels, local_size=24, **prior, **SMALL).double()
    batch = batch_for(method, channels=channels)
    z = embeddings(method, batch)
    eps, iters, exponent = (0.05, 3, 0.0) if slug == "swav" else (0.03, 10, 0.6)
    heads = [head.weight.detach().numpy() for head in method.prototypes]
    expected = np.mean([literal_loss(z, c, eps, iters, exponent=exponent) for c in heads])
    terms = method.loss(batch)
    assert terms["loss"].item() == pytest.approx(expected, rel=1e-9)
    assert 0 < terms["used"].item() <= 1
    terms["loss"].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in method.parameters())
    assert all(head.weight.grad.abs().sum() > 0 for head in method.prototypes)
    assert method.encoder.model.conv1.weight.grad.abs().sum() > 0


def test_hard_codes_at_the_start_and_no_partition_as_ablation() -> None:
    method = methods.SwAV(prototypes="5", hard_steps=3, **SMALL).double()
    batch = batch_for(method)
    z, c = embeddings(method, batch), method.prototypes[0].weight.detach().numpy()
    assert method.loss(batch)["loss"].item() == pytest.approx(literal_loss(z, c, 0.05, 3, hard=True), rel=1e-9)
    method.config.hard_steps, method.config.iters = 0, 0
    assert method.loss(batch)["loss"].item() == pytest.approx(literal_loss(z, c, 0.05, 0), rel=1e-9)


def test_the_queue_is_used_once_full_under_the_present_prototypes_and_before_it_is_pushed() -> None:
    method = methods.SwAV(prototypes="5", queue=20, queue_start=0.0, **SMALL).double()
    c = method.prototypes[0].weight
    seen: list[list[np.ndarray]] = []
    for step in range(4):
        batch = batch_for(method, seed=step)
        z = embeddings(method, batch)
        with torch.no_grad():
            c.copy_(nn.functional.normalize(torch.randn_like(c)))
        queue = [np.concatenate([seen[-2][i], seen[-1][i]]) for i in (0, 1)] if step >= 2 else None
        expected = literal_loss(z, c.detach().numpy(), 0.05, 3, queue=queue)
        assert method.loss(batch)["loss"].item() == pytest.approx(expected, rel=1e-9)
        seen.append(z)
    late = methods.SwAV(prototypes="5", queue=20, queue_start=1.0, **SMALL)
    late.loss(batch_for(late))
    assert int(late.queues[0].filled) == 0


def test_prototypes_keep_length_one_and_wait_for_their_first_steps(tmp_path: Path) -> None:
    options = TINY | {"augment": "grey", "prototypes": "6", "local_crops": 1, "steps": 4, "lr": 0.1}
    options |= {"checkpoint_steps": 1, "lr_scaling": "none", "warmup_epochs": 0.0, "schedule": "constant"}
    frozen = selftaught.train("swav", "digits", out=str(tmp_path / "a"), freeze_steps=4, **options)
    free = selftaught.train("swav", "digits", out=str(tmp_path / "b"), freeze_steps=3, **options)
    torch.manual_seed(0)
    first, second = (
        torch.load(run.path / "checkpoints/train.ckpt", weights_only=True)["state_dict"]["prototypes.0.weight"]
        for run in (frozen, free)
    )
    for weight in (first, second):
        torch.testing.assert_close(weight.norm(dim=1), torch.ones(6))
    # the only difference is the last step: it moved the prototypes of the run that froze them for three
    assert (first - second).abs().max() > 1e-3
    still = selftaught.train("swav", "digits", out=str(tmp_path / "c"), freeze_steps=4, **options | {"steps": 1})
    kept = torch.load(still.path / "checkpoints/train.ckpt", weights_only=True)["state_dict"]["prototypes.0.weight"]
    torch.testing.assert_close(first, kept, rtol=0, atol=1e-6)


def test_the_papers_crops_are_those_of_the_recipe() -> None:
    method = methods.SwAV(encoder="resnet10-narrow", image_size=224, projector="24-12", prototypes="5")
    assert [p.ops for p in method.views()] == [p.ops for p in views.multi_crop(224, 96, n_local=6)]
    seer = methods.SEER(encoder="resnet10-narrow", image_size=160, projector="24-12", prototypes="5")
    assert [p.ops for p in seer.views()] == [p.ops for p in views.multi_crop(160, 96, n_local=4)]
    grey = methods.SwAV(**SMALL | {"augment": "grey", "crop": 0.3}, prototypes="5").views()
    assert [p.size for p in grey] == [(32, 32)] * 2 + [(24, 24)] * 2
    assert [p.ops[0].scale for p in grey] == [(0.3, 1.0)] * 2 + [(0.05, 0.3)] * 2
    none = methods.SwAV(**SMALL | {"local_crops": 0}, prototypes="5")
    assert len(none.views()) == 2


def test_crops_of_one_size_share_batch_norm_and_the_head_sees_all() -> None:
    method = methods.SwAV(prototypes="5", **SMALL)
    calls: list[tuple[str, int]] = []
    method.encoder.register_forward_hook(lambda m, x, y: calls.append(("encoder", len(y))))
    method.projector.register_forward_hook(lambda m, x, y: calls.append(("head", len(y))))
    method.loss(batch_for(method))
    assert calls == [("encoder", 20), ("encoder", 20), ("head", 40)]


def test_heads_have_the_norm_that_was_asked_for() -> None:
    swav = methods.SwAV(prototypes="5", **SMALL)
    seer = methods.SEER(prototypes="5", **SMALL)
    assert any(isinstance(m, nn.BatchNorm1d) for m in swav.projector)
    assert not any(isinstance(m, nn.BatchNorm1d) for m in seer.projector)
    assert [m.in_features for m in seer.projector if isinstance(m, nn.Linear)] == [256, 24]


@pytest.mark.parametrize(
    ("preset", "trunk"),
    [("uncurated-32gf", 141_333_770), ("uncurated-128gf", 637_419_894), ("uncurated-10b", 9_323_934_872)],
)
def test_seers_large_ones_on_the_meta_device(preset: str, trunk: int) -> None:
    from selftaught.methods.seer import PRESETS

    names = methods.SEER.config_class.__dataclass_fields__
    options = {name: value for name, value in PRESETS[preset].items() if name in names}
    with torch.device("meta"):
        method = methods.SEER(**options)
    assert sum(p.numel() for p in method.encoder.parameters()) == trunk
    widths = [method.encoder.dim, *map(int, method.config.projector.split("-"))]
    head = sum(a * b + b for a, b in pairwise(widths))
    total = sum(p.numel() for p in method.parameters())
    assert total == trunk + head + 16000 * widths[-1]
    assert method.encoder.dim == networks.REGNETS[method.config.encoder].dim


def test_activation_checkpointing_changes_memory_and_no_gradient() -> None:
    options = SMALL | {"encoder": "regnety-400mf", "image_size": 64, "local_crops": 0}
    plain = methods.SEER(prototypes="5", **options)
    saving = methods.SEER(prototypes="5", activation_checkpointing=True, **options)
    saving.load_state_dict(plain.state_dict())
    assert all("forward" in vars(block) for _, block in blocks(saving.encoder))
    assert not any("forward" in vars(block) for _, block in blocks(plain.encoder))
    batch = batch_for(plain, n=4)
    for method in (plain, saving):
        method.loss(batch)["loss"].backward()
    first, second = (m.encoder.model.stem.conv.weight.grad for m in (plain, saving))
    torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-6)


def test_what_does_not_fit_is_refused_in_one_line() -> None:
    with pytest.raises(UserError, match="one image size only"):
        methods.SwAV(encoder="swin_tiny_patch4_window7_224", image_size=224, prototypes="5")
    with pytest.raises(UserError, match=r"local_size=20 isn't a multiple .* 16 pixels"):
        methods.SwAV(encoder="vit_tiny_patch16_224", image_size=224, local_size=20, prototypes="5")
    with pytest.raises(UserError, match="prototypes"):
        methods.SwAV(**SMALL, prototypes="0")


@pytest.mark.slow
def test_two_processes_equal_one_with_the_doubled_batch() -> None:
    """The partition is over all samples and the queue is divided: four steps of six with it full."""
    options = {"local_crops": 0, "prototypes": "6", "queue": 64, "queue_start": 0.0, "freeze_steps": 1}
    one, two = (found["state"] for found in by_one_and_two("swav", options))
    for name in ("encoder.net.0.weight", "projector.weight", "prototypes.0.weight"):
        torch.testing.assert_close(one[name], two[name], rtol=1e-7, atol=1e-9)
    assert int(one["queues.0.filled"]) == 64


@pytest.mark.slow
def test_a_killed_run_resumes_bit_identically_queues_and_prototypes_included(tmp_path: Path) -> None:
    options = TINY | {"prototypes": "6", "local_crops": 1, "queue": 96, "queue_start": 0.0, "freeze_steps": 3}
    whole, cut = cut_and_whole("swav", tmp_path, options)
    assert {"queues.0.items", "queues.1.pointer", "prototypes.0.weight"} <= whole.keys()
    assert all(torch.equal(value, cut[name]) for name, value in whole.items())
    assert int(whole["queues.0.filled"]) == 96


@pytest.mark.slow
@pytest.mark.parametrize("slug", ["swav", "seer"])
def test_it_learns_photographs(slug: str, tmp_path: Path) -> None:
    assert_learns_photographs(slug, tmp_path / "run", margin=0.04)
