"""CVRL and the video pretexts as wired: the loss is the formula of their own outputs, views, who learns, resuming."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

import selftaught
from selftaught import methods, objectives
from selftaught.engine.batches import stack_views
from selftaught.errors import UserError
from selftaught.networks import build
from tests.methods.resuming import cut_and_whole

TINY = {"encoder": "cnn-small-video", "frames": 4, "stride": 1, "image_size": 16, "augment": "small"}
OWN: dict[str, dict[str, Any]] = {
    "cvrl": {"projector": "16-8"},
    "video-rotnet": {},
    "vcop": {"hidden": 16, "gap": 1},
    "prp": {"width": 16, "patch": 8, "rates": 3},
    "tdl": {"projection": 8, "queue": 12},
    "rspnet": {"projection": 8, "queue": 12},
    "video-distillation": {"teacher_preset": "laptop"},
}
QUICK = {"steps": 3, "batch_size": 6, "workers": 0, "quiet": True, "knn_every": 0, "loggers": ["none"]}
DATA = "motion?train=12&test=6&frames=24&side=20"


def made(slug: str, **options: Any) -> Any:
    torch.manual_seed(0)
    return methods.get(slug)(channels=3, samples=48, **TINY | OWN[slug] | options)


def batch_for(method: Any, n: int = 3, seed: int = 0) -> dict[str, Any]:
    """Clips of noise under the method's own recipe, as the loader makes them."""
    rng, recipe = np.random.default_rng(seed), method.recipe()
    clips = [rng.integers(0, 256, (40, 20, 24, method.channels), dtype=np.uint8) for _ in range(n)]
    rows = [recipe.render({"clip": clip}, recipe.sample(rng, {"clip": clip.shape})) for clip in clips]
    return method.on_after_batch_transfer({"index": torch.arange(n)} | stack_views(rows, recipe))


@pytest.mark.parametrize("slug", OWN)
def test_everything_trained_has_a_gradient_and_copies_have_none(slug: str) -> None:
    method = made(slug)
    method.enter_stage(method.stages[0])
    terms = method.loss(batch_for(method))
    assert all(value.ndim == 0 for value in terms.values())
    terms["loss"].backward()
    assert all(p.grad is not None for p in method.trained_modules().parameters() if p.requires_grad)
    if hasattr(method, "momentum"):
        assert all(p.grad is None for p in method.momentum.parameters())
    clip = torch.randn(2, 3, 4, 16, 16)
    again = build(method.deliverable_spec())
    again.load_state_dict(method.deliverable().state_dict())
    with torch.no_grad():
        assert torch.equal(again.eval()(clip), method.eval().predict({"clip": clip}))
        assert set(method.layers({"clip": clip})) == {"conv1", "conv2", "conv3"}


def test_cvrl_is_the_formula_of_its_own_projections() -> None:
    method = made("cvrl", temperature=0.3, reduction="mean_views").eval()
    batch = batch_for(method)
    with torch.no_grad():
        z1, z2 = (method.projector(method.encoder(batch[name])) for name in ("one", "two"))
        expected = objectives.simclr(z1, z2, temperature=0.3).item()
        assert method.loss(batch)["loss"].item() == pytest.approx(expected, rel=1e-4)


def test_cvrls_paper_views_networks_and_options() -> None:
    with torch.device("meta"):
        method = methods.CVRL(channels=3)
    assert sum(p.numel() for p in method.encoder.parameters()) == pytest.approx(31.7e6, rel=2e-3)
    widths = [m.weight.shape for m in method.projector.modules() if isinstance(m, torch.nn.Linear)]
    assert widths == [(2048, 2048)] * 3 + [(128, 2048)]
    norms = [m for m in method.projector.modules() if isinstance(m, torch.nn.BatchNorm1d)]
    assert [(m.momentum, m.eps) for m in norms] == [(0.003, 1e-5)] * 3
    text = repr(method.recipe().views)
    assert "RandomResizedCrop(224, scale=(0.3, 1), ratio=(0.5, 2))" in text
    assert "GaussianBlur(p=1, kernel_size=23)" in text
    assert "GaussianBlur(p=0.1, kernel_size=23)" in text
    assert text.count("Solarize") == 1
    assert made("cvrl", consistent=False).recipe().views[2].pipeline.per_frame
    still = made("cvrl", frames=1)
    assert batch_for(still)["one"].shape == (3, 3, 1, 16, 16)
    assert torch.isfinite(still.loss(batch_for(still))["loss"])
    with pytest.raises(UserError, match="inflated: there are pictures' weights for r3d-50"):
        made("cvrl", inflated=True)


