"""Masked Scene Modeling as wired: what the student sees, which voxels are compared, how the teacher moves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from selftaught import methods, objectives
from selftaught.data import open_source
from selftaught.data.clouds import CloudArrays
from selftaught.data.kinds.points import pack
from selftaught.engine.batches import Batches
from selftaught.errors import UserError
from selftaught.methods.masked_scene_modeling import PRESETS
from tests.methods.resuming import cut_and_whole

TINY = {
    "voxel": 0.3, "widths": "8-8-16", "up_widths": "16-8-8", "blocks": 1, "attention": 1, "attention_levels": 1,
    "head": "16-8", "prototypes": 8, "drop_path": 0.0, "attention_dropout": 0.0, "crop": 300,
}  # fmt: skip
ROOMS = "point-rooms?points=400&train=4&test=2"


def made(channels: int = 9, **options):
    torch.manual_seed(0)
    return methods.MaskedSceneModeling(channels=channels, **TINY | options)


@pytest.fixture(scope="module")
def batch() -> dict:
    return Batches(open_source(ROOMS), made().recipe(), seed=0)[0, [0, 1]]


def test_the_papers_defaults_and_sizes() -> None:
    config = methods.MaskedSceneModeling.config_class()
    assert (config.lr, config.weight_decay, config.momentum, config.beta2) == (1.5e-3, 0.05, 0.9, 0.95)
    assert (config.mask_ratio, config.crop, config.voxel, config.drop_path) == (0.4, 240_000, 0.02, 0.4)
    assert (config.target_decay, config.target_final, config.warmup_epochs) == (0.996, 1.0, 60)
    assert PRESETS["scannet"] == {"epochs": 1800, "batch_size": 12}
    assert PRESETS["ablation"]["widths"] == "64-128-256-384"
    assert made().network(6).widths == (8, 8, 16)


def test_colours_of_hidden_voxels_change_the_target_and_nothing_that_the_student_says(batch: dict) -> None:
    method = made().eval()
    view = method.prepared(batch["first"])
    hidden = view.hidden[0][view.scene.which]
    other = dict(batch["first"])
    other["feat"] = torch.where(hidden[:, None] & (torch.arange(9) < 3), 255 - other["feat"], other["feat"])
    changed = view._replace(scene=method.encoder.scene(other | {"feat": other["feat"][:, :-3]}))
    assert (changed.scene.x != view.scene.x).any()
    for a, b in zip(method.reconstructed(view), method.reconstructed(changed), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(method.target(view)[0], method.target(changed)[0])


def test_the_loss_is_the_formula_of_its_own_outputs(batch: dict) -> None:
    method = made()
    torch.manual_seed(1)
    views = [method.prepared(batch[name]) for name in ("first", "second")]
    outputs, taught = [method.reconstructed(v) for v in views], [method.target(v) for v in views]
    students, teachers = [], []
    for at, view in enumerate(views):
        rows, partners = [], []
        for k in range(3):
            other, hidden, level = views[1 - at], view.hidden[k].nonzero()[:, 0], view.scene.levels[k]
            ends = torch.tensor([int((level.place[hidden, 0] <= scene).sum()) for scene in (0, 1)])
            found = objectives.match_voxels(
                view.truth[k][hidden], other.truth[k], 0.3 * 2**k, ends, other.scene.levels[k].offset
            )
            one, two = hidden[found[0]], found[1]
            rows.append(method.heads[k](outputs[at][k][one]))
            partners.append(method.momentum.average[1][k](taught[1 - at][k][two]))
        students.append(rows)
        teachers.append(partners)
    wanted = objectives.masked_scene_modeling(students, teachers)
    torch.manual_seed(1)
    found = method.loss(batch)
    assert float(found["loss"]) == pytest.approx(float(wanted), rel=1e-4)
    found["loss"].backward()
    assert {n for n, p in method.trained_modules().named_parameters() if p.requires_grad and p.grad is None} == set()
    assert all(p.grad is None for p in method.momentum.parameters())
    assert float(found["levels"]) == 6


@pytest.mark.parametrize("options", [
    {"objective": "cosine"}, {"objective": "mse", "supervised": "last"}, {"objective": "contrast"},
    {"objective": "input"}, {"targets": "centre"}, {"mask_ratio": 0.0, "cross_view": False},
    {"mask_order": "top-down", "mask_ratio": 0.6}, {"convolution": False}, {"attention": 0},
    {"mask_patch": 2, "interpolation": "nearest", "parity": False, "used_levels": "coarsest"},
])  # fmt: skip
def test_every_option_gives_a_finite_loss_with_gradients(batch: dict, options: dict) -> None:
    method = made(**options)
    before = [p.clone() for p in method.buffers()]
    terms = method.loss(batch)
    assert torch.isfinite(terms["loss"])
    terms["loss"].backward()
    assert sum(float(p.grad.abs().sum()) for p in method.encoder.parameters() if p.grad is not None) > 0
    if options.get("targets") == "centre":
        assert not all(torch.equal(a, b) for a, b in zip(before, method.buffers(), strict=True))
    width = 16 if options.get("used_levels") == "coarsest" else 32
    whole = {"points": pack([open_source(ROOMS).read(0)])}
    assert method.eval().predict(whole).shape == (400, width)
    assert method.features(whole).shape == (1, width)


def test_views_without_common_points_change_nothing(batch: dict) -> None:
    method = made()
    far = dict(batch["second"])
    far["feat"] = far["feat"] + torch.where(torch.arange(9) >= 6, 50.0, 0.0)
    terms = method.loss(batch | {"second": far})
    assert float(terms["loss"]) == 0
    terms["loss"].backward()


def test_the_teacher_follows_and_either_network_is_delivered() -> None:
    method = made(target_decay=0.5, keep="student")
    method.plan(10, 5)
    with torch.no_grad():
        method.encoder.net.stem[0].weight.add_(1)
    before = method.momentum.average[0].net.stem[0].weight.clone()
    method.after_step()
    torch.testing.assert_close(method.momentum.average[0].net.stem[0].weight, before + 0.5)
    assert method.deliverable() is method.encoder
    method.config.keep = "teacher"
    assert method.deliverable() is method.momentum.average[0]
    groups = method.optimisers()["main"]
    assert groups.betas == (0.9, 0.95)


def test_further_features_are_standardised_and_other_columns_refused() -> None:
    rng = np.random.default_rng(0)
    clouds = [
        np.concatenate((c, 5 + 3 * rng.normal(size=(len(c), 1))), 1) for c in map(open_source(ROOMS).read, (0, 1))
    ]
    source = CloudArrays(clouds, "x", columns=(*open_source(ROOMS).parent.columns, "intensity"))
    method = made(channels=10)
    method.survey({"data": source})
    assert method.encoder.feature_mean.item() == pytest.approx(5, abs=0.5)
    assert method.momentum.average[0].feature_std.item() == pytest.approx(3, abs=0.5)
    other = made(channels=10)
    other.same_survey(method)
    assert torch.equal(other.encoder.feature_mean, method.encoder.feature_mean)
    assert method.eval().predict({"points": pack([source.read(0)])}).shape == (400, 32)
    with pytest.raises(UserError, match="6 features where the encoder takes 7"):
        method.predict({"points": pack([clouds[0][:, :9]])})
    with pytest.raises(UserError, match="points of 6 columns"):
        made(channels=6)


def test_features_follow_their_points(batch: dict) -> None:
    method = made().eval()
    cloud = open_source(ROOMS).read(0)
    order = np.random.default_rng(0).permutation(len(cloud))
    one, two = (method.predict({"points": pack([c])}) for c in (cloud, cloud[order]))
    torch.testing.assert_close(two, one[order], atol=1e-5, rtol=1e-4)
    both = method.predict({"points": pack([cloud, cloud[:200]])})
    torch.testing.assert_close(both[:400], one, atol=1e-5, rtol=1e-4)
    assert method.encoder.tokens(pack([cloud]))[1].shape[1] == 16
    assert [x.shape[1] for x, _ in method.encoder.maps(pack([cloud]))] == [8, 8, 16]


@pytest.mark.slow
def test_a_run_that_was_cut_ends_in_the_same_weights(tmp_path: Path) -> None:
    options = TINY | {"steps": 9, "batch_size": 2, "quiet": True, "drop_path": 0.1, "voxel": 0.5}
    whole, cut = cut_and_whole("masked-scene-modeling", tmp_path, options, data=ROOMS)
    assert whole.keys() == cut.keys()
    for name, value in whole.items():
        assert torch.equal(value, cut[name]), name


@pytest.mark.slow
def test_it_learns_to_say_what_is_hidden() -> None:
    method = made(attention=0, voxel=0.5, prototypes=16, turn=0.0, flip=0.0, cross_view=False)
    batches = Batches(open_source(ROOMS), method.recipe(), seed=0)
    rule = torch.optim.AdamW(method.trained_modules().parameters(), lr=1e-2)
    losses = []
    for step in range(12):
        torch.manual_seed(step)
        loss = method.loss(batches[0, [0, 1]])["loss"]
        rule.zero_grad()
        loss.backward()
        rule.step()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-3:]) < 0.85 * losses[0]
