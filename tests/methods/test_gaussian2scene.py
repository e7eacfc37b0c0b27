"""Gaussian2Scene as a run: both stages, what it delivers, its baselines, a user's own folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import selftaught
from selftaught.data import open_source
from selftaught.engine.batches import Batches
from selftaught.engine.embedding import batches_of
from selftaught.errors import UserError
from selftaught.methods import Gaussian2Scene
from tests.data.test_rgbd import scene

ROOMS = "room-frames?train=2&test=1&frames=2&width=64&height=48&points=600"
TINY: dict[str, Any] = {
    "points": 200, "patches": 12, "neighbours": 8, "width": 32, "heads": 2, "point_depth": 1, "image_depth": 1,
    "joint_depth": 1, "joint_decoder": 1, "decoder_depth": 1, "image_height": 48, "image_width": 64,
    "render_scale": 2, "gaussians": 4, "warmup_epochs": 0.0,
}  # fmt: skip


def batch_of(method: Gaussian2Scene, rows: tuple[int, ...] = (0, 1, 2)) -> dict[str, Any]:
    made = Batches(open_source(ROOMS), method.recipe(), seed=0)[(0, list(rows))]
    return method.prepare(made)


def gradients(method: Gaussian2Scene, stage: str) -> tuple[dict[str, torch.Tensor], set[str]]:
    """Terms of one batch, and the parameters that learn from them."""
    torch.manual_seed(0)
    method.enter_stage(stage)
    terms = method.train().loss(batch_of(method))
    method.zero_grad()
    terms["loss"].backward()
    return terms, {n for n, p in method.named_parameters() if p.grad is not None and p.grad.any()}


def test_both_stages_teach_all_that_they_should() -> None:
    method = Gaussian2Scene(channels=9, modality="points", depth_weight=0.5, **TINY)
    terms, moved = gradients(method, "masked")
    assert set(terms) == {"loss", "points", "image", "cross"}
    names = {n for n, _ in method.named_parameters()}
    heads = {n for n in names if n.startswith("gaussian_head")}
    assert heads
    assert moved == names - heads - {"autoencoder.joint_norm.bias"} | (moved & {"autoencoder.joint_norm.bias"})
    terms, moved = gradients(method, "gaussians")
    assert set(terms) == {"loss", "points", "image", "cross", "geometry", "picture", "depth"}
    assert heads <= moved
    assert all(t.isfinite() for t in terms.values())


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"branches": "points"}, {"points", "geometry", "picture"}),
        ({"cross_weight": 0.0, "picture_weight": 0.0, "alignment": "random"}, {"points", "image", "geometry"}),
        ({"geometry_weight": 0.0, "neighbour": False}, {"points", "image", "cross", "picture"}),
        ({"features": "xyz+colour", "branches": "points", "picture_weight": 0.0}, {"points", "geometry"}),
        ({"rendering": "volume", "rays": 32, "ray_samples": 8}, {"points", "image", "cross", "geometry", "picture"}),
    ],
)  # fmt: skip
def test_variants_have_their_terms(options: dict[str, Any], expected: set[str]) -> None:
    terms, _ = gradients(Gaussian2Scene(channels=9, modality="points", **TINY, **options), "gaussians")
    assert set(terms) == expected | {"loss"}


def test_pictures_alone_and_options_that_cannot_be() -> None:
    pictures = Gaussian2Scene(channels=9, modality="points", branches="image", **TINY)
    for stage in pictures.stages:
        assert set(gradients(pictures, stage)[0]) == {"loss", "image"}
    probed = next(batches_of(pictures.eval(), open_source(ROOMS), pictures.probing_recipe(), workers=0))
    features = pictures.point_features(probed)[:3]
    assert features.shape == (3, 200, 32)
    assert features.any(2).float().mean() > 0.9  # nearly every point is seen on the picture
    assert Gaussian2Scene(channels=9, gaussian_epochs=0.0, **TINY).stages == ("masked",)
    longer = Gaussian2Scene(channels=9, geometry_weight=0.0, picture_weight=0.0, modality="points", **TINY)
    assert set(gradients(longer, "gaussians")[0]) == {"loss", "points", "image", "cross"}
    with pytest.raises(UserError, match="multiple of image_patch"):
        Gaussian2Scene(channels=9, **TINY | {"image_height": 50})
    with pytest.raises(UserError, match="gaussians=9"):
        Gaussian2Scene(channels=9, **TINY | {"gaussians": 9})
    with pytest.raises(UserError, match="RGB-D frames with poses"):
        Gaussian2Scene.takes(open_source("point-rooms"))


def test_hidden_image_patches_lie_under_visible_points() -> None:
    method = Gaussian2Scene(channels=9, modality="points", crop=1.0, **TINY).train()
    torch.manual_seed(0)
    found = method.scene(batch_of(method))
    patches = method.cut(found)
    assert patches is not None
    hidden = method.hide(found, patches)
    on = method.on_image(patches.centres, found)
    under = [hidden.image[i, on[i, k]].item() for i, k in (~hidden.points).nonzero().tolist() if on[i, k] >= 0]
    assert np.mean(under) > 0.9  # three quarters by chance
    assert (on >= 0).float().mean() > 0.9  # the cloud is what the picture shows, moved with its camera


def test_gaussians_of_the_true_points_look_like_the_photograph() -> None:
    """The camera, the renderer and the cloud agree: true colours at true points make the true picture."""
    method = Gaussian2Scene(channels=9, modality="points", **TINY | {"points": 600}).eval()
    found = method.scene(batch_of(method))
    (image, intrinsics, camera, depth), (other, its_intrinsics, its_camera, _) = method.views_of_scene(found)
    points = found.points
    made = selftaught.networks.Gaussians(
        points[..., :3], torch.tensor([1.0, 0, 0, 0]).expand(*points.shape[:2], 4),
        torch.full_like(points[..., :3], 0.06), torch.full(points.shape[:2], 0.9), points[..., 3:] + 0.5,
    )  # fmt: skip
    for view, k, pose in ((image, intrinsics, camera), (other, its_intrinsics, its_camera)):
        shown = [selftaught.networks.render_gaussians(made.of(i), k[i], pose[i], view.shape[2:], 0.5, pixel_centre=0.0)
                 for i in range(3)]  # fmt: skip
        rendered, alpha = (torch.stack([getattr(s, part) for s in shown]) for part in ("image", "alpha"))
        covered = (alpha > 0.9)[:, None].expand_as(view)
        error = (rendered - view).abs()[covered].mean()
        assert error < 0.5 * (view.flip(0) - view).abs()[covered].mean()
    assert depth is not None
    rendered_depth = torch.stack([s.depth for s in shown])
    assert rendered_depth.shape == depth.shape


def test_a_run_from_a_folder_to_its_embeddings(tmp_path: Path) -> None:
    for name in ("a", "b"):
        scene(tmp_path / "scans" / name)
    options: dict[str, Any] = TINY | {"image_height": 32, "image_width": 48, "steps": 3, "gaussian_steps": 2}
    run = selftaught.train(
        "gaussian2scene", data=f"rgbd:{tmp_path / 'scans'}", out=tmp_path / "run", quiet=True, batch_size=4, **options
    )
    assert list(run.method.stages) == ["masked", "gaussians"]
    cloud = np.random.default_rng(0).uniform(0, 2, (300, 3)).astype(np.float32)
    np.save(tmp_path / "cloud.npy", cloud)
    run.apply(str(tmp_path / "cloud.npy"), out=tmp_path / "found.npy")
    assert np.load(tmp_path / "found.npy").shape == (1, 64)
    found = run.evaluate(protocols=["scene-segmentation"])
    assert set(found["scene-segmentation"]) == {"this", "random", "raw"}
    path = run.export("safetensors", tmp_path / "export")
    assert path.exists()


@pytest.mark.slow
def test_hidden_points_are_learnt() -> None:
    """The sheet's toy check: the Chamfer distance falls below half of that of patches that are their centres."""
    torch.manual_seed(0)
    method = Gaussian2Scene(channels=9, modality="points", branches="points", gaussian_epochs=0.0, **TINY).train()
    clouds = Batches(open_source(ROOMS), None, seed=0)[(0, [0, 1, 2, 3])]["points"]
    stepper = torch.optim.AdamW(method.autoencoder.parameters(), lr=3e-3)

    def terms() -> tuple[torch.Tensor, torch.Tensor]:
        points = method.clouds(clouds)
        points = points - points.mean(1, keepdim=True) * torch.tensor([1.0, 1, 1, 0, 0, 0])
        assert method.point_encoder is not None
        patches = method.point_encoder.cut(points[..., :3], None)
        none = torch.full((4, 12, 1), -1)
        hidden = selftaught.networks.complementary_masks(none, 1)
        answer = method.autoencoder(patches, points[..., :3].mean(1), None, hidden)
        made, true = (t[hidden.points].unflatten(0, (4, -1)) for t in (answer.points, patches.points))
        return selftaught.objectives.hidden_points(made, true), selftaught.objectives.hidden_points(0 * made, true)

    for _ in range(120):
        loss, _ = terms()
        stepper.zero_grad()
        loss.backward()
        stepper.step()
    last = torch.tensor([[t.item() for t in terms()] for _ in range(4)]).mean(0)
    assert last[0] < 0.5 * last[1]