def test_thirty_views_are_averaged_after_they_are_normalised() -> None:
    method = made("cvrl", test_clips=3, test_crops=3, normalize_feature=True).eval()
    recipe, rng = method.evaluation_view(), np.random.default_rng(0)
    clip = rng.integers(0, 256, (30, 16, 40, 3), dtype=np.uint8)
    rows = recipe.render({"clip": clip}, recipe.sample(rng, {"clip": clip.shape}))
    assert len(rows) == 9
    batch = method.prepare({"index": torch.arange(1)} | stack_views([rows], recipe))
    with torch.no_grad():
        each = [normalize(method.encoder(batch[f"view {k}"]), dim=1) for k in range(1, 10)]
        assert torch.allclose(method.predict(batch), torch.stack(each).mean(0), atol=1e-6)
        layer = torch.nn.Linear(64, 5)
        logits = torch.stack([layer(h) for h in each]).mean(0)
        assert torch.allclose(layer(method.predict(batch)), logits, atol=1e-5)
    assert len({tuple(h.flatten().tolist()) for h in each}) == 9
    assert made("cvrl").evaluation_rows == 256
    large = made("cvrl", test_frames=32, test_size=256, test_clips=10, test_crops=3)
    assert large.evaluation_rows * 30 * 3 * 32 * 256**2 <= 2**31


def test_rotation_turns_square_clips_and_asks_by_how_much() -> None:
    method = made("video-rotnet", every_rotation=True, rotations=3).eval()
    batch = batch_for(method)
    turned = torch.cat([torch.rot90(batch["clip"], k, (3, 4)) for k in range(3)])
    with torch.no_grad():
        logits = method.head(method.encoder(turned))
        labels = torch.arange(3).repeat_interleave(3)
        expected = torch.nn.functional.cross_entropy(logits, labels).item()
        assert method.loss(batch)["loss"].item() == pytest.approx(expected, rel=1e-4)


def test_the_order_of_clips_is_asked_of_features_in_shuffled_order() -> None:
    method = made("vcop", clips=4).eval()
    batch = batch_for(method)
    with torch.no_grad():
        torch.manual_seed(3)
        found = method.loss(batch)["loss"].item()
        torch.manual_seed(3)
        labels = torch.randint(24, (3,))
        features = torch.stack([method.encoder(batch[f"clip {k}"]) for k in range(1, 5)], dim=1)
        shuffled = torch.stack([features[n][objectives.order_of(labels[n], 4)] for n in range(3)])
        expected = torch.nn.functional.cross_entropy(method.head(shuffled), labels).item()
    assert found == pytest.approx(expected, rel=1e-4)


def test_prp_completes_the_stretch_at_twice_the_rate() -> None:
    method = made("prp").eval()
    batch = batch_for(method, n=6)
    assert batch["clip"].shape == (6, 3, 12, 16, 16)
    assert set(batch["clip.rate"].tolist()) <= {0, 1, 2}
    clip, fine = batch["clip"][:, :, :4], batch["clip"][:, :, 4:]
    faster = batch["clip.rate"] > 0
    assert torch.equal(fine[faster][:, :, ::2], clip[faster])
    with torch.no_grad():
        target, flags = objectives.prp_target(clip, fine, ~faster)
        maps = method.encoder.maps(clip)
        mask = objectives.motion_mask(target, patch=8)
        expected = objectives.prp(
            method.decoder(maps, (8, 16, 16)),
            target,
            method.classifier(maps),
            batch["clip.rate"],
            mask=mask,
            flags=flags,
        )
        assert method.loss(batch)["loss"].item() == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize("slug", ["tdl", "rspnet"])
def test_keys_enter_the_queue_and_the_copy_follows(slug: str) -> None:
    method = made(slug, target_decay=0.75)
    method.loss(batch_for(method))
    assert int(method.queue.filled) == 3
    assert torch.allclose(method.queue.items[:3].norm(dim=1), torch.ones(3))
    weight = method.encoder.stages["conv1"][0].weight
    copy = method.momentum.average.encoder.stages["conv1"][0].weight
    before = copy.clone()
    assert torch.equal(before, weight)
    with torch.no_grad():
        weight.add_(1.0)
    method.after_step()
    assert torch.allclose(copy, before + 0.25)


def test_tdls_queue_starts_uniform_and_its_rate_falls_at_three_places() -> None:
    bound = (8 / 3) ** -0.5
    items = made("tdl", queue=4000).queue.items
    assert items.abs().max() <= bound
    assert made("tdl", queue_start="unit").queue.items.norm(dim=1).allclose(torch.ones(12))
    method = made("tdl")
    method.plan(240, 1)
    optim = method.optimisers()["main"]
    assert list(optim.milestones) == [120, 160, 200]
    assert optim.gamma == 0.1


def test_a_student_learns_from_two_teachers_or_from_finished_runs(tmp_path: Path) -> None:
    run = selftaught.train("video-distillation", DATA, out=str(tmp_path / "two"), **QUICK, **TINY,
                           **OWN["video-distillation"], teacher_steps=2)  # fmt: skip
    stages = ("first-teacher", "second-teacher", "student")
    assert [path.parent.name for path in sorted((tmp_path / "two").rglob("config.yaml"))][1:] == list(stages)
    assert run.apply(DATA, tmp_path / "found.npy") == 18
    more = selftaught.train("video-distillation", DATA, out=str(tmp_path / "one"), **QUICK, **TINY, kind="mse",
                            teachers=str(tmp_path / "two"))  # fmt: skip
    method = more.method
    assert method.stages == ("student",)
    clip = torch.randn(2, 3, 4, 16, 16, device=method.device)
    with torch.no_grad():
        teacher = method.teachers[0].eval()(clip)
        assert torch.allclose(teacher, run.method.eval().encoder(clip), atol=1e-5)
        said = method.projections[0](method.encoder(clip))
        expected = objectives.pretext_distillation(said, teacher, kind="mse")
        assert method.match(clip)["loss"].item() == pytest.approx(expected.item(), rel=1e-4)
    with pytest.raises(UserError, match="no finished run there"):
        selftaught.train("video-distillation", DATA, out=str(tmp_path / "none"), **QUICK, **TINY, teachers="nowhere")
    with pytest.raises(UserError, match="no pretext 'moco'"):
        made("video-distillation", pretexts="moco+tdl")


@pytest.mark.slow
@pytest.mark.parametrize("slug", ["cvrl", "vcop", "prp", "rspnet"])
def test_a_run_that_is_cut_and_resumed_ends_as_a_whole_one(slug: str, tmp_path: Path) -> None:
    options = QUICK | TINY | OWN[slug] | {"steps": 10, "preset": "laptop"}
    whole, cut = cut_and_whole(slug, tmp_path, options, data=DATA)
    assert whole.keys() == cut.keys()
    assert all(torch.equal(torch.as_tensor(whole[name]), torch.as_tensor(cut[name])) for name in whole)


@pytest.mark.slow
def test_a_run_is_fine_tuned_on_random_clips_and_judged_on_several(tmp_path: Path) -> None:
    options = TINY | OWN["cvrl"] | QUICK | {"preset": "laptop", "test_clips": 2, "test_crops": 3, "flip": 0.0}
    run = selftaught.train("cvrl", DATA, out=str(tmp_path / "run"), **options)
    found = run.evaluate(protocols=["finetune", "recall", "linear", "layerwise"], baselines=False)
    for name in ("finetune", "linear"):
        assert 0 <= found[name]["this"]["accuracy"].mean <= 1
    assert found["recall"]["this"]["recall@10"].mean >= found["recall"]["this"]["recall@1"].mean
    half = run.evaluate(protocols=["finetune"], fraction=0.5, baselines=False)
    assert list(half) == ["finetune 50%"]
    run.export("safetensors", tmp_path / "exported")
    assert run.report().exists()
    assert run.apply(DATA, tmp_path / "found.parquet") == 18
